"""The page of `fewseg web` as the server gives it out: the same files, told that the server computes."""

from __future__ import annotations

import io
import json
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import fewseg
from fewseg.runtime.engine import Engine, model_in_words
from fewseg.server.limits import Limits
from fewseg.server.refused import Refused
from fewseg.web.loopback import TYPES
from fewseg.web.site import Example, page_files

_INDEX = "index.html"
_ALONE = {"sw.js"}
"""What a page without a server has: it works offline."""


class PageFiles:
    """The page, its configuration and its example."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine, self._limits = engine, limits
        self._files = {file.name: file for file in page_files() if file.name not in _ALONE}
        self._files["openapi.json"] = Path(__file__).with_name("openapi.json")

    def routes(self) -> list[Route]:
        """All routes."""
        return [
            Route("/config.json", self.config),
            Route("/example/{name}", self.example),
            Route("/", self.file),
            Route("/{name}", self.file),
        ]

    async def file(self, request: Request) -> Response:
        file = self._files.get(request.path_params.get("name", _INDEX))
        if file is None:
            raise Refused(404, "there is nothing here")
        return Response(file.read_bytes(), headers={"Content-Type": TYPES[file.suffix]})

    async def config(self, request: Request) -> Response:
        return Response(json.dumps(self._config), media_type="application/json")

    async def example(self, request: Request) -> Response:
        path = f"example/{request.path_params['name']}"
        if path not in Example().pictures():
            raise Refused(404, "there is nothing here")
        return Response(await run_in_threadpool(_drawn, path), media_type="image/png")

    @cached_property
    def _config(self) -> dict[str, Any]:
        """What page.js needs to know."""
        record = {"image_size": self._engine.image_size, "shots": None, "presence": self._engine.tells_presence}
        limits = {name: getattr(self._limits, name) for name in ("file_mb", "megapixels", "supports")}
        return {
            "engine": "server",
            "fewseg": fewseg.__version__,
            "model": model_in_words(self._engine),
            "runtime": self._engine.runtime,
            "record": record,
            "limits": limits,
            "example": Example().told(),
        }


@cache
def _drawn(path: str) -> bytes:
    """A picture of the example as a PNG."""
    out = io.BytesIO()
    Example().pictures()[path]().save(out, "PNG")
    return out.getvalue()
