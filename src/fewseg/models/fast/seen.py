"""What frozen back-ends made of images, kept: several models on one back-end see many of the same images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fewseg.models.fast.state import state_of

Levels = dict[str, Tensor]

_seen: SeenImages | None = None


@contextmanager
def remember_images(*, gigabytes: float = 2.0) -> Iterator[None]:
    """Within it, the views of all models (`accelerate`) on a CPU share the levels that a frozen back-end gives an
    image: whatever method asks, each is computed once, on its own. What exceeds `gigabytes` is computed anew.
    """
    global _seen  # noqa: PLW0603 lanes are threads, which a context variable would not reach
    before, _seen = _seen, SeenImages(gigabytes)
    try:
        yield
    finally:
        _seen = before


def seen_levels(backbone: nn.Module, image: Tensor, compute: Callable[[Tensor], Levels]) -> Levels:
    """`compute(image)` of images (B, 3, H, W), each from memory where it was seen within `remember_images`."""
    if _seen is None or backbone.training or image.is_cuda or torch.is_autocast_enabled(image.device.type):
        return compute(image)
    if torch.is_grad_enabled() and any(p.requires_grad for p in backbone.parameters()):
        return compute(image)
    network = _seen.name_of(backbone)
    each = [_seen.get(network, image[i : i + 1], compute) for i in range(len(image))]
    return each[0] if len(each) == 1 else {name: torch.cat([levels[name] for levels in each]) for name in each[0]}


class SeenImages:
    """Levels by what the network and the image hold, not by what they are called."""

    def __init__(self, gigabytes: float) -> None:
        self.room = int(gigabytes * 1e9)
        self._kept: dict[bytes, Levels] = {}
        self._names: dict[tuple[object, ...], tuple[bytes, list[Tensor]]] = {}

    def name_of(self, network: nn.Module) -> bytes:
        """A hash of a network's layers and values; made once, until one of its tensors changes."""
        tensors = [*network.parameters(), *network.buffers()]
        state = state_of(tensors)
        if state not in self._names:
            digest = hashlib.blake2b(repr(network).encode())
            for tensor in tensors:
                digest.update(_bytes(tensor))
            # the references keep the memory, so that no other tensor can come to lie where these lay
            self._names[state] = digest.digest(), [t.detach() for t in tensors]
        return self._names[state][0]

    def get(self, network: bytes, image: Tensor, compute: Callable[[Tensor], Levels]) -> Levels:
        """The levels of one image (1, 3, H, W)."""
        key = hashlib.blake2b(network + repr(image.shape).encode() + _bytes(image)).digest()
        if key not in self._kept:
            with torch.inference_mode(False), torch.no_grad():  # what is kept may meet a gradient later
                levels = compute(image)
            self.room -= sum(level.nbytes for level in levels.values())
            if self.room < 0:
                return levels
            self._kept[key] = levels
        return dict(self._kept[key])


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()
