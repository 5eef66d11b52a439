"""What runs a model on photos: arrays in, arrays out.

Two do: exported graphs in onnxruntime (`graphs.py`), and networks in torch (`torch_engine.py`, with the extra `train`).
`fewseg.storage.engines` says which, and imports it by its name: nothing leads from the graphs to torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fewseg.errors import UsageError

Pixels: TypeAlias = NDArray[Any]
"""A photo of any size: (H, W, 3) uint8, or float32 in [0, 1]."""


class Answer(NamedTuple):
    """What a model says about one class in one photo of (H, W) pixels."""

    proba: NDArray[np.float32]
    """(H, W) foreground probability."""
    correlations: tuple[NDArray[np.float32], ...]
    """Correlation maps of the squeezed photo, coarse to fine, each (h, w)."""
    presence: float | None
    """Probability that the class is there at all; None where the method does not tell."""


@runtime_checkable
class Engine(Protocol):
    """A model that is ready for photos. What it makes of them is its own business, and may be kept."""

    name: str
    """Of the model: a shipped one's, else the last part of its path; of a network without one, its method's."""
    runtime: str
    """In words: results tell it."""
    image_size: int
    """The side of the square that it squeezes photos to."""
    methods: tuple[str, ...]
    """How it can match, of the same encoded photos and supports: its own method first."""
    method: str
    """The one that `match` takes unless told otherwise."""
    lanes: int
    """How many photos at once it is quickest with, from as many threads."""
    tells_presence: bool
    """Whether that one tells presence."""
    weights: str
    """SHA-256 of the weights' file; empty where they come from none."""

    def encode_support(self, supports: Iterable[tuple[Pixels, NDArray[np.uint8]]]) -> Any:
        """A class's photos with their masks {0, 1, 255 ignore}, squeezed already: (image_size, image_size)."""
        ...

    def as_support(self, query: Any, mask: NDArray[np.uint8]) -> Any | None:
        """An encoded photo with a mask as of `encode_support`; None where the photo must be encoded once more."""
        ...

    def joined(self, supports: Sequence[Any]) -> Any:
        """Supports that were encoded one by one, as if they had been encoded together."""
        ...

    def kept(self, support: Any) -> dict[str, NDArray[Any]]:
        """Encoded supports as arrays (1, K, ...) that every engine of these weights can restore."""
        ...

    def restored(self, arrays: dict[str, NDArray[Any]]) -> Any:
        """Encoded supports of what `kept` gave."""
        ...

    def encode_query(self, image: Pixels) -> Any:
        """A photo, for all classes."""
        ...

    def match(self, query: Any, support: Any, *, size: tuple[int, int], method: str | None = None) -> Answer:
        """Find a class in a photo, both encoded; the answer has the photo's `size` (H, W).

        `method` is one of `methods`; UsageError for another.
        """
        ...


def model_in_words(engine: Engine) -> str:
    """The model, and which other method it is asked for: `dense (features of lite)`."""
    return engine.name if engine.method == engine.methods[0] else f"{engine.method} (features of {engine.name})"


def own_support(engine: Engine, query: Any, photo: Pixels, mask: NDArray[np.uint8]) -> Any:
    """An encoded photo with a mask as of `Engine.encode_support`, encoded once more only where it must be."""
    support = engine.as_support(query, mask)
    return engine.encode_support([(photo, mask)]) if support is None else support


def check_looks_once(method: str, refine: str, *, own: str) -> None:
    """UsageError where another method than the model's own is to look twice: to it, what is unsure is background."""
    if method != own and refine != "none":
        raise UsageError(f"{method} cannot look twice (refine {refine}); {own} can")
