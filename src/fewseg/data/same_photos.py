"""Photos that are there more than once, by their bytes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewseg.data.index import cached_arrays, fingerprint, in_parallel
from fewseg.progress import Silent


def same_content(photos: Sequence[Path], *, root: Path, key: str, progress: Silent) -> list[int]:
    """A number for every photo, that of the first photo with the same bytes.

    Only files of one size are read. The numbers are cached below `root` by the photos' names, sizes and times.
    """
    of_size: dict[int, list[int]] = defaultdict(list)
    for i, path in enumerate(photos):
        of_size[path.stat().st_size].append(i)
    doubtful = [i for alike in of_size.values() if len(alike) > 1 for i in alike]

    def build() -> dict[str, NDArray[Any]]:
        hashes = in_parallel(lambda i: _hash(photos[i]), doubtful, progress, "comparing photos")
        first: dict[str, int] = {}
        numbers = np.arange(len(photos))
        numbers[doubtful] = [first.setdefault(digest, i) for i, digest in zip(doubtful, hashes, strict=True)]
        return {"numbers": numbers}

    if not doubtful:
        return list(range(len(photos)))
    return cached_arrays(build, root=root, key=key, mark=fingerprint(photos, root=root))["numbers"].tolist()


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
