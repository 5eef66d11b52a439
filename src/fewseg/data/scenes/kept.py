"""A memory of drawn scenes that forked loader processes share, so that no scene is drawn twice.

Drawing a scene takes ten times as long as reading a photo, and a training asks for each once an epoch, from loader
processes that start anew. A slot holds height, width and check sum, then colours and labels. The check sum replaces a
lock: a process may be killed while it writes, and two that write the same slot write the same bytes.
"""

from __future__ import annotations

import mmap
import zlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fewseg.data.source import SourceIndex

MOST_BYTES = 2**27
"""Of one source: 511 scenes of 256 px. Memory is taken as scenes are drawn; those without room are drawn each time."""
_HEADER = 12
"""Bytes: height, width, check sum."""


class KeptScenes:
    """Slots for the first scenes of a source, of at most `size` pixels a side, and its index, once made."""

    def __init__(self, images: int, size: int) -> None:
        self.index: SourceIndex | None = None
        self._slot = _HEADER + 4 * size * size
        self._count = min(images, MOST_BYTES // self._slot)
        try:  # anonymous memory of a mapping is shared with the processes that are forked later
            memory = mmap.mmap(-1, max(1, self._count * self._slot))
        except OSError:  # the process may not have as much
            self._count, memory = 0, bytearray()
        self._memory = np.frombuffer(memory, np.uint8)

    def put(self, i: int, drawn: NDArray[np.uint8]) -> None:
        """Keep the colours and labels (H, W, 4) of scene `i`, if there is a slot for it."""
        if not 0 <= i < self._count:
            return
        slot = self._memory[i * self._slot : (i + 1) * self._slot]
        slot[_HEADER : _HEADER + drawn.size] = drawn.ravel()
        slot[:_HEADER] = np.array([*drawn.shape[:2], zlib.crc32(drawn.data)], np.uint32).view(np.uint8)

    def get(self, i: int) -> NDArray[np.uint8] | None:
        """What was put for scene `i`, as a copy; None if nothing was, or only a part."""
        if not 0 <= i < self._count:
            return None
        slot = self._memory[i * self._slot : (i + 1) * self._slot]
        height, width, check = slot[:_HEADER].copy().view(np.uint32).tolist()
        length = 4 * height * width
        if not 0 < length <= self._slot - _HEADER:
            return None
        drawn = slot[_HEADER : _HEADER + length].copy().reshape(height, width, 4)
        return drawn if zlib.crc32(drawn.data) == check else None


@lru_cache(maxsize=4)
def kept_scenes(subset: str, level: str, images: int, size: int, seed: int) -> KeptScenes:
    """The same slots for all sources of this process, and of those forked from it, that have the same options."""
    return KeptScenes(images, size)
