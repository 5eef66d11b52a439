"""Exported graphs as an engine, run by onnxruntime (`fewseg.storage.onnx_graphs` writes them)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewseg import linear
from fewseg.errors import DataError, UsageError, check_choice, first_line, install_line, lacks_memory
from fewseg.files import file_sha256
from fewseg.labels import IGNORE, LEAST_FOUND, REFINE, SURE
from fewseg.linear import LINEAR, WITH, classifies, learns
from fewseg.runtime.engine import Answer, Pixels, check_looks_once

QUERY, SUPPORT, MATCH, DRAW = GRAPHS = ("query.onnx", "support.onnx", "match.onnx", "draw.onnx")
WEIGHTS, RECORD = "weights.bin", "fewseg-onnx.json"
FILES = (*GRAPHS, WEIGHTS, RECORD)
"""The files of every exported model's folder; a method without training on the model's features has its own besides."""
FORMAT = 2
_QUERY, _KEPT = "query_", "support_"
"""How the graphs' names of an encoded photo and of encoded supports begin."""
_LEARNT = "learnt_"
"""How the names begin of what the supports of a class trained, which is kept beside them."""
PROVIDERS = {
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime on macOS"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
}
"""What can run graphs: onnxruntime's name of it, and the package that has it, one of which can be installed."""
LANES = 2
"""Photos at once at most: the small maps of one leave several cores idle, and so do reading and writing it."""

Arrays: TypeAlias = dict[str, NDArray[Any]]


