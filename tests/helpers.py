"""What several test files use: small runs on drawn scenes, models that are quick or checked by hand, a page."""

from __future__ import annotations

import mmap
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from typer.main import get_command

from fewseg.build import create_model
from fewseg.cli import main as cli
from fewseg.config import Config, load_config
from fewseg.data.sets.scenes import Scenes
from fewseg.episode import Episode, Prediction
from fewseg.evaluation.compare import Entry, compare, open_benchmark
from fewseg.models.base import Features, FewShotSegmenter, freeze
from fewseg.registry import method_class
from fewseg.report.contents import ClassScores, Curve, OtherPrediction, Panel, ReportPage, Row, Section

SCENES = ("scenes", "data.level=simple", "data.images=60", "data.size=64")
SHORT = (
    "train.epochs=2",
    "train.episodes_per_epoch=6",
    "train.batch_size=2",
    "train.workers=0",
    "train.val_episodes=4",
)
BACKBONE = "timm/test_resnet"
TINY = (f"model.backbone={BACKBONE}", "model.weights=null", "model.image_size=64")
BASE_RECIPE = """
model: {name: base, backbone: timm/test_resnet, weights: null, image_size: 64}
data: {novel: background}
train: {epochs: 1, episodes_per_epoch: 4, batch_size: 2, optimizer: sgd, lr: 0.02, val_episodes: 4}
"""


RED, GREEN, BLUE = (220, 20, 20), (20, 220, 20), (20, 20, 220)
"""Colours of what is segmented in made photos."""
HOSTILE = "</title><script>alert(1)</script><img src=x onerror=\"alert('2')\">&amp;{{ 7 * 7 }}"
"""A name that a page must not take for markup."""


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """No file grows beyond so many bytes; the system enforces it as it does a full disk: with an error on writing."""
    import resource  # Windows has none

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


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


class Counting(Toy):
    """Counts what is encoded."""

    def __init__(self) -> None:
        super().__init__(image_size=64)
        self.encoded: list[int] = [0, 0]

    def encode_query(self, image: Tensor) -> Any:
        self.encoded[0] += 1
        return super().encode_query(image)

    def encode_support(self, images: Tensor, masks: Tensor) -> Any:
        self.encoded[1] += 1
        return super().encode_support(images, masks)


class CountedLoads(Scenes):
    """Counts the images that are read."""

    loads = 0

    def load(self, i: int) -> Any:
        self.loads += 1
        return super().load(i)


def take_memory(size: int) -> None:
    """New memory of the system: the C library may have kept what an earlier test freed, and hand that out again."""
    with mmap.mmap(-1, size) as pages:
        for page in range(0, size, mmap.PAGESIZE):
            pages[page] = 1


def page_block(page: str, language: str) -> str:
    """The first block of code in that language on a page of docs."""
    text = (Path(__file__).resolve().parents[1] / "docs" / page).read_text()
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found, f"{page} has no {language} block"
    return found.group(1)


def toy_config(*words: str) -> Config:
    return load_config(
        "model.name=toy", "model.weights=null", "train.validation=none", "train.lr=0.01", *SCENES, *SHORT, *words
    )


def hdmnet_config(*words: str) -> Config:
    return load_config("hdmnet", *SCENES, *TINY, *SHORT, "train.held_out=2", *words)


