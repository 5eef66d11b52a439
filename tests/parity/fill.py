"""Weights and inputs that anyone can make again: parameters from their released names, inputs from a seed.

The vectors beside this file were computed with these numbers, so none of them may ever change.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

Arrays = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def parameter(name: str, shape: tuple[int, ...]) -> NDArray[np.float32 | np.int64]:
    """A parameter's or a buffer's values."""
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)  # the vectors' own
    last = name.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    z = random.standard_normal(shape).astype(np.float32)
    if last in ("running_mean", "bias"):
        return 0.1 * z
    if last == "running_var":
        return (1.0 + 0.1 * np.abs(z)).astype(np.float32)
    if len(shape) <= 1:
        return (1.0 + 0.1 * z).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    return (z * np.float32((1.0 / fan_in) ** 0.5)).astype(np.float32)


def inputs(size: int, shots: int, batch: int = 1, seed: int = 0) -> Arrays:
    """Query (B, 3, S, S), supports (B, K, 3, S, S), their masks (B, K, S, S), query mask and base mask (B, S, S).

    Images are normal numbers, as if normalised. Masks hold 0, 1 and 255, the base mask 0, 3, 7 and 255.
    """
    random = np.random.RandomState(seed)  # the vectors' own
    query = random.standard_normal((batch, 3, size, size)).astype(np.float32)
    supports = random.standard_normal((batch, shots, 3, size, size)).astype(np.float32)
    y, x = np.mgrid[:size, :size] / size
    masks = np.zeros((batch, shots, size, size), np.int64)
    for b in range(batch):
        for k in range(shots):
            top, left, radius = 0.35 + 0.05 * k, 0.6 - 0.06 * k + 0.05 * b, 0.22 + 0.03 * k
            masks[b, k][(y - top) ** 2 + (x - left) ** 2 < radius * radius] = 1
            masks[b, k][:3] = 255
    truth = np.zeros((batch, size, size), np.int64)
    truth[:, size // 4 : size // 2, size // 5 : size // 2] = 1
    truth[:, :, -4:] = 255
    base = np.zeros((batch, size, size), np.int64)
    base[:, : size // 3, : size // 3] = 3
    base[:, size // 2 :, size // 2 :] = 7
    base[:, :, -4:] = 255
    return query, supports, masks, truth, base
