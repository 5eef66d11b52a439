"""A memory-mapped file for features that memory has no room for.

The file has no name: where the system allows it (not on Windows) it is removed from its folder as soon as it is open,
so that nothing is left behind even by a process that is killed.
"""

from __future__ import annotations

import errno
import math
import mmap
import tempfile
import weakref
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from fewseg.models.base import Features

SEGMENT = 2**28
"""Bytes that are mapped at once: a system allows some ten thousand mappings, and features may be more."""

_ALIGNED = 64


class FeatureFile:
    """Features written one after the other; what comes back are views of the file, in the same memory layout.

    `limit`: most bytes to write; `folder`: where the file is, the system's temporary folder by default.
    """

    def __init__(self, *, limit: float, folder: Path | None = None) -> None:
        self.limit, self.folder = limit, folder
        self.used = 0
        self._file: IO[bytes] | None = None
        self._map: mmap.mmap | None = None
        self._end = 0

    def put(self, features: Features) -> Features | None:
        """The features as views of the file; None where the limit is reached or the disk is full."""
        tensors = {name: dense(f).cpu() for name, f in features.items()}
        offsets = np.cumsum([0, *(-(-t.numel() * t.element_size() // _ALIGNED) * _ALIGNED for t in tensors.values())])
        size = int(offsets[-1])
        if self.used + size > self.limit:
            return None
        try:
            start = self._make_room(size)
            return {n: self._write(t, start + int(at)) for (n, t), at in zip(tensors.items(), offsets, strict=False)}
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.limit = self.used  # the disk is full: no more is tried
            return None

    def _make_room(self, size: int) -> int:
        """Where in the current segment `size` bytes start; a new segment (a file of its own) where they do not fit."""
        if self._file is None or self._end + size > SEGMENT:
            if self._file is not None:
                self._file.close()  # its views stay
            self._file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 closed when the next one is needed
            weakref.finalize(self, self._file.close)  # or when nobody can write any more
            self._file.truncate(max(SEGMENT, size))
            self._map = mmap.mmap(self._file.fileno(), max(SEGMENT, size))
            self._end = 0
        start = self._end
        self._end += size
        self.used += size
        return start

    def _write(self, tensor: Tensor, start: int) -> Tensor:
        assert self._file is not None
        assert self._map is not None
        if not tensor.numel():
            return tensor
        flat = tensor.as_strided((tensor.numel(),), (1,))
        # written, not copied into the mapping: a full disk is then an error, not the end of the process
        self._file.seek(start)
        self._file.write(flat.view(torch.uint8).numpy().data)
        self._file.flush()
        mapped = torch.frombuffer(self._map, dtype=tensor.dtype, count=tensor.numel(), offset=start)
        return mapped.as_strided(tensor.shape, tensor.stride())


def dense(tensor: Tensor) -> Tensor:
    """The tensor itself if its elements fill their memory in whatever order, else a contiguous copy."""
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1):
        if stride != expected:
            return tensor.contiguous()
        expected *= size
    return tensor if expected == math.prod(tensor.shape) else tensor.contiguous()
