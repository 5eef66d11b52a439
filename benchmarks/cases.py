"""The cases: what is run in both ways, the plain model and its quicker view, and what is asked of their ratio."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmarks.inputs import make_episode, make_model, write_data_set
from benchmarks.measure import Run
from fewseg.data.dataset import EpisodeDataset
from fewseg.data.episodes.protocols import get_protocol
from fewseg.data.sets.folder import Folder
from fewseg.episode import Prediction
from fewseg.evaluation.benchmark import Benchmark, input_transform
from fewseg.evaluation.evaluate import evaluate
from fewseg.evaluation.scoring import at_truth
from fewseg.metrics import FewShotIoU
from fewseg.models.fast import accelerate
from fewseg.models.half_precision import in_precision
from fewseg.runtime.heap import keep_freed_memory

WAYS = ("plain", "fewseg")
NOVEL = 5


@dataclass(frozen=True)
class Case:
    """One thing to do; `prepare` makes what a way needs, the run that it returns is what is measured."""

    name: str
    what: str
    backbone: str = "resnet50-ds"
    side: int = 473
    shots: int = 1
    share: float = 0.15
    """Foreground in the supports."""
    time_target: float | None = None
    """Largest median ratio of seconds, fewseg by plain."""
    memory_target: float | None = None
    rounds: int = 3
    precision: str = "fp32"
    """In which fewseg computes; the plain way is always fp32."""
    measures_memory: ClassVar[bool] = True
    is_long: ClassVar[bool] = False
    """Whether a run warms itself up and is too long to be made once more for counting."""

    @property
    def is_exact(self) -> bool:
        """Whether both ways compute in fp32."""
        return self.precision == "fp32"

    @abstractmethod
    def prepare(self, way: str) -> Run:
        """The run of one way, with its own model and inputs."""

    def small(self) -> Case:
        """The same on a small network and picture, for tests."""
        return replace(self, backbone="lite0", side=97, rounds=1)

    def parameters(self) -> dict[str, Any]:
        """What is varied."""
        varied = {"backbone": self.backbone, "side": self.side, "shots": self.shots, "foreground": self.share}
        return varied | {"precision": self.precision}

    def model(self, way: str) -> Any:
        """HDMNet as its file has it, or the view that fewseg uses, with the same weights."""
        model = make_model(self.backbone, shots=self.shots, side=self.side)
        return accelerate(in_precision(model, self.precision)) if way == "fewseg" else model


@dataclass(frozen=True)
class WholeEpisode(Case):
    """Support and query, nothing kept."""

    def prepare(self, way: str) -> Run:
        model = self.model(way)
        episode = make_episode(self.side, shots=self.shots, share=self.share)
        return lambda: outputs(_inferred(model, episode))


@dataclass(frozen=True)
class NextQuery(Case):
    """A query whose support is known already: the plain way computes the support anew."""

    def prepare(self, way: str) -> Run:
        model = self.model(way)
        episode = make_episode(self.side, shots=self.shots, share=self.share)
        if way == "plain":
            return lambda: outputs(_inferred(model, episode))
        with torch.inference_mode():
            support = model.encode_support(episode.support_images, episode.support_masks)

        def run() -> dict[str, Tensor]:
            with torch.inference_mode():
                query = model.encode_query(episode.query_image)
                return outputs(model.match(query, support, size=episode.size))

        return run


@dataclass(frozen=True)
class TrainingStep(Case):
    """Forward, losses and backward of a batch; dropout off, so that both ways have the same gradients."""

    batch: int = 4
    dtype: torch.dtype = torch.float32

    def small(self) -> Case:
        return replace(super().small(), batch=2)  # type: ignore[call-arg]

    def parameters(self) -> dict[str, Any]:
        return super().parameters() | {"batch": self.batch}

    def prepare(self, way: str) -> Run:
        model = self.model(way).to(self.dtype).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d):
                module.p = 0.0
        episode = make_episode(self.side, shots=self.shots, share=self.share, batch=self.batch)
        query, supports = (t.to(self.dtype) for t in (episode.query_image, episode.support_images))
        episode = replace(episode, query_image=query, support_images=supports)

        def run() -> dict[str, Tensor]:
            keep_freed_memory()
            model.zero_grad(set_to_none=True)
            prediction = model(episode)
            loss = torch.stack(list(model.loss(prediction, episode).values())).sum()
            loss.backward()
            # a parameter at a time would compare rounding: many gradients are zero but for it
            gradients = torch.cat([p.grad.flatten() for _, p in sorted(model.named_parameters()) if p.grad is not None])
            return {"loss": loss.detach(), "gradients": gradients}

        return run


@dataclass(frozen=True)
class Evaluation(Case):
    """Many episodes over few images, drawn under protocol `fewseg`: photos read, scored at their own size."""

    episodes: int = 100
    images: int = 20
    cache_gb: float = 4.0
    measures_memory: ClassVar[bool] = False  # it is what `cache_gb` allows: tests hold the cache to it
    is_long: ClassVar[bool] = True

    def small(self) -> Case:
        return replace(super().small(), episodes=6, images=12)  # type: ignore[call-arg]

    def parameters(self) -> dict[str, Any]:
        own = {"episodes": self.episodes, "images": self.images, "classes": NOVEL, "cache_gb": self.cache_gb}
        return {k: v for k, v in super().parameters().items() if k != "foreground"} | own

    def prepare(self, way: str) -> Run:
        model = self.model(way)
        source, fold = _data(self.images)
        protocol = get_protocol("fewseg", dataset="folder")
        benchmark = Benchmark.draw(source, fold, protocol=protocol, shots=self.shots, episodes=self.episodes, repeats=1)
        (listed,) = benchmark.lists

        def fewseg() -> dict[str, Tensor]:
            report = evaluate(model, benchmark, workers=0, cache_gb=self.cache_gb)
            return {"counts": torch.from_numpy(report.tables[0]).double()}

        def plain() -> dict[str, Tensor]:
            metric = FewShotIoU(fold.novel)
            transform = input_transform(protocol, self.side)
            dataset = EpisodeDataset(
                source, fold, spec_of=lambda e: listed.specs[e], length=len(listed), transform=transform
            )
            for e in range(len(listed)):  # one after the other, everything computed anew
                logits, spec = _inferred(model, dataset[e].episode).logits, listed.specs[e]
                truth = dataset.read(spec.query, spec.class_id)[2][0]
                mask = at_truth(logits, truth.shape, protocol).argmax(1)[0] == 1
                metric.update(mask, torch.from_numpy(truth), spec.class_id)
            return {"counts": torch.from_numpy(np.asarray(metric.table())).double()}

        return fewseg if way == "fewseg" else plain


def _data(images: int) -> tuple[Folder, Any]:
    """Photos that are there until the process ends, and a fold of their classes."""
    root = Path(tempfile.mkdtemp(prefix="fewseg-benchmark-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    write_data_set(root, images=images, classes=20, shown=NOVEL)
    novel = [f"thing {c}" for c in range(1, 1 + NOVEL)]
    source = Folder(subset="test", root=str(root), novel_classes=novel)
    return source, source.fold(0)


def _inferred(model: Any, episode: Any) -> Prediction:
    with torch.inference_mode():
        return model(episode)


def outputs(prediction: Prediction) -> dict[str, Tensor]:
    """All that a prediction holds, by name."""
    maps = {f"correlation {i}": c for i, c in enumerate(prediction.correlations)}
    return {"final": prediction.logits, **prediction.aux, **maps}


def main_cases() -> list[Case]:
    """The table of the documentation."""
    return [
        WholeEpisode("episode", "one 1-shot episode, 473 px", time_target=0.60, memory_target=0.60, rounds=5),
        WholeEpisode("episode-5", "one 5-shot episode, 473 px", shots=5, time_target=0.33, memory_target=0.25),
        NextQuery("next-query", "next query, support kept, 1-shot", time_target=0.33, rounds=5),
        NextQuery("next-query-5", "next query, support kept, 5-shot", shots=5, time_target=0.08),
        WholeEpisode("episode-5-bf16", "the same, fewseg in bf16", shots=5, precision="bf16", time_target=0.33),
        NextQuery("next-query-5-bf16", "next query, 5-shot, bf16", shots=5, precision="bf16", time_target=0.08),
        WholeEpisode("episode-5-633", "5-shot, 633 px", side=633, shots=5, time_target=0.35, memory_target=0.25),
        TrainingStep("training-step", "training step, batch 4, 473 px", time_target=0.70, memory_target=0.60),
        Evaluation("evaluation", "100 episodes over 20 images and 5 classes, 473 px", time_target=0.22, rounds=1),
        Evaluation(
            "evaluation-lite0",
            "1000 episodes over 200 images and 5 classes, lite0, 320 px",
            backbone="lite0",
            side=320,
            episodes=1000,
            images=200,
            time_target=0.40,
            rounds=1,
        ),
    ]


def curve_cases() -> list[Case]:
    """Cost against one thing at a time."""
    sides = [WholeEpisode("cost-side", f"{s} px", side=s, rounds=2) for s in (241, 321, 401, 473, 553, 633)]
    shots = [WholeEpisode("cost-shots", f"{k} shots", shots=k, rounds=2) for k in (1, 2, 5, 10)]
    shares = [WholeEpisode("cost-foreground", f"{p:.0%} foreground", share=p, rounds=2) for p in (0.02, 0.15, 0.5, 1.0)]
    episodes = [
        Evaluation("cost-episodes", f"{e} episodes over {i} images", backbone="lite0", side=320, episodes=e, images=i,
                   rounds=1)
        for e, i in ((20, 20), (100, 20), (400, 20), (100, 100))
    ]  # fmt: skip
    return [*sides, *shots, *shares, *episodes]


def cases(names: list[str]) -> list[Case]:
    """The named cases, or all of the table."""
    known = [*main_cases(), *curve_cases()]
    if not names:
        return main_cases()
    chosen = [case for name in names for case in known if case.name == name]
    missing = set(names) - {case.name for case in known}
    if missing:
        raise SystemExit(
            f"unknown case {', '.join(sorted(missing))}; known: {', '.join(dict.fromkeys(c.name for c in known))}"
        )
    return chosen
