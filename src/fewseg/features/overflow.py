"""A memory-mapped file for features that memory has no room for.

The file has no name: where the system allows it (not on Windows) it is removed from its folder as soon as it is open,
so that nothing is left behind even by a process that is killed.
"""

from __future__ import annotations

import errno
import mmap
import tempfile
import weakref
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
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
        self._segment: tuple[IO[bytes], mmap.mmap] | None = None
        self._end = 0

    def put(self, features: Features) -> Features | None:
        """The features as views of the file; None where the limit is reached or the disk is full."""
        tensors = {name: dense(f).cpu() for name, f in features.items()}
        offsets = _offsets(tensors)
        size = int(offsets[-1])
        if self.used + size > self.limit:
            return None
        try:
            file, mapped = self._room_for(size)
            places = zip(tensors.items(), (offsets + self._end).tolist(), strict=False)
            self._end += size
            self.used += size
            return {name: _write(file, mapped, tensor, start) for (name, tensor), start in places}
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.limit = self.used  # the disk is full: no more is tried
            return None

    def _room_for(self, size: int) -> tuple[IO[bytes], mmap.mmap]:
        """The current segment; a new one (a file of its own) where `size` bytes do not fit."""
        if self._segment is None or self._end + size > SEGMENT:
            if self._segment is not None:
                self._segment[0].close()  # its views stay
            file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 closed when the next one is needed
            weakref.finalize(self, file.close)  # or when nobody can write any more
            file.truncate(max(SEGMENT, size))
            self._segment = file, mmap.mmap(file.fileno(), max(SEGMENT, size))
            self._end = 0
        return self._segment


class CountedFile(FeatureFile):
    """Takes what such a file would take, and writes nothing."""

    def put(self, features: Features) -> Features | None:
        """The features themselves; None where the limit is reached."""
        size = int(_offsets(features)[-1])
        if self.used + size > self.limit:
            return None
        self.used += size
        return features


def _offsets(tensors: Features) -> NDArray[np.int64]:
    """Where each begins, and the last ends."""
    return np.cumsum([0, *(-(-t.numel() * t.element_size() // _ALIGNED) * _ALIGNED for t in tensors.values())])


def _write(file: IO[bytes], mapped: mmap.mmap, tensor: Tensor, start: int) -> Tensor:
    if not tensor.numel():
        return tensor
    flat = tensor.as_strided((tensor.numel(),), (1,))
    # written, not copied into the mapping: a full disk is then an error, not the end of the process
    file.seek(start)
    file.write(flat.view(torch.uint8).numpy().data)
    file.flush()
    view = torch.frombuffer(mapped, dtype=tensor.dtype, count=tensor.numel(), offset=start)
    return view.as_strided(tensor.shape, tensor.stride())


def dense(tensor: Tensor) -> Tensor:
    """The tensor itself if its elements fill their memory in whatever order, else a contiguous copy."""
    # torch gives a new tensor the order of such a one, and of no other
    kept = torch.empty_like(tensor, device="meta").stride() == tensor.stride()
    return tensor if kept else tensor.contiguous()
