"""Benchmark: what a model is measured on, as one thing; here seeds become episode lists, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewseg.data.dataset import EpisodeDataset
from fewseg.data.episodes.lists import EpisodeList
from fewseg.data.episodes.protocols import EvaluationProtocol, ways_of
from fewseg.data.episodes.sampling import sample_episodes
from fewseg.data.inspect.stats import all_folds
from fewseg.data.source import Fold, ImageSource, of_masks
from fewseg.data.transforms import Pad, Squeeze, Transform
from fewseg.errors import UsageError
from fewseg.evaluation.protocol_files import find_protocol
from fewseg.models.base import FewShotSegmenter
from fewseg.progress import Silent
from fewseg.storage.learnt import Learnt
from fewseg.storage.opening import Matching, Opened, Trained, evaluation_fold, open_test_data, trained_of

_DRAW = (
    'draw one: source = fewseg.create("source", "pascal5i", subset="test", root="DIR"), then '
    "fewseg.Benchmark.draw(source, source.fold(0))"
)


@dataclass(frozen=True)
class Benchmark:
    """Test images, a fold, a protocol and the episodes that it drew."""

    source: ImageSource
    """The data set's test subset."""
    fold: Fold
    """What is novel, and which base classes the model knows."""
    protocol: EvaluationProtocol
    lists: tuple[EpisodeList, ...]
    """The episodes, one list per repeat."""
    learnt: Learnt | None = None
    """What the model was trained on that is to be measured; None for a method without training, or where nothing tells.
    """
    matching: Matching | None = None
    """How its base learner's classes are the fold's base classes; None: they are the same ones, in their order."""

    @classmethod
    def draw(
        cls,
        source: ImageSource,
        fold: Fold,
        *,
        protocol: str | EvaluationProtocol = "fewseg",
        shots: int = 1,
        episodes: int | None = None,
        repeats: int | None = None,
        seeds: Sequence[int] | None = None,
        classes: tuple[int, ...] | None = None,
        file: str | Path | None = None,
        absent: float = 0.0,
        supports: str = "mask",
        references: int = 1,
        ways: int = 1,
    ) -> Benchmark:
        """Draw the episodes by the protocol's rules, or read them from a saved list (`file`).

        `shots` is 1, whatever a model was trained for. `episodes` per repeat, and the first `repeats` of the protocol's
        seeds or `seeds` of one's own, replace the protocol's numbers; `classes` replace the fold's novel ones.
        `absent` is the share of queries without the class, `supports` what is made of the supports' masks, `references`
        how many supports are drawn for each query, `ways` how many classes are looked for in it at once, as
        `EvaluationProtocol.varied` has them. Raises
        UsageError for an unknown protocol, for more repeats than it has seeds, and for a list of other classes.
        """
        protocol = find_protocol(protocol, dataset=source.name) if isinstance(protocol, str) else protocol
        if protocol.name in ("fewseg", "whole"):  # the papers' rules, and all classes in one map, take what lies on top
            source = of_masks(source)
        if absent or supports != "mask" or references != 1 or ways != 1:
            protocol = protocol.varied(absent=absent, supports=supports, references=references, ways=ways)
        if file is not None:
            listed = EpisodeList.load(file, source)
            if (
                episodes not in (None, len(listed))
                or repeats not in (None, 1)
                or seeds is not None
                or absent
                or references > 1
            ):
                raise UsageError(
                    f"{file} lists {len(listed)} episodes, once; leave out how many, how often, the seeds, absent and "
                    "references"
                )
            if (own := ways_of(listed.protocol)) != protocol.ways != 0:
                raise UsageError(
                    f"{file} lists {own}-way episodes (protocol {listed.protocol}), but ways={protocol.ways}; give "
                    f"ways={own}"
                )
            _check_classes(listed, file, source, fold.novel if classes is None else classes, fold)
            return cls(source, fold, protocol, (listed,))
        lists = tuple(
            sample_episodes(source, fold, protocol=protocol, seed=seed, shots=shots, episodes=episodes, classes=classes)
            for seed in (repeat_seeds(protocol, repeats) if seeds is None else seeds)
        )
        return cls(source, fold, protocol, lists)

    @classmethod
    def of(
        cls, opened: Opened, *, shots: int | None = None, progress: Silent | None = None, **choices: Any
    ) -> Benchmark:
        """The data, fold and shots that an opened model is configured for; `choices` as for `draw`."""
        if not isinstance(opened, Opened):
            raise UsageError(
                f"{type(opened).__name__} names no data; Benchmark.of takes what open_target opens (a run, or a method "
                f"with its data). For this, {_DRAW}"
            )
        source, fold = open_test_data(opened, progress=progress)
        drawn = cls.draw(source, fold, shots=shots or opened.config.data.shots, **choices)
        if shots not in (None, drawn.shots):
            raise UsageError(f"{choices['file']} lists {drawn.shots}-shot episodes, but {shots} shots were asked for")
        return drawn.known_to(opened.model, name=opened.weights.get("path"))

    def known_to(self, model: FewShotSegmenter, *, name: str | None = None) -> Benchmark:
        """The same episodes, with the base classes that a model was trained on, and what that was. The model is
        told the classes' names.

        Raises UsageError if it was trained on what is novel here; `name` is what that calls the model.
        """
        model.name_classes(self.source.class_names)
        folds = map(self.source.fold, all_folds(self.source))  # what another model knows of this fold is left behind
        own = next((fold for fold in folds if fold.novel == self.fold.novel), self.fold)
        fold, matching = evaluation_fold(model, self.source, own, name=name)
        return replace(self, fold=fold, matching=matching, learnt=trained_of(model).learnt)

    @property
    def shots(self) -> int:
        """Supports per episode."""
        return self.lists[0].shots

    @property
    def ways(self) -> int:
        """Episodes that follow each other in a list, of one query and other classes, which are scored in one map."""
        return self.protocol.ways or len({spec.class_id for spec in self.lists[0].specs})

    def input_size(self, image_size: int) -> int:
        """Side of the input in pixels, for a model with that `image_size`."""
        return self.protocol.input_size or image_size

    def dataset(self, image_size: int, *, repeat: int = 0) -> EpisodeDataset:
        """A repeat's episodes, of the first one by default, as a model with that `image_size` sees them."""
        specs, transform = self.lists[repeat].specs, input_transform(self.protocol, image_size)
        how = {"length": len(specs), "transform": transform, "supports": self.protocol.supports}
        return EpisodeDataset(self.source, self.fold, spec_of=specs.__getitem__, **how)