class OnnxSegmenter:
    """Exported graphs as an engine: `FewShotPredictor(folder)` segments photos through onnxruntime.

    Photos are taken as 8-bit pixels. `flip` and `refine` as for `FewShotPredictor`; `method` is one of the folder's
    (None: the model's own), `provider` one of `PROVIDERS`; what that cannot run, the CPU does. It takes as many threads
    as OMP_NUM_THREADS says, else the machine's cores. DataError where the folder holds no exported model; UsageError
    for a provider that is not there or does not start, for `refine` where a support is encoded from its masked photo,
    or was exported for a number of supports, and for another method than the model's own.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        flip: bool = False,
        refine: str = "none",
        method: str | None = None,
        provider: str = "cpu",
    ) -> None:
        check_choice("refine", refine, REFINE)
        ort: Any = needed_library("onnxruntime")
        self.name = Path(folder).resolve().name
        self.folder, self.flip, self.twice = Path(folder), flip or refine == "best", refine != "none"
        self.record = read_record(self.folder)
        self.image_size: int = self.record["image_size"]
        self.shots: int | None = self.record["shots"]
        """The number of supports that it takes; None: any."""
        weights = self.folder / WEIGHTS  # not there yet while a model is exported
        self.weights: str = self.record.get("source_sha256") or (file_sha256(weights) if weights.is_file() else "")
        own, *_ = self.methods = tuple(self.record["methods"])
        self.method: str = method or own
        check_choice("method", self.method, self.methods)
        check_looks_once(self.method, refine, own=own)
        self.tells_presence: bool = self.record["presence"] and self.method in (own, own + WITH)
        self.device = provider
        self.runtime = f"graphs (onnxruntime {ort.__version__}{'' if provider == 'cpu' else ', ' + provider})"
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what fails is raised
        threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
        options.intra_op_num_threads = int(threads) if threads.isdigit() else 0
        cores = options.intra_op_num_threads or os.cpu_count() or 1
        self.lanes = min(LANES, cores) if provider == "cpu" else 1
        # threads that wait in a loop take the processor from others; an arena keeps more than a photo needs
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = provider != "directml"  # as onnxruntime's documentation asks
        self._provider = _available(ort, provider)
        providers = list(dict.fromkeys([self._provider, PROVIDERS["cpu"][0]]))
        self._start = partial(ort.InferenceSession, sess_options=options, providers=providers)
        self._sessions: dict[str, Any] = {}
        for name in (QUERY, SUPPORT, self._matcher(self.method), DRAW):
            self._session(name)
        if self.twice and (self.shots is not None or self._takes(SUPPORT, "image")):
            raise UsageError(f"{self.folder}: its method cannot look twice (refine {refine}); lite can")

    def encode_query(self, image: Pixels) -> list[Arrays]:
        return [self._run(QUERY, {"image": view}) for view in self._views(_eight_bit(image))]

    def encode_support(self, supports: Iterable[tuple[Pixels, NDArray[np.uint8]]]) -> list[Arrays]:
        shots = [
            [self._support(*both) for both in zip(self._views(_eight_bit(image)), self._views(mask), strict=True)]
            for image, mask in supports
        ]
        if self.shots not in (None, len(shots)):
            raise UsageError(
                f"{self.folder} was exported for {self.shots} supports of a class, which its weights hold for; "
                f"{len(shots)} were given"
            )
        return self.joined(shots)

    def as_support(self, query: list[Arrays], mask: NDArray[np.uint8]) -> list[Arrays] | None:
        if self._takes(SUPPORT, "image"):
            return None
        return [self._run(SUPPORT, q | {"mask": m}) for q, m in zip(query, self._views(mask), strict=True)]

    def joined(self, supports: Sequence[list[Arrays]]) -> list[Arrays]:
        each = zip(*supports, strict=True)  # of every view, what each support gave
        return [
            {_KEPT + name: np.concatenate([shot[_KEPT + name] for shot in view], 1) for name in _named(view[0], _KEPT)}
            for view in each
        ]

    def kept(self, support: list[Arrays]) -> Arrays:
        return _named(support[0], _KEPT)

    def restored(self, arrays: Arrays) -> list[Arrays]:
        return [{_KEPT + name: value for name, value in arrays.items()}]

    def match(
        self, query: list[Arrays], support: list[Arrays], *, size: tuple[int, int], method: str | None = None
    ) -> Answer:
        method = method or self.method
        check_choice("method", method, self.methods)
        found = [self._found(q, s, method) for q, s in zip(query, support, strict=True)]
        for mirrored in found[1:]:
            mirrored |= {name: value[..., ::-1] for name, value in mirrored.items() if name != "presence"}
        mean = {name: np.mean([one[name] for one in found], 0) for name in found[0]}
        drawn = self._run(DRAW, {"lead": mean.pop("lead"), "size": np.array(size)})["proba"]
        told = mean.pop("presence", None)
        return Answer(drawn, tuple(mean.values()), None if told is None else float(1 / (1 + np.exp(-told.item()))))

    def _found(self, query: Arrays, support: Arrays, method: str) -> Arrays:
        """What one view gives; looked at twice, as `fewseg.models.refined` does."""
        if classifies(method) and learns(method, support[_KEPT + "mask"].shape[1]):
            return self._classified(query, support, method)
        first = self._run(self._matcher(method), query | support)
        if not self.twice or method != self.methods[0]:
            return first
        # a probability is above SURE where the lead is above its logit
        sure = np.log(SURE / (1 - SURE))
        mask = np.full(first["lead"].shape, IGNORE, np.uint8)
        mask[first["lead"] > sure], mask[first["lead"] < -sure] = 1, 0
        if (mask == 1).mean() < LEAST_FOUND:
            return first
        own = self._run(SUPPORT, query | {"mask": mask})
        second = self._run(MATCH, query | {name: np.concatenate([support[name], own[name]], 1) for name in own})
        return first | {"lead": (first["lead"] + second["lead"]) / 2}

    def _classified(self, query: Arrays, support: Arrays, method: str) -> Arrays:
        """By the classifier that the supports train, which is kept beside them, alone or with the model."""
        weights = _named(support, _LEARNT)
        if not weights:
            weights = linear.classifier({name: value[0] for name, value in _named(support, _KEPT).items()})
            support |= {_LEARNT + name: value for name, value in weights.items()}
        levels = {name: value[0] for name, value in _named(query, _QUERY).items()}
        found = linear.lead(levels, weights, (self.image_size, self.image_size))
        if method == LINEAR:
            return {"lead": found}
        own = self._run(MATCH, query | support)
        return own | {"lead": (own["lead"] + found) / 2}

    def _support(self, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Arrays:
        given = {"image": image, "mask": mask}
        return self._run(SUPPORT, given if self._takes(SUPPORT, "image") else given | self._run(QUERY, given))

    def _views(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        return [pixels, np.ascontiguousarray(pixels[:, ::-1])] if self.flip else [pixels]

    def _takes(self, graph: str, name: str) -> bool:
        return any(entry.name == name for entry in self._session(graph).get_inputs())

    def _matcher(self, method: str) -> str:
        return MATCH if method == self.methods[0] or classifies(method) else graph_of(method)

    def _session(self, graph: str) -> Any:
        """A graph ready to run; DataError where it is damaged, or there is too little memory for it."""
        if graph not in self._sessions:
            try:
                session = self._start(str(self.folder / graph))
            except Exception as error:  # onnxruntime's own exceptions
                if lacks_memory(error):
                    told = f"there is too little memory to open {self.folder / graph}"
                    raise DataError(f"{told}; let fewseg have more (ulimit -v, a container's limit)") from error
                raise DataError(f"{self.folder} is damaged ({first_line(error)}); export the model again") from error
            if session.get_providers()[0] != self._provider:  # onnxruntime takes the CPU then
                told = "onnxruntime has it, but its drivers or libraries are missing"
                raise UsageError(f"provider {self.device} did not start: {told}")
            self._sessions[graph] = session
        return self._sessions[graph]

    def _run(self, graph: str, given: Arrays) -> Arrays:
        """A graph's outputs by name; what it has no input for is left out."""
        session = self._session(graph)
        inputs = {entry.name: given[entry.name] for entry in session.get_inputs()}
        try:
            found = session.run(None, inputs)
        except Exception as error:  # onnxruntime's own exceptions
            if lacks_memory(error):
                raise MemoryError(str(error)) from error
            shapes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
            raise DataError(f"the exported graph cannot take {shapes} ({first_line(error)})") from error
        return {entry.name: value for entry, value in zip(session.get_outputs(), found, strict=True)}


