"""Episode and Prediction: what goes into a few-shot segmenter and what comes out.

Letters used everywhere: B batch, K shots, C channels, H W image sides, h w feature sides, N base classes, L = h*w
tokens. Tensor shapes are documented here and only here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from fewseg.labels import IGNORE, MOST_CLASSES, WIDE_IGNORE  # noqa: F401  (read from here by older code)


@dataclass(frozen=True)
class Episode:
    """A batch of episodes: K annotated support images and one query image each.

    Images are float RGB in [0, 1]; the model itself normalises, and never clamps. Masks hold 0 background, 1
    foreground, 255 ignore. What a loss gets may have images of 0 by 0 pixels (training on kept features, or by several
    processes), but masks and labels are always whole.
    """

    query_image: Tensor
    """(B, 3, H, W) float."""
    support_images: Tensor
    """(B, K, 3, H, W) float."""
    support_masks: Tensor
    """(B, K, H, W) uint8 {0, 1, 255}."""
    class_id: Tensor
    """(B,) int64: the data set's id of the episode's class."""
    base_index: Tensor
    """(B,) int64: 0-based index of the class among the fold's base classes, -1 if it is none of them."""
    query_mask: Tensor | None = None
    """(B, H, W) uint8 {0, 1, 255}; None where the truth is unknown."""
    query_base_mask: Tensor | None = None
    """(B, H, W) uint8: 0 background, 1..N base classes, 255 ignore; None where it is not needed.

    int32 where N > 254, in which 65535 is to be ignored.
    """
    base_known: Tensor | None = None
    """(B, N) bool: the base classes whose pixels are marked in the query; None where all are.

    A pixel with 0 in `query_base_mask` is background or of a base class that is not marked.
    """

    @property
    def truth(self) -> Tensor:
        """`query_mask`; ValueError where it is unknown, so that there is nothing to learn from."""
        if self.query_mask is None:
            raise ValueError("the loss needs episode.query_mask")
        return self.query_mask

    @property
    def shots(self) -> int:
        """Number of support images per episode."""
        return self.support_images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the query image."""
        return self.query_image.shape[-2], self.query_image.shape[-1]

    def __len__(self) -> int:
        return self.query_image.shape[0]

    def as_dict(self) -> dict[str, Tensor]:
        """The tensors by name; those that are None are left out."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    def to(self, device: torch.device | str) -> Episode:
        """The same batch on another device."""
        return Episode(**{name: value.to(device) for name, value in self.as_dict().items()})

    @classmethod
    def cat(cls, episodes: Sequence[Episode]) -> Episode:
        """One batch from several; all must have the same sizes, shots and optional fields."""
        parts = [episode.as_dict() for episode in episodes]
        shared = [name for name in parts[0] if all(name in part for part in parts)]
        return cls(**{name: torch.cat([part[name] for part in parts]) for name in shared})


@dataclass(frozen=True)
class Prediction:
    """What a few-shot segmenter says about a batch of queries, at the query image's size."""

    logits: Tensor
    """(B, 2, H, W): background and foreground; a method may fuse probabilities here (HDMNet, BAM): only argmax is
    common.
    """
    aux: Mapping[str, Tensor] = field(default_factory=dict)
    """Further outputs by name: "meta" (B, 2, H, W), "base" (B, 1 + N, H, W), ..."""
    correlations: tuple[Tensor, ...] = ()
    """Correlation maps, coarse to fine, each (B, h, w)."""
    presence: Tensor | None = None
    """(B,): logit of the class being in the query at all; None where the method does not say."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """What only the loss needs, by name: B first, of any size."""

    @property
    def mask(self) -> Tensor:
        """(B, H, W) bool: where the foreground wins."""
        return self.logits.argmax(1).bool()

    def map(self, change: Callable[[Tensor], Tensor]) -> Prediction:
        """The same with `change` made to every tensor."""

        def changed(part: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: change(tensor) for name, tensor in part.items()}

        logits, aux = change(self.logits), changed(self.aux)
        presence = None if self.presence is None else change(self.presence)
        return Prediction(logits, aux, tuple(map(change, self.correlations)), presence, changed(self.extra))