def for_model(benchmark: Benchmark, model: FewShotSegmenter) -> Benchmark:
    """What `known_to` gives, where anything is known of a model's training; else the benchmark as it is.

    UsageError for what is no benchmark.
    """
    if not isinstance(benchmark, Benchmark):
        raise UsageError(f"{str(benchmark)[:80]!r} is no benchmark; {_DRAW}")
    return benchmark if trained_of(model) == Trained() else benchmark.known_to(model)


def _check_classes(
    listed: EpisodeList, file: str | Path, source: ImageSource, allowed: Sequence[int], fold: Fold
) -> None:
    """UsageError for a list with other classes than those allowed; it names them, and the fold that they are of."""
    classes = {spec.class_id for spec in listed.specs}
    if classes <= set(allowed):
        return
    names = ", ".join(source.class_names[c - 1] for c in sorted(classes - set(allowed)))
    fits = next((str(n) for n in all_folds(source) if classes <= set(source.fold(n).novel)), None)
    remedy = (
        f"evaluate with data.fold={fits}" if fits else "no fold has all its classes as novel ones: make another list"
    )
    raise UsageError(f"{file} lists episodes of classes that are not novel in fold {fold.index} ({names}); {remedy}")


def repeat_seeds(protocol: EvaluationProtocol, repeats: int | None) -> tuple[int, ...]:
    """The seeds of the first `repeats` repeats (None: all)."""
    if repeats is None:
        return protocol.seeds
    if not 1 <= repeats <= len(protocol.seeds):
        raise UsageError(
            f"protocol {protocol.name!r} has {len(protocol.seeds)} seeds; give 1 to {len(protocol.seeds)} repeats"
        )
    return protocol.seeds[:repeats]


def input_transform(protocol: EvaluationProtocol, image_size: int) -> Transform:
    """How the protocol brings an image to the model's input."""
    size = protocol.input_size or image_size
    return Pad(size) if protocol.resize == "pad" else Squeeze(size, antialias=protocol.antialias)