def weights(folder: Path) -> dict[str, Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def assert_equal(a: dict[str, Tensor], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


def compared(targets: Sequence[str], words: Sequence[str], **options: Any) -> list[Entry]:
    """`compare` by the names of what is measured; data as of the first target."""
    drawn = {key: options.pop(key) for key in ("protocol", "shots", "episodes", "repeats") if key in options}
    opened, benchmark = open_benchmark(targets, words, released=options.pop("released", ()), **drawn)
    return compare(opened, benchmark, **options)


class ColorSegmenter(FewShotSegmenter):
    """Foreground where a pixel is nearer to the support's mean foreground colour than to its mean background colour.

    With `presence` it tells whether any pixel is near the foreground's.
    """

    name = "color"
    shots = 1

    def __init__(self, image_size: int = 32, *, presence: bool = False) -> None:
        super().__init__()
        self.image_size, self.tells_presence = image_size, presence
        self.sharpness = torch.nn.Parameter(torch.tensor(10.0))
        self.seen = []  # a list: the quicker view that predicts shares it

    @property
    def encoded(self):
        """How many queries were encoded."""
        return len(self.seen)

    def extract_query(self, image):
        self.seen.append(1)
        return {"pixels": image}

    def extract_support(self, images, masks):
        return {"images": images, "masks": masks}

    def match(self, query, support, *, size, base_index=None):
        pixels = support["images"].permute(0, 1, 3, 4, 2)
        means = [pixels[support["masks"] == value].mean(0) for value in (0, 1)]
        far = torch.stack([(query["pixels"] - mean[:, None, None]).norm(dim=1) for mean in means], 1)
        logits = F.interpolate(-self.sharpness * far, size=size)
        presence = 20 * (0.2 - far[:, 1].amin((1, 2))) if self.tells_presence else None
        return Prediction(logits, correlations=(logits[:, 1, ::2, ::2], logits[:, 1]), presence=presence)

    def loss(self, prediction, episode):
        return {}


def scene(color=RED, *, size=(40, 30), box=(10, 5, 30, 20), ground=(90, 90, 90)):
    """A photo (width, height) with a coloured box, and where the box is."""
    width, height = size
    pixels = np.full((height, width, 3), ground, np.uint8)
    mask = np.zeros((height, width), bool)
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = color
    mask[top:bottom, left:right] = True
    return pixels, mask


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def tiny_model(name: str, *, seed: int = 0, **options: Any) -> nn.Module:
    """A method, or `base`, with random weights on a tiny back-end, in evaluation mode."""
    return deepcopy(_built(name, seed, **options))


@cache
def _built(name: str, seed: int, **options: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return create_model(name, **{"backbone": BACKBONE, "base_classes": 3, "image_size": 64} | options).eval()


def answer(model: nn.Module) -> Tensor:
    """A model's logits for one fixed episode."""
    g = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 64, 64, generator=g)
    masks = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    masks[..., 10:40, 20:50] = 1
    with torch.no_grad():
        if type(model) is method_class("base"):
            return model(image)
        support = torch.rand(1, 1, 3, 64, 64, generator=g)
        return model(Episode(image, support, masks, torch.tensor([1]), torch.tensor([-1]))).logits


def example_image(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def example_mask(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    made = np.zeros((height, width), np.uint8)
    made[height // 4 : height // 2, width // 4 : width // 2] = 1
    made[0] = 255
    return made


def example_panel(shots: int = 1, **changes: object) -> Panel:
    arguments: dict[str, object] = {
        "class_name": "snail",
        "support_images": tuple(example_image(40 + k, 50) for k in range(shots)),
        "support_masks": tuple(example_mask(40 + k, 50) for k in range(shots)),
        "query_image": example_image(),
        "prediction": example_mask() == 1,
        "truth": example_mask(),
        "iou": 0.4321,
        "correlations": tuple(np.random.default_rng(n).random((n, n)) for n in (3, 6, 12)),
    }
    return Panel(**(arguments | changes))  # type: ignore[arg-type]


def full_page(name: str = "snail") -> ReportPage:
    """A page with every part, `name` wherever a name may stand."""
    return ReportPage(
        f"Report of {name}",
        f"subtitle {name}",
        rows=(
            Row(f"HDMNet {name}", 0.45678, (0.4431, 0.4698), 0.683, note=name, highlight=True, published=0.694),
            Row("everything foreground", 0.1124),
        ),
        per_class=(ClassScores(name, 0.52349, (0.5, 0.55), 200, {f"prototype {name}": 0.313}),),
        curves=(
            Curve(f"loss {name}", tuple(range(1000)), tuple(1 / (i + 1) for i in range(1000))),
            Curve(name, (10, 20, 30), (0.1, 0.3, 0.2), percent=True, chart="validation"),
        ),
        panels=(
            example_panel(class_name=name, group=name, caption=name, prior=np.ones((4, 4))),
            example_panel(others=(OtherPrediction(name, example_mask(), 0.2),)),
        ),
        facts=((name, name),),
        sections=(Section(name, name, (name, "value"), ((name, name),)),),
        commands=((name, f"fewseg report '{name}'"),),
        interval_name=f"95 % {name}",
    )


@dataclass
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str


class Fewseg:
    """Runs a command in this process, as the installed script would."""

    command = get_command(cli.app)
    """Made once: Typer reads every command's signature whenever its app is called."""

    def __init__(self, capsys: pytest.CaptureFixture[str] | None = None) -> None:
        self.capsys = capsys

    def __call__(self, *words: object) -> Result:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["fewseg", *map(str, words)])
            patch.setenv("COLUMNS", "200")
            patch.setattr(cli, "app", self.command)
            try:
                cli.main()
                code = 0
            except SystemExit as stop:
                code = int(stop.code or 0)
        out, err = self.capsys.readouterr() if self.capsys else ("", "")
        return Result(code, out, err)
