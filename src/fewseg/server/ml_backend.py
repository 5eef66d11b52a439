"""Label Studio's ML backend: it asks for masks of its tasks, and tells of annotations, which teach.

`POST /setup` and `POST /predict` answer at once; `POST /webhook` (Label Studio waits a second for it) takes an
annotation that was submitted, and learns it meanwhile: its regions of a label are a support of the label's concept, and
a photo without any is one without the class. Concepts are the files of a folder, one for each label.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fewseg.concept import Concept, teach
from fewseg.concept.finder import Finder
from fewseg.concept.teach import NoObjectError
from fewseg.data.annotations.label_studio import annotated
from fewseg.data.annotations.photos import Photos
from fewseg.data.winners import label_map
from fewseg.errors import DataError, FewsegError, UsageError, first_line
from fewseg.predictor import Result, told_of_all
from fewseg.progress import Silent, counted
from fewseg.segment.books import label_studio_prediction
from fewseg.segment.planning import free_name
from fewseg.server.jobs import Job, UnneededError, Workers, failure
from fewseg.server.limits import Limits
from fewseg.server.ml_clicks import Drawn, object_at
from fewseg.server.ml_photos import TaskPhotos
from fewseg.server.ml_project import Labelling
from fewseg.server.notes import collected
from fewseg.server.refused import Refused
from fewseg.server.studio import Studio
from fewseg.server.uploads import body_of
from fewseg.server.visitors import random_name

_TEACH = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED")
_MOST_TASKS = 1000
"""In a request."""
_PRESENCE = 0.5
PATHS = ("/setup", "/predict", "/webhook")


class Lesson(NamedTuple):
    """An annotation that was submitted."""

    labelling: Labelling
    address: str
    regions: list[dict[str, Any]]


class MlBackend:
    """Routes of the ML backend, and the concepts that it looks for and teaches.

    `tell` takes lines for whoever started the server. UsageError or DataError where a concept in `folder` cannot be
    used with this model.
    """

    def __init__(
        self, studio: Studio, workers: Workers, folder: Path, photos: TaskPhotos, tell: Callable[[str], None]
    ) -> None:
        self._studio, self._workers, self._photos, self._tell = studio, workers, photos, tell
        self._limits: Limits = studio.limits
        self._folder = folder
        self._files = {path: Concept.load(path) for path in sorted(folder.glob("*.concept"))}
        self._finders: dict[tuple[str, ...], Finder] = {}
        self._lessons: dict[str, Lesson] = {}
        """Annotations that are to be learnt, the last of each photo."""
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._learning = ThreadPoolExecutor(1, "label-studio")
        self._work = Path()
        if self._files:
            self._finder(tuple(concept.title for concept in self._files.values()))

    def routes(self) -> list[Route]:
        """All routes."""
        posts = zip(PATHS, (self.setup, self.predict, self.webhook), strict=True)
        return [Route(path, to, methods=["POST"]) for path, to in posts]

    @contextmanager
    def running(self, work: Path) -> Iterator[None]:
        """While the server runs; fetched photos lie in `work`. At the end nothing more is learnt."""
        self._work = work
        try:
            yield
        finally:
            self._closing.set()
            self._learning.shutdown(cancel_futures=True)
            if self._lessons:
                count = counted(len(self._lessons), "annotation")
                self._tell(
                    f"not learnt: {count}, the last that were submitted; submit them again, or teach by an export"
                )

    async def setup(self, request: Request) -> Response:
        told = await self._body(request)
        labels = Labelling.of(told.get("schema")).labels
        known = [concept.title for concept in self._files.values()]
        if known and not set(known) & set(labels):
            self._tell(f"note: the project labels {', '.join(labels)}; there are concepts of {', '.join(known)}")
        return JSONResponse({"model_version": self.version})

    async def predict(self, request: Request) -> Response:
        told = await self._body(request)
        tasks = told.get("tasks")
        if not isinstance(tasks, list) or len(tasks) > _MOST_TASKS:
            raise Refused(400, f"the request has no tasks, or more than {_MOST_TASKS}")
        labelling = Labelling.of(told.get("label_config"))
        version = self.version
        params = told.get("params")
        drawn = Drawn.of(params.get("context") if isinstance(params, dict) else None, labelling.labels)
        how: dict[str, Any] = {"labelling": labelling, "drawn": drawn}
        pieces = [partial(self._predicted, task=t, number=n, **how) for n, t in enumerate(tasks)]
        async with self._done(pieces) as job:
            failed = [what["error"] for name, what in job.events if name == "failed"]
        if failed and len(failed) == len(tasks):
            raise Refused(422, failed[0])
        for error in failed:
            self._tell(f"no prediction: {error}")
        empty: dict[str, Any] = {"result": []}
        results = [job.results.get(number, empty) | {"model_version": version} for number in range(len(tasks))]
        return JSONResponse({"results": results, "model_version": version})

    async def webhook(self, request: Request) -> Response:
        told = await self._body(request)
        if told.get("action") not in _TEACH:
            return JSONResponse({"status": "nothing is learnt of this"})
        project, annotation = (told.get(name) for name in ("project", "annotation"))
        if not isinstance(project, dict) or not isinstance(annotation, dict):
            raise Refused(400, "the event has no project, or no annotation; let the webhook send its payload")
        labelling = Labelling.of(project.get("label_config"))
        address = labelling.address(told.get("task"))
        if annotation.get("was_cancelled"):
            return JSONResponse({"status": "it was skipped"})
        regions = [one for one in annotation.get("result") or () if _is_region(one, labelling)]
        with self._lock:
            self._lessons[address] = Lesson(labelling, address, regions)
        self._learning.submit(self._learn)
        return JSONResponse({"status": "ok"}, 201)

    @property
    def version(self) -> str:
        """Changes with what was taught: by it Label Studio knows which predictions are of before."""
        every = [example for concept in self._files.values() for example in (*concept.supports, *concept.absent)]
        content = b"".join(example.jpeg + example.png for example in every)
        count = sum(len(concept.supports) for concept in self._files.values())
        return f"{counted(count, 'support')}, {hashlib.sha256(content).hexdigest()[:8]}"

    async def _body(self, request: Request) -> dict[str, Any]:
        content = await body_of(request, replace(self._limits, request_mb=self._limits.file_mb))  # JSON grows in memory
        try:
            told = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise Refused(400, "the request is no JSON") from error
        if not isinstance(told, dict):
            raise Refused(400, "the request is no JSON object")
        return told

    @asynccontextmanager
    async def _done(self, pieces: list[Any]) -> AsyncIterator[Job]:
        """A job, once it has ended; stopped where nobody waits for it any more."""
        job = Job(random_name(), "predict", pieces, cleanup=lambda: None)
        if pieces:
            self._workers.add(job)
        try:
            while pieces and not job.ended:
                await job.news(len(job.events), seconds=1)
            yield job
        finally:
            job.stop()

    def _predicted(self, job: Job, task: Any, number: int, labelling: Labelling, drawn: Drawn | None) -> None:
        """A task's prediction among the job's results: of all its labels, or of what a smart tool marked."""
        titles = [concept.title for concept in self._files.values()]
        wanted = tuple(title for title in titles if title in labelling.labels)
        if not wanted and drawn is None:
            job.results[number] = {"result": []}
            return
        address = labelling.address(task)
        finder = self._finder(wanted) if wanted else None
        with self._photos.of(address, self._work) as path, collected():
            photo = self._studio.whole(path)
            job.check()
            results = finder.predict_each(photo) if finder else {}
            place = {"tag": labelling.tag, "image": labelling.image, "kind": labelling.kind}
            if drawn is not None:
                job.results[number] = self._drawn(photo, drawn, results.get(drawn.label), place)
                return
        labels = label_map(result.proba_if(_PRESENCE) for result in results.values())
        told = told_of_all(results.values(), labels)
        job.results[number] = label_studio_prediction(labels, wanted, None, told, **place)

    def _drawn(self, photo: Image.Image, drawn: Drawn, found: Result | None, place: dict[str, str]) -> dict[str, Any]:
        """The object that a smart tool marked."""
        marks = drawn.marks(photo.width, photo.height)
        mask = object_at(self._studio.engine, photo, marks, None if found is None else found.proba)
        prediction = label_studio_prediction(mask.astype(np.uint8), (drawn.label,), None, None, **place)
        for region in prediction["result"]:
            region["id"] = random_name()  # it joins those that are there
        return prediction

    def _finder(self, wanted: tuple[str, ...]) -> Finder:
        with self._lock:
            if wanted not in self._finders:
                by_title = {concept.title: concept for concept in self._files.values()}
                self._finders = {wanted: Finder([by_title[title] for title in wanted], self._studio.engine)}
            return self._finders[wanted]

    def _learn(self) -> None:
        """Everything that waits."""
        with self._lock:
            lessons, self._lessons = list(self._lessons.values()), {}
        for number, lesson in enumerate(lessons):
            try:
                with self._telling(lesson.address), self._photos.of(lesson.address, self._work) as path:
                    self._learn_one(lesson, path)
            except UnneededError:
                with self._lock:
                    self._lessons = {one.address: one for one in lessons[number:]} | self._lessons
                return

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """What is wrong inside is told, since whoever annotated was answered before."""
        try:
            yield
        except UnneededError:
            raise
        except (FewsegError, OSError) as error:
            self._tell(f"{what} was not learnt: {error}")
        except Exception as error:
            self._tell(f"{what} was not learnt: {failure(error)['error']}")

    def _learn_one(self, lesson: Lesson, path: Path) -> None:
        """Each label on its own: what is wrong with one keeps no other from being learnt."""
        self._studio.check_size(path, path.name)
        try:
            photo = annotated(path, lesson.regions)
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"its regions are not as Label Studio has them ({error})") from error
        for label in lesson.labelling.labels:
            place = Photos(path)
            mask = photo.mask(label, place)
            with self._telling(f"{lesson.address}: {label}"):
                if place.tally.found:
                    raise DataError(str(place.tally))
                self._learn_label(label, path, mask)

    def _learn_label(self, label: str, path: Path, mask: Any) -> None:
        known = next((file for file, concept in self._files.items() if concept.title == label), None)
        if known is None and not (mask == 1).any():
            return
        former = None if known is None else self._files[known]
        if former and len(former.supports) + len(former.absent) >= self._limits.supports:
            raise DataError(
                f"{label} has {counted(self._limits.supports, 'photo')}, which is all: --limit supports=N for more"
            )
        self._keep(label, known or self._new_file(label), former, path, mask)

    def _keep(self, label: str, file: Path, former: Concept | None, path: Path, mask: Any) -> None:
        """Teach a photo of a label to its concept."""
        how: dict[str, Any] = {"name": label, "former": former, "model": self._studio.engine}
        how["progress"] = _Stoppable(self._closing)
        try:
            with collected() as notes:
                concept = teach([path], [mask], **how) if (mask == 1).any() else teach(absent=[path], **how)
            concept.save(file)
        except NoObjectError as error:
            todo = f"annotate another photo of {label}, then submit this one again"
            raise DataError(
                f"it is on no other photo, so {file} stays as it was: {todo}; or remove that file and start the "
                "server anew"
            ) from error
        except OSError as error:
            why = error.strerror or first_line(error)
            todo = f"make room in {self._folder}, and let this user write there; then submit it again"
            raise DataError(f"{file} cannot be written ({why}): {todo}") from error
        with self._lock:
            self._files, self._finders = self._files | {file: concept}, {}
        for note in notes:
            self._tell(f"note: {note}")
        count = f"{counted(len(concept.supports), 'support')}, {len(concept.absent)} without it"
        self._tell(f"{file}: learnt {path.name}; {count}; expect {concept.expected}")

    def _new_file(self, label: str) -> Path:
        safe = "".join(c if c.isalnum() or c in "-_ " else "-" for c in label)[:80] or "object"
        taken = {path.stem.casefold() for path in self._folder.glob("*.concept")}
        return self._folder / f"{free_name(safe, taken)}.concept"


def writable(folder: Path) -> Path:
    """The folder; UsageError where what is annotated could not be learnt: nobody who annotates would see that."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        told = f"{folder} cannot keep what is learnt ({error.strerror or first_line(error)})"
        raise UsageError(f"{told}; let this user write there, or give another folder: --label-studio DIR") from error


def _is_region(region: Any, labelling: Labelling) -> bool:
    """Whether it is an area of the picture that the project labels."""
    if not isinstance(region, dict) or not isinstance(region.get("value"), dict):
        return False
    sizes = [region.get(name) for name in ("original_width", "original_height")]
    return region.get("to_name") == labelling.image and all(isinstance(size, int) and size > 0 for size in sizes)


class _Stoppable(Silent):
    """Teaching ends where the server does."""

    def __init__(self, closing: threading.Event) -> None:
        self._closing = closing

    def __call__(self, items: Iterable[Any], description: str, total: int, *, done: int = 0) -> Iterator[Any]:
        for item in items:
            if self._closing.is_set():
                raise UnneededError
            yield item
