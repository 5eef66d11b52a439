"""What a back-end is: a network cut between its levels layer2, layer3 and layer4."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from fewseg.models.parts.imagenet_head import ImagenetHead

LEVELS = ("layer2", "layer3", "layer4")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A network cut between its levels: PFENet and BAM mask the support before the last, PANet and SSP train from one.

    `first`, `middle`, `upper` follow each other; `lower` is the first two.
    """

    channels: dict[str, int]
    head: ImagenetHead
    """Where it was asked for, of an EfficientNet-Lite."""
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, *, mean: Iterable[float] = IMAGENET_MEAN, std: Iterable[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor(tuple(mean)).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(tuple(std)).view(3, 1, 1), persistent=False)

    def normalise(self, image: Tensor) -> Tensor:
        """(..., 3, H, W) in [0, 1] to the scale that the weights were trained on."""
        return (image - self.pixel_mean) / self.pixel_std

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Normalised image (B, 3, H, W) to the levels layer2, layer3, layer4."""
        levels = self.lower(image)
        return {"layer2": levels["layer2"], "layer3": levels["layer3"], "layer4": self.upper(levels)}

    def lower(self, image: Tensor) -> dict[str, Tensor]:
        """Normalised image to layer2 and layer3 (and what `upper` may need besides)."""
        return self.middle(self.first(image))

    @abstractmethod
    def first(self, image: Tensor) -> dict[str, Tensor]:
        """Normalised image to layer2 (and what `middle` may need besides)."""

    @abstractmethod
    def middle(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        """What `first` gave, with layer3."""

    @abstractmethod
    def upper(self, levels: dict[str, Tensor]) -> Tensor:
        """Layer4 from what `lower` gave."""

    @abstractmethod
    def stage_of(self, level: str) -> list[nn.Module]:
        """The modules that make layer3 of layer2, or layer4 of layer3."""

    def stages(self, image: Tensor) -> dict[str, Tensor]:
        """The levels and, where the network has stages between them, those too, in order."""
        return self(image)

    def all_blocks(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Every block's features as ("layer3.1", (B, C, h, w)), the earliest first; a "layer1.0" before them where the
        network has one.

        A network whose blocks cannot be told gives its three levels.
        """
        yield from ((f"{level}.0", maps) for level, maps in self(image).items())

    def blocks(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """`all_blocks` of the three levels: what HSNet correlates."""
        yield from ((name, maps) for name, maps in self.all_blocks(image) if not name.startswith("layer1"))

    @torch.no_grad()
    def block_channels(self, *, image_size: int) -> dict[str, int]:
        """The channels of `all_blocks` by name; `image_size` is a side that the network is sure to take."""
        was_training, side = self.training, 64 if self.takes_any_size else image_size
        found = {name: maps.shape[1] for name, maps in self.eval().all_blocks(torch.zeros(1, 3, side, side))}
        self.train(was_training)
        return found

    @property
    def takes_any_size(self) -> bool:
        """Whether images of every size are taken."""
        return True

    def activate(self, level: Tensor) -> Tensor:
        """A level as the next stage sees it: with its last ReLU, if it has one, whatever `last_relu` says."""
        return level