def _available(ort: Any, provider: str) -> str:
    """The name that onnxruntime has for a provider; UsageError where the installed onnxruntime has it not."""
    check_choice("provider", provider, PROVIDERS)
    name, package = PROVIDERS[provider]
    has = ort.get_available_providers()
    if name not in has:
        there = ", ".join(short for short, (known, _) in PROVIDERS.items() if known in has)
        told = f"the installed onnxruntime {ort.__version__} has no provider {provider}, but {there}"
        raise UsageError(f"{told}; {package} brings it, in place of onnxruntime")
    return name


def graph_of(method: str) -> str:
    """The file in which a method without training matches an exported model's features."""
    return f"{method}.onnx"


def _named(arrays: Arrays, prefix: str) -> Arrays:
    """Those whose names begin so, without it. What supports train may join them meanwhile, from another thread."""
    return {name.removeprefix(prefix): value for name, value in list(arrays.items()) if name.startswith(prefix)}


def read_record(folder: Path) -> dict[str, Any]:
    """What an exported model's folder says of it; DataError where it is none."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record.get("format", 1) != FORMAT:
            raise ValueError("another version of fewseg wrote it")
        size, shots, presence = record["image_size"], record["shots"], record["presence"]
        if type(size) is not int or type(shots) not in (int, type(None)) or type(presence) is not bool:
            raise TypeError(f"image_size {size!r}, shots {shots!r}, presence {presence!r}")
        methods = record.setdefault("methods", [record["method"]])
        if not methods or not all(
            isinstance(name, str) and re.fullmatch(r"[\w-]+", name.removesuffix(WITH)) for name in methods
        ):
            raise TypeError(f"methods {methods!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder} holds no exported model ({error}); fewseg export RUN --onnx {folder}") from error
    return record


def needed_library(name: str) -> Any:
    """An imported library; UsageError that says how to install it where it is missing."""
    try:
        return __import__(name)
    except ImportError as error:
        raise UsageError(f"exporting needs {name} ({error}); install it with: {install_line('onnx')}") from error


def _eight_bit(image: Pixels) -> NDArray[np.uint8]:
    whole = image if image.dtype == np.uint8 else np.rint(255 * image.clip(0, 1)).astype(np.uint8)
    return np.ascontiguousarray(whole)
