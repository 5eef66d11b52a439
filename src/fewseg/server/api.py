"""The API: concepts, segmentation, jobs. `openapi.json` describes it; docs/server.md has a client."""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import fewseg
from fewseg.concept.taught import check_class_name
from fewseg.errors import FewsegError, UsageError
from fewseg.progress import counted
from fewseg.runtime.engine import model_in_words
from fewseg.server.folder import writing
from fewseg.server.guard import visitor_of
from fewseg.server.jobs import Job, Piece, Workers
from fewseg.server.limits import MB, Limits, or_raise
from fewseg.server.maps import FORMATS, FoundPhoto, Shown, read_maps, write_mask, write_zip
from fewseg.server.refused import Refused
from fewseg.server.studio import Studio
from fewseg.server.uploads import Upload, receive
from fewseg.server.visitors import Visitor, Visitors, random_name

_MAKE_ONE = "make one with POST /v1/concepts, in the same session (keep the cookie)"
_SHOWN = ("threshold", "presence", "min_area")
QUERIES = {"masks.zip": ("format", *_SHOWN), "mask.png": _SHOWN, "probability": ("side",)}
"""What addresses take after their `?`, by their last part; all others take nothing."""
_HEARTBEAT, _LOOK = 10.0, 1.0
"""Seconds after which a stream of events says that it is still there, and looks whether the server is to stop."""


async def health(request: Request) -> Response:
    """That the server is up, for whatever watches over it; the words are those that Label Studio asks for."""
    return JSONResponse({"status": "UP", "model_class": "fewseg"})


