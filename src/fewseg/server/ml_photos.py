"""The photos that Label Studio's tasks name: in a folder that was given, or from the one host that was given.

A task is written by others. So a path never leaves the folder, and an address is asked only where its scheme, host and
port are those that the server was started with; a redirection elsewhere is not followed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, unquote, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from fewseg.data.annotations.photos import Photos
from fewseg.errors import DataError, UsageError, first_line
from fewseg.server.folder import writing
from fewseg.server.limits import MB, Limits

_SECONDS = 30
"""That a photo may take to begin, or to go on."""
_ACCESS = 240.0
"""Seconds for which an access token is taken anew by a personal one; Label Studio's last five minutes."""


class TaskPhotos:
    """Photos by what tasks say of them: first in `folder`, then from `url` with the token of an account there.

    UsageError where neither is given, or the address is none.
    """

    def __init__(self, folder: Path | None, url: str | None, token: str | None, limits: Limits) -> None:
        if folder is None and url is None:
            raise UsageError("--label-studio needs the photos: give their folder (--photos), or --label-studio-url")
        if folder is not None and not folder.is_dir():
            raise UsageError(f"--photos {folder}: there is no such folder")
        self._folder, self._token, self._most = folder, token, limits.file_mb
        self._url = None if url is None else _checked(url)
        self._access = ("", 0.0)
        self._opener = build_opener(_Stay)

    @contextmanager
    def of(self, address: str, work: Path) -> Iterator[Path]:
        """The file of a photo while it is needed; a fetched one lies in `work`. DataError where there is none."""
        found = self._in_folder(address) if self._folder else None
        if found is not None:
            yield found
            return
        if self._url is None:
            raise DataError(f"{address[:200]!r} is not in {self._folder}; start the server with --photos of its folder")
        with TemporaryDirectory(dir=work) as name:
            path = Path(name) / _file_name(address)
            content = self._fetched(address)
            with writing(Path(name)):
                path.write_bytes(content)
            yield path

    def _in_folder(self, address: str) -> Path | None:
        assert self._folder is not None
        found = Photos(self._folder, self._folder).find(address)
        inside = found and Path(os.path.abspath(found)).is_relative_to(os.path.abspath(self._folder))
        return found if inside else None

    def _fetched(self, address: str) -> bytes:
        assert self._url is not None
        place = urljoin(f"{self._url}/", address)
        if urlsplit(place)[:2] != urlsplit(self._url)[:2]:
            raise DataError(f"{address[:200]!r} is not on {self._url}, and nothing is fetched from elsewhere")
        content = self._asked(Request(place, headers=self._head()), self._most * MB + 1)
        if len(content) > self._most * MB:
            raise DataError(f"{address[:200]!r} has more than {self._most} MB; --limit file_mb=N takes larger ones")
        return content

    def _asked(self, request: Request, most: int) -> bytes:
        try:
            with self._opener.open(request, timeout=_SECONDS) as answer:
                return answer.read(most)
        except (OSError, HTTPException, ValueError) as error:
            why = first_line(error)
            if isinstance(error, HTTPError):
                why = _WHY.get(error.code, why)
                error.close()
            raise DataError(f"{request.full_url[:300]} cannot be read ({why})") from error

    def _head(self) -> dict[str, str]:
        """Who asks: a legacy token as it is, a personal one (a JWT) by the access token that it brings."""
        if not self._token:
            return {}
        if self._token.count(".") != 2:
            return {"Authorization": f"Token {self._token}"}
        access, until = self._access
        if time.monotonic() > until:
            body = json.dumps({"refresh": self._token}).encode()
            kind = {"Content-Type": "application/json"}
            answer = self._asked(Request(f"{self._url}/api/token/refresh", body, kind), MB)
            try:
                access = json.loads(answer)["access"]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{self._url}/api/token/refresh gave no access token") from error
            self._access = access, time.monotonic() + _ACCESS
        return {"Authorization": f"Bearer {access}"}


_ELSEWHERE = "it leads elsewhere, which is not followed; give such photos by --photos"
_TOKEN = "it wants the token of an account there: LABEL_STUDIO_API_KEY"  # nosec B105: words
_WHY = {301: _ELSEWHERE, 302: _ELSEWHERE, 303: _ELSEWHERE, 307: _ELSEWHERE, 308: _ELSEWHERE, 401: _TOKEN, 403: _TOKEN}


class _Stay(HTTPRedirectHandler):
    def redirect_request(self, *request: Any, **how: Any) -> None:
        return None


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        plain = parts.scheme in ("http", "https") and parts.hostname and not parts.username and not parts.query
        _ = parts.port
    except ValueError:
        plain = False
    if not plain:
        raise UsageError(f"--label-studio-url {url}: give Label Studio's address, such as http://localhost:8080")
    return url.rstrip("/")


def _file_name(address: str) -> str:
    """What a fetched photo is called in a concept."""
    parts = urlsplit(address)
    path = parse_qs(parts.query).get("d", [unquote(parts.path)])[0]
    name = "".join(c if c.isprintable() else "?" for c in PurePosixPath(path).name)
    return name.replace("/", "?").replace("\\", "?")[-100:] or "photo"
