"""Small runs on drawn scenes: HDMNet on a tiny back-end, and a toy method that trains in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewseg.config import Config, load_config
from fewseg.episode import Episode, Prediction
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.compare import Entry, compare, open_targets
from fewseg.models.base import Features, FewShotSegmenter, freeze

SCENES = ("scenes", "data.level=simple", "data.images=60", "data.size=64")
SHORT = (
    "train.epochs=2",
    "train.episodes_per_epoch=6",
    "train.batch_size=2",
    "train.workers=0",
    "train.val_episodes=4",
)
TINY = ("model.backbone=timm/test_resnet", "model.weights=null", "model.image_size=64", "train.held_out=2")
BASE_RECIPE = """
model: {name: base, backbone: timm/test_resnet, weights: null, image_size: 64}
data: {novel: background}
train: {epochs: 1, episodes_per_epoch: 4, batch_size: 2, optimizer: sgd, lr: 0.02, val_episodes: 4}
"""


class Pixels(nn.Module):
    """What stands for a back-end: a frozen convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.full((1, 3, 1, 1), 0.5))
        self.conv = nn.Conv2d(3, 6, 3, stride=4, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(image - self.get_buffer("pixel_mean")).relu()


class Toy(FewShotSegmenter):
    """The distance of every query feature to the support's mean foreground feature, scaled and shifted."""

    name = "toy"

    def __init__(
        self,
        *,
        backbone: str = "none",
        base_classes: int = 15,
        shots: int = 1,
        image_size: int = 64,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.shots, self.image_size = shots, image_size
        self.backbone = Pixels()
        freeze(self.backbone)
        self.embed = nn.Conv2d(6, 8, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(16, 2, 3, padding=1)

    @torch.no_grad()
    def extract_query(self, image: Tensor) -> Features:
        return {"maps": self.backbone(image)}

    @torch.no_grad()
    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        maps = self.backbone(images.flatten(0, 1))
        fg = F.adaptive_avg_pool2d((masks == 1).float(), maps.shape[-2:])
        return {"maps": maps.unflatten(0, masks.shape[:2]), "fg": fg}

    def embed_query(self, features: Features) -> Features:
        return {"maps": self.dropout(self.embed(features["maps"]))}

    def embed_support(self, features: Features) -> Features:
        maps = self.embed(features["maps"].flatten(0, 1)).unflatten(0, features["fg"].shape[:2])
        fg = features["fg"].unsqueeze(2)
        return {"prototype": (maps * fg).sum((-2, -1)) / fg.sum((-2, -1)).clamp(min=1e-6)}

    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        prototype = support["prototype"].mean(1)[..., None, None].expand_as(query["maps"])
        logits = self.head(torch.cat([query["maps"], prototype - query["maps"]], 1))
        return Prediction(F.interpolate(logits, size))

    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        assert episode.query_mask is not None
        # over all pixels, void ones too: a mean over batches of one size is then the mean over their union
        return {"final": F.cross_entropy(prediction.logits, (episode.query_mask == 1).long())}


def toy_config(*words: str) -> Config:
    return load_config(
        "model.name=toy", "model.weights=null", "train.validation=none", "train.lr=0.01", *SCENES, *SHORT, *words
    )


def hdmnet_config(*words: str) -> Config:
    return load_config("hdmnet", *SCENES, *TINY, *SHORT, *words)


def weights(folder: Path) -> dict[str, Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def assert_equal(a: dict[str, Tensor], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


def compared(targets: Sequence[str], words: Sequence[str], **options: Any) -> list[Entry]:
    """`compare` by the names of what is measured; data as of the first target."""
    drawn = {key: options.pop(key) for key in ("protocol", "shots", "episodes", "repeats") if key in options}
    opened = open_targets(targets, words, released=options.pop("released", ()))
    return compare(opened, Benchmark.of(next(iter(opened.values())), **drawn), **options)