class Api:
    """The routes below /v1."""

    def __init__(
        self, studio: Studio, workers: Workers, visitors: Visitors, limits: Limits, stopping: threading.Event
    ) -> None:
        self._studio, self._workers, self._visitors, self._limits = studio, workers, visitors, limits
        self._one_made = asyncio.Lock()
        self._stopping = stopping
        """Whether streams of events are to end."""

    def routes(self) -> list[Route]:
        """All routes."""
        job, photo = "/v1/jobs/{job}", "/v1/jobs/{job}/photos/{photo:int}"
        listed: list[tuple[str, str, Callable[..., Any]]] = [
            ("GET", "/v1/status", self.status),
            ("POST", "/v1/session", self.enter),
            ("DELETE", "/v1/session", self.leave),
            ("GET", "/v1/concepts", self.concepts),
            ("POST", "/v1/concepts", self.teach),
            ("POST", "/v1/mask", self.mark),
            ("GET", "/v1/concepts/{concept}", self.concept),
            ("DELETE", "/v1/concepts/{concept}", self.forget_concept),
            ("GET", "/v1/concepts/{concept}/file", self.concept_file),
            ("POST", "/v1/segment", self.segment),
            ("GET", job, self.job),
            ("DELETE", job, self.forget_job),
            ("GET", f"{job}/events", self.events),
            ("GET", f"{job}/masks.zip", self.masks),
            ("GET", f"{photo}/mask.png", self.mask),
            ("GET", f"{photo}/probability", self.probability),
        ]
        return [Route(path, _asked(path, endpoint), methods=[method]) for method, path, endpoint in listed]

    async def status(self, request: Request) -> Response:
        engine = self._studio.engine
        told = {"fewseg": fewseg.__version__, "model": model_in_words(engine), "runtime": engine.runtime}
        stored = self._visitors.stored // MB
        taken = {"waiting": self._workers.under_way, "visitors": len(self._visitors), "all_mb": stored}
        return JSONResponse({**told, "limits": asdict(self._limits), "taken": taken})

    async def enter(self, request: Request) -> Response:
        visitor_of(request)  # with a cookie, by which the page is let in
        return Response(status_code=204)

    async def leave(self, request: Request) -> Response:
        visitor = request.state.entry.known
        if visitor is not None:
            self._studio.forget(visitor.concepts)
            await run_in_threadpool(request.state.entry.forget)
        return Response(status_code=204)

    async def concepts(self, request: Request) -> Response:
        visitor = request.state.entry.known
        return JSONResponse([kept.told for kept in visitor.concepts.values()] if visitor else [])

    async def concept(self, request: Request) -> Response:
        visitor, key = _concept(request)
        return JSONResponse(visitor.concepts[key].told)

    async def concept_file(self, request: Request) -> Response:
        visitor, key = _concept(request)
        kept = visitor.concepts[key]
        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in kept.told["name"])
        return FileResponse(kept.file.path, media_type="application/octet-stream", filename=f"{name}.concept")

    async def forget_concept(self, request: Request) -> Response:
        visitor, key = _concept(request)
        self._studio.forget([key])
        visitor.remove(visitor.concepts.pop(key).file)
        return Response(status_code=204)

    async def teach(self, request: Request) -> Response:
        visitor = self._room(request)
        if len(visitor.concepts) >= self._limits.concepts:
            raise Refused(
                409,
                f"you have {counted(self._limits.concepts, 'concept')}, which is all; remove one that you need no more",
            )
        most = counted(self._limits.supports, "photo")
        too_many = f"a concept is taught by at most {most}; leave some out{or_raise('supports')}"
        upload = await receive(request, visitor, self._limits, most_files=2 * self._limits.supports, too_many=too_many)
        try:
            piece = self._teaching(visitor, upload)
            return self._accepted(visitor, "teach", [piece], upload)
        except BaseException:
            upload.remove()
            raise

    def _teaching(self, visitor: Visitor, upload: Upload) -> Piece:
        """What teaches by a form; Refused where it lacks something."""
        upload.check_names("name", "label", "photo", "mask", "absent", "concept")
        photos, masks, absent = (len(upload.of(field)) for field in ("photo", "mask", "absent"))
        if files := upload.of("concept"):
            if len(files) > 1 or photos or masks or absent:
                raise Refused(400, "give one file `concept`, or photos and masks")
            return partial(self._studio.take, visitor=visitor, upload=upload)
        if not photos or photos != masks:
            raise Refused(
                400,
                f"{counted(photos, 'file')} `photo` and {counted(masks, 'file')} `mask` were sent; give one mask for "
                "each photo, in order",
            )
        if photos + absent > self._limits.supports:
            raise Refused(
                413,
                f"{photos + absent} photos were sent; a concept is taught by {self._limits.supports}; leave some "
                f"out{or_raise('supports')}",
            )
        name = (upload.texts("name") or ["object"])[-1].strip()
        check_class_name(name)
        return partial(self._studio.teach, visitor=visitor, upload=upload, name=name, label=_label(upload))

    async def mark(self, request: Request) -> Response:
        alone = "give one file `photo`, and one `mask` of it"
        upload = await receive(request, visitor_of(request), self._limits, most_files=2, too_many=alone)
        try:
            upload.check_names("photo", "mask", "label")
            if len(upload.of("photo")) != 1 or len(upload.of("mask")) != 1:
                raise Refused(400, alone)
            async with self._one_made:
                marked, told = await run_in_threadpool(self._studio.mark, upload, _label(upload))
        except FewsegError as error:
            raise Refused(422, str(error)) from error
        finally:
            upload.remove()
        return Response(_png(marked), media_type="image/png", headers={"Fewseg-Told": quote(told)})

    async def segment(self, request: Request) -> Response:
        if request.state.entry.known is None:  # no session is begun: two such requests at once would be of two visitors
            raise Refused(404, f"you have no concepts; {_MAKE_ONE}")
        visitor = self._room(request)
        too_many = (
            f"at most {counted(self._limits.photos, 'photo')} can be searched in a request; send the others in "
            f"another{or_raise('photos')}"
        )
        upload = await receive(request, visitor, self._limits, most_files=self._limits.photos, too_many=too_many)
        try:
            upload.check_names("concept", "photo")
            concepts, photos = upload.texts("concept"), upload.of("photo")
            names = [visitor.concepts[key].told["name"] for key in concepts if key in visitor.concepts]
            if not concepts or len(names) < len(concepts):
                wrong = next((key for key in concepts if key not in visitor.concepts), None)
                what = "no field `concept` was sent" if wrong is None else f"you have no concept {wrong[:60]!r}"
                raise Refused(404, f"{what}; {_MAKE_ONE}")
            if len(set(names)) < len(names):
                raise Refused(400, f"two concepts have one name ({', '.join(names)}); teach one with another")
            if not photos:
                raise Refused(400, "no file `photo` was sent")
            find = partial(self._studio.find, visitor=visitor, concepts=concepts)
            pieces = [partial(find, file=file, number=number) for number, file in enumerate(photos)]
            return self._accepted(visitor, "segment", pieces, upload)
        except BaseException:
            upload.remove()
            raise

    def _room(self, request: Request) -> Visitor:
        """The visitor of a new job; Refused where there is no room for it, before its body is taken."""
        self._workers.check_room()
        visitor = visitor_of(request)
        if len(visitor.jobs) >= self._limits.jobs:
            ended = next((job for job in visitor.jobs.values() if job.ended), None)
            if ended is None:
                raise Refused(
                    429, f"you have {counted(len(visitor.jobs), 'job')} under way; wait for one", retry_after=5
                )
            visitor.forget_job(ended)
        return visitor

    def _accepted(self, visitor: Visitor, kind: str, pieces: list[Any], upload: Upload) -> Response:
        def cleanup() -> None:
            upload.remove()
            for found in job.results.values():
                visitor.remove(found.maps)

        job = Job(random_name(), kind, pieces, cleanup=cleanup)
        self._workers.add(job)
        visitor.jobs[job.name] = job
        place = f"/v1/jobs/{job.name}"
        told = {"job": job.name, "url": place, "events": f"{place}/events"}
        return JSONResponse(told, 202, {"Location": place})

    async def job(self, request: Request) -> Response:
        _, job = _job(request)
        events = [{"event": name, **told} for name, told in list(job.events)]
        return JSONResponse({"job": job.name, "kind": job.kind, "of": job.total, "ended": job.ended, "events": events})

    async def forget_job(self, request: Request) -> Response:
        visitor, job = _job(request)
        await run_in_threadpool(visitor.forget_job, job)
        return Response(status_code=204)

    async def events(self, request: Request) -> Response:
        _, job = _job(request)
        last = request.headers.get("last-event-id", "")
        begin = int(last) + 1 if last.isascii() and last.isdigit() and len(last) < 10 else 0
        unheld = {"X-Accel-Buffering": "no"}  # nginx would keep events back until there are many
        return StreamingResponse(self._stream(request, job, begin), media_type="text/event-stream", headers=unheld)

    async def _stream(self, request: Request, job: Job, count: int) -> AsyncIterator[str]:
        quiet = 0.0
        while not self._stopping.is_set():
            ended = job.ended
            for number, (name, told) in enumerate(job.events[count:], start=count):
                yield f"id: {number}\nevent: {name}\ndata: {json.dumps(told)}\n\n"
                count = number + 1
            if ended:
                return
            await job.news(count, seconds=_LOOK)
            quiet = quiet + _LOOK if len(job.events) == count else 0.0
            if quiet >= _HEARTBEAT:
                quiet = 0.0
                request.state.entry.here()
                yield ": still at it\n\n"
        told = {"error": "the server is ending, and this job with it; begin anew once it is back", "status": 503}
        yield f"event: failed\ndata: {json.dumps(told)}\n\n"

    async def mask(self, request: Request) -> Response:
        visitor, found = _photo(request)
        write = partial(write_mask, found=found, shown=_shown(request))
        return await self._made(visitor, write, "image/png", f"{Path(found.name).stem}.png")

    async def masks(self, request: Request) -> Response:
        visitor, job = _job(request)
        wanted = request.query_params.getlist("format") or ["png"]
        if unknown := [one for one in wanted if one not in FORMATS]:
            raise Refused(400, f"format {unknown[0][:40]!r}: choose of {', '.join(FORMATS)}")
        if not job.ended:
            raise Refused(409, "this job is under way; take its masks once its events end with `done`")
        photos = [job.results[number] for number in sorted(job.results)]
        told = [photo for event, photo in job.events if event == "photo" and "error" in photo]
        failed = [(photo["name"], photo["error"]) for photo in told]
        if not photos and not failed:
            raise Refused(404, "this job has searched no photo; its events say why")
        runtime = self._studio.engine.runtime
        how = {"shown": _shown(request), "wanted": wanted, "failed": failed, "runtime": runtime}
        return await self._made(visitor, partial(write_zip, photos=photos, **how), "application/zip", "masks.zip")

    async def _made(self, visitor: Visitor, write: Callable[[Path], None], kind: str, name: str) -> Response:
        """A file that is written now, and removed when it was sent; one at a time, as large masks take memory."""
        path = visitor.new_path()
        try:
            async with self._one_made:
                with writing(visitor.folder):
                    await run_in_threadpool(write, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        removed = BackgroundTask(visitor.remove, visitor.stored(path))
        return FileResponse(path, media_type=kind, filename=name, background=removed)

    async def probability(self, request: Request) -> Response:
        _, found = _photo(request)
        side = int(_number(request, "side", 768, 16, 4096))
        maps = await run_in_threadpool(read_maps, found.maps.path, side=side)
        classes, height, width = maps.shape
        headers = {"Fewseg-Shape": f"{classes},{height},{width}"}
        return Response(maps.astype("<u2").tobytes(), media_type="application/octet-stream", headers=headers)


def _asked(path: str, endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """An endpoint that refuses parameters that its address does not take: one that is misspelt would do nothing."""
    known = QUERIES.get(path.rpartition("/")[2], ())

    async def asked(request: Request) -> Response:
        if wrong := [name for name in request.query_params if name not in known]:
            raise Refused(400, f"the address has a parameter {wrong[0][:60]!r}; {_may_give(known)}")
        return await endpoint(request)

    return asked


def _may_give(known: tuple[str, ...]) -> str:
    if known:
        return f"give {', '.join(known)}"
    return f"it takes none: {', '.join(_SHOWN)} go with masks.zip and mask.png, and POST takes fields of its form"


def _label(upload: Upload) -> str | None:
    """The field `label`: which value of masks is the object."""
    label = next(reversed(upload.texts("label")), "").strip() or None
    if label and not re.fullmatch(r"\d+|>=[\d.]+|any|#[\da-f]{6}", label, re.ASCII | re.IGNORECASE):
        raise Refused(400, f"label {label[:60]!r}: give a number, >=NUMBER, any, or a colour #rrggbb")
    return label


def _png(mask: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(mask).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _concept(request: Request) -> tuple[Visitor, str]:
    visitor, key = request.state.entry.known, request.path_params["concept"]
    if visitor is None or key not in visitor.concepts:
        raise Refused(404, "you have no such concept")
    return visitor, key


def _job(request: Request) -> tuple[Visitor, Job]:
    visitor = request.state.entry.known
    job = visitor and visitor.jobs.get(request.path_params["job"])
    if visitor is None or job is None:
        raise Refused(
            404, "you have no such job; beyond --limit jobs the oldest that has ended makes room for a new one"
        )
    return visitor, job


def _photo(request: Request) -> tuple[Visitor, FoundPhoto]:
    visitor, job = _job(request)
    found = job.results.get(request.path_params["photo"])
    if found is None:
        raise Refused(404, "there is no such photo, or it is not done")
    return visitor, found


def _shown(request: Request) -> Shown:
    threshold = _number(request, "threshold", 0.5, 0, 1) if "threshold" in request.query_params else None
    return Shown(threshold, _number(request, "presence", 0.5, 0, 1), int(_number(request, "min_area", 0, 0, 10**9)))


def _number(request: Request, name: str, default: float, low: float, high: float) -> float:
    try:
        value = float(request.query_params.get(name, default))
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise Refused(400, f"{name} must be a number from {low:g} to {high:g}")
    return value


def told_as(error: FewsegError) -> Refused:
    """How an error of fewseg is told."""
    return Refused(400 if isinstance(error, UsageError) else 422, str(error))
