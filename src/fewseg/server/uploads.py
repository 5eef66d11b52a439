"""Uploads: the parts of a multipart body, written to the visitor's folder while they come, within the limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from fewseg.progress import counted
from fewseg.server.folder import writing
from fewseg.server.limits import MB, Limits, or_raise
from fewseg.server.refused import Refused
from fewseg.server.visitors import Stored, Visitor

_SLOWEST = 20_000
"""Bytes a second that a client must send in the mean, once it had `patience`."""
_LONGEST_FIELD = 1000
_MOST_FIELDS = 200
_ASKED_FOR = "fewseg.asked_for"
"""In the scope of a request whose body is being read."""
_GOOD_MANNERS = 32 * MB, 3.0
"""Of a body that is refused so many bytes are still read, for so many seconds: a client that is cut off while it sends
does not see the answer.
"""


@dataclass(frozen=True)
class File:
    """A file that was sent."""

    field: str
    name: str
    stored: Stored


@dataclass
class Upload:
    """What a form held."""

    visitor: Visitor
    files: list[File] = field(default_factory=list)
    fields: list[tuple[str, str]] = field(default_factory=list)

    def of(self, name: str) -> list[File]:
        """Files of a field, in their order."""
        return [file for file in self.files if file.field == name]

    def texts(self, name: str) -> list[str]:
        """Values of a field, in their order."""
        return [value for key, value in self.fields if key == name]

    def check_names(self, *known: str) -> None:
        """Refused where a field or a file has another name."""
        given = [file.field for file in self.files] + [key for key, _ in self.fields]
        if wrong := [name for name in given if name not in known]:
            raise Refused(400, f"the form has a field {wrong[0][:60]!r}; give {', '.join(known)}")

    def remove(self) -> None:
        """All files that were sent."""
        while self.files:
            self.visitor.remove(self.files.pop().stored)


class _Form:
    """Takes the pieces of a body in turn, and writes its files."""

    def __init__(self, upload: Upload, limits: Limits, *, length: int, most_files: int, too_many: str) -> None:
        self.upload, self._limits, self._most_files, self._too_many = upload, limits, most_files, too_many
        self._length, self._held = length, 0
        self._sent = f" (the request has {length / MB:.1f})" if length else ""
        self.whole = False
        self._headers: dict[str, bytes] = {}
        self._header, self._value = b"", b""
        self._name, self._file_name = "", ""
        self._out: BinaryIO | None = None
        self._path = upload.visitor.folder
        self._size, self._text = 0, b""

    def callbacks(self) -> dict[str, object]:
        names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end")
        return {f"on_{name}": getattr(self, name) for name in (*names, "headers_finished", "end")}

    def part_begin(self) -> None:
        self._headers, self._size, self._text = {}, 0, b""
        self._header = self._value = b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[self._header.decode("latin-1").lower()] = self._value
        self._header = self._value = b""

    def headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" not in options:
            if len(self.upload.fields) >= _MOST_FIELDS:
                raise Refused(413, f"the form has more than {_MOST_FIELDS} fields")
            return
        if len(self.upload.files) >= self._most_files:
            raise Refused(413, self._too_many)
        sent = options[b"filename"].decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
        self._file_name = "".join(c if c.isprintable() else "?" for c in sent)[-200:] or "photo"
        self._path = self.upload.visitor.new_path()
        self._out = self._path.open("wb")

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self._out is None:
            self._text += data[start:end]
            if len(self._text) > _LONGEST_FIELD:
                raise Refused(413, f"the field {self._name[:60]!r} is longer than {_LONGEST_FIELD} bytes")
            return
        number = end - start
        if self._size + number > self._limits.file_mb * MB:
            smaller = "teach it of fewer photos, or with --no-photos" if self._name == "concept" else "scale it down"
            told = f"{self._file_name} has more than {self._limits.file_mb} MB"
            raise Refused(413, f"{told}{self._sent}; {smaller}{or_raise('file_mb')}")
        self.upload.visitor.take(number, held=self._held, length=self._length)
        self._size += number
        self._held += number
        self._out.write(data[start:end])

    def part_end(self) -> None:
        if self._out is None:
            self.upload.fields.append((self._name, self._text.decode("utf-8", "replace")))
            return
        self._out.close()
        self._out = None
        stored = self.upload.visitor.stored(self._path, taken=self._size)
        self.upload.files.append(File(self._name, self._file_name, stored))

    def end(self) -> None:
        self.whole = True

    def give_up(self) -> None:
        """Of a body that does not end as it should."""
        if self._out is not None:
            with suppress(OSError):  # what is left to be written may find no room
                self._out.close()
            self._path.unlink(missing_ok=True)
            self.upload.visitor.give_back(self._size)
        self.upload.remove()


async def receive(request: Request, visitor: Visitor, limits: Limits, *, most_files: int, too_many: str) -> Upload:
    """A multipart form; its files are the caller's to remove. Refused where it is none, too large or too slow."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise Refused(415, "send a form: Content-Type multipart/form-data, with a boundary")
    header = request.headers.get("content-length", "0")
    length = int(header) if header.isdigit() else 0
    if length > limits.request_mb * MB:
        told = f"the request has {length / MB:.1f} MB; at most {limits.request_mb} are taken at once"
        raise Refused(413, f"{told}: send fewer files{or_raise('request_mb')}")
    form = _Form(Upload(visitor), limits, length=length, most_files=most_files, too_many=too_many)
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        async for chunk in _paced(request, limits):
            with writing(visitor.folder):
                parser.write(chunk)
        parser.finalize()
        if not form.whole:
            raise Refused(400, "the form breaks off before its end")
    except FormParserError as error:
        form.give_up()
        raise Refused(400, f"the form cannot be read ({error})") from error
    except BaseException:
        form.give_up()
        raise
    return form.upload


async def body_of(request: Request, limits: Limits) -> bytes:
    """A body that is no form; Refused where it is too large or too slow."""
    return b"".join([chunk async for chunk in _paced(request, limits)])


async def _paced(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """Pieces of the body; Refused where they are too many or come too slowly."""
    began, received = time.monotonic(), 0
    request.scope[_ASKED_FOR] = True
    stream = request.stream()
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream, None), limits.patience)
        except TimeoutError as error:
            raise Refused(408, f"nothing came for {counted(limits.patience, 'second')}") from error
        if chunk is None:
            return
        received += len(chunk)
        if received > limits.request_mb * MB:
            raise Refused(413, f"the request has more than {limits.request_mb} MB; send fewer files at once")
        late = time.monotonic() - began - limits.patience
        if late > 0 and received < late * _SLOWEST:
            raise Refused(408, f"it comes too slowly: fewer than {_SLOWEST // 1000} kB a second")
        yield chunk


async def drain(request: Request) -> None:
    """Read on a little where a request is refused before its body was read to its end; not of a client that waits to be
    asked for it (`Expect: 100-continue`, as curl): the refusal is its answer.
    """
    if "100-continue" in request.headers.get("expect", "").lower() and not request.scope.get(_ASKED_FOR):
        return
    left, seconds = _GOOD_MANNERS
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                left -= len(chunk)
                if left < 0:
                    return
    except (TimeoutError, ClientDisconnect, RuntimeError):
        return
