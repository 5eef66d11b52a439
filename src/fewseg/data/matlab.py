"""The one kind of MATLAB file that is read here: a struct with a label map (SBD's `cls` files), MAT format 5.

scipy's reader (1.17) trusts the types and sizes that a file states: 4 of 3,000 files with a few changed bytes ended the
process with a segmentation fault in `read_var_array`. Here nothing is read beyond what is there.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 2**28
"""Of a variable once it is unpacked."""
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED, _STRUCT, _NUMERIC = 14, 15, 2, range(6, 16)


class _Element(NamedTuple):
    kind: int
    content: memoryview
    order: Literal["<", ">"]
    """Of bytes: < or >."""

    def numbers(self, kinds: str = "iuf") -> NDArray[Any]:
        dtype = np.dtype(_NUMBERS.get(self.kind, "V1")).newbyteorder(self.order)
        if dtype.kind not in kinds:
            raise ValueError(f"type {self.kind} is none of numbers")
        return np.frombuffer(self.content, dtype)

    def parts(self) -> Iterator[_Element]:
        """The elements inside; ValueError where one is longer than what holds it."""
        at = 0
        while at + 8 <= len(self.content):
            kind, size = struct.unpack_from(f"{self.order}II", self.content, at)
            begin, small = at + 8, kind >> 16
            if small:  # up to four bytes lie in the tag itself
                kind, size, begin = kind & 0xFFFF, small, at + 4
            if small > 4 or begin + size > len(self.content):
                raise ValueError(f"an element at byte {at} has {size} bytes, more than there are")
            yield _Element(kind, self.content[begin : begin + size], self.order)
            at = at + 8 if small else begin + size + (0 if kind == _COMPRESSED else -size % 8)


class _Matrix(NamedTuple):
    kind: int
    shape: tuple[int, ...]
    name: str
    rest: tuple[_Element, ...]


def read_field(path: Path, variable: str, field: str) -> NDArray[Any]:
    """The numeric matrix in a field of a 1 x 1 struct variable.

    Raises ValueError that says what is wrong with the file, OSError where it cannot be read.
    """
    content = memoryview(path.read_bytes())
    orders: dict[bytes, Literal["<", ">"]] = {b"IM": "<", b"MI": ">"}
    order = orders.get(bytes(content[126:128]))
    if order is None:
        raise ValueError("it is no MATLAB file of format 5")
    for element in _Element(0, content[128:], order).parts():
        matrix = _matrix(_unpacked(element))
        if matrix.name == variable:
            return _numbers(_matrix(_field(matrix, field)))
    raise ValueError(f"it has no variable {variable}")


def _unpacked(element: _Element) -> _Element:
    if element.kind != _COMPRESSED:
        return element
    unpacking = zlib.decompressobj()
    try:
        content = unpacking.decompress(element.content, MOST_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if unpacking.unconsumed_tail or not unpacking.eof:
        raise ValueError(f"it is cut off, or unpacks to more than {MOST_BYTES >> 20} MB")
    return next(_Element(0, memoryview(content), element.order).parts(), element)


def _matrix(element: _Element) -> _Matrix:
    parts = tuple(element.parts()) if element.kind == _MATRIX else ()
    if len(parts) < 3:
        raise ValueError("an array lacks its flags, dimensions or name")
    flags, shape = parts[0].numbers("iu"), parts[1].numbers("iu")
    if not len(flags) or (shape < 0).any():
        raise ValueError("an array has no flags or no dimensions")
    return _Matrix(int(flags[0]) & 0xFF, tuple(shape.tolist()), bytes(parts[2].content).decode("latin-1"), parts[3:])


def _field(matrix: _Matrix, name: str) -> _Element:
    if matrix.kind != _STRUCT or matrix.shape != (1, 1) or len(matrix.rest) < 2:
        raise ValueError(f"{matrix.name} is no struct of 1 x 1")
    length, names = matrix.rest[0].numbers("iu"), bytes(matrix.rest[1].content)
    step = int(length[0]) if len(length) else 0
    fields = [names[at : at + step].split(b"\0")[0] for at in range(0, len(names), step)] if step > 0 else []
    values = dict(zip(fields, matrix.rest[2:], strict=False))
    if name.encode() not in values:
        raise ValueError(f"{matrix.name} has no field {name}")
    return values[name.encode()]


def _numbers(matrix: _Matrix) -> NDArray[Any]:
    if matrix.kind not in _NUMERIC or not matrix.rest:
        raise ValueError("its values are no numbers")
    # stored in the smallest type that holds them, column by column
    return matrix.rest[0].numbers().reshape(matrix.shape, order="F")
