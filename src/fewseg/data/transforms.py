"""Joint transforms of an image and its label maps with torchvision v2, as pure functions of a seed.

Every transform is called as `transform(image, labels, seed)` with an RGB image and labels (n, H, W) uint8, and gives
((3, S, S) float in [0, 1], (n, S, S) uint8). Images are interpolated bilinearly, labels by nearest neighbour.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from fewseg.errors import UsageError
from fewseg.labels import IGNORE

IMAGENET_MEAN = (0.485, 0.456, 0.406)

Pair = tuple[Tensor, Tensor]


Transform = Callable[[Image.Image, NDArray[np.uint8], int], Pair]
"""What a data set needs of a transform: (image, labels, seed) to a pair, the same for the same seed."""


def _on_one_thread(transform: Callable[..., Pair]) -> Callable[..., Pair]:
    """As a loader's process does it, wherever it is called: with more threads torch resizes to other last bits."""

    @functools.wraps(transform)
    def call(*given: Any, **options: Any) -> Pair:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return transform(*given, **options)
        finally:
            torch.set_num_threads(before)

    return call


@dataclass
class AugmentConfig:
    """Training augmentation, in the order of the fields; the defaults are HDMNet's on PASCAL-5i."""

    scale: list[float] = field(default_factory=lambda: [0.9, 1.1])
    """Range of the factor that both sides are scaled by, always."""
    rotate: float = 10.0
    """Largest angle in degrees, either way; what comes in from outside is the mean colour, 255 in the labels."""
    rotate_p: float = 0.5
    """Probability of a rotation."""
    blur_p: float = 0.5
    """Probability of a 5 x 5 Gaussian blur."""
    flip_p: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.0
    """Strength of random brightness, contrast and saturation; no paper's."""
    area: list[float] | None = None
    """Range of the share of the image that a random cut of about its shape keeps before it is squeezed; no paper's."""
    crop: bool = False
    """Whether to end in a random crop of the square (PFENet, BAM, base training), not by squeezing to it (HDMNet)."""
    keep_foreground: float = 0.85
    """A crop is drawn up to 31 times until it keeps this share of the label 1; 0 takes the first. A cut (`area`) must
    keep the share of every class; after 31 tries it is the whole image."""


class Squeeze:
    """Resize to the square, whatever the aspect ratio."""

    def __init__(self, size: int, *, antialias: bool = False) -> None:
        self._resize = v2.Resize((size, size), antialias=antialias)

    @_on_one_thread
    def __call__(self, image: Image.Image, labels: NDArray[np.uint8], seed: int = 0) -> Pair:
        """The resized pair; the seed changes nothing."""
        return _plain(*self._resize(*as_tensors(image, labels)))


class Pad:
    """PFENet's and BAM's rule: the long side to `size`, both sides floored to a multiple of 8, padded right and below.

    The padding is 0 in the image (before the model normalises it) and 255 in the labels.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def content(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of the resized image within the square."""
        long = max(height, width)
        return tuple(max(8, int(side * (self.size / long)) // 8 * 8) for side in (height, width))  # type: ignore[return-value]

    @_on_one_thread
    def __call__(self, image: Image.Image, labels: NDArray[np.uint8], seed: int = 0) -> Pair:
        """The padded pair; the seed changes nothing."""
        pixels, maps = as_tensors(image, labels)
        height, width = self.content(*pixels.shape[-2:])
        pixels, maps = v2.Resize((height, width), antialias=False)(pixels, maps)
        border = [0, 0, self.size - width, self.size - height]
        return _plain(F.pad(pixels, border, fill=[0.0]), F.pad(maps, border, fill=IGNORE))


class Augment:
    """Random scale, rotation, blur, flip and colour of an image, then the square: squeezed or cropped."""

    def __init__(self, config: AugmentConfig, size: int, *, mean: Sequence[float] = IMAGENET_MEAN) -> None:
        shares = {name: getattr(config, name) for name in ("rotate_p", "blur_p", "flip_p", "keep_foreground")}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise UsageError(f"augment.{name} is {share:g}; give 0 to 1")
        if min(config.rotate, config.jitter) < 0:
            raise UsageError("augment.rotate and augment.jitter are 0 or more")
        fill: dict[Any, Any] = {tv_tensors.Image: list(mean), tv_tensors.Mask: IGNORE}
        rotation = v2.RandomRotation([-config.rotate, config.rotate], v2.InterpolationMode.BILINEAR, fill=fill)
        steps: list[v2.Transform] = [
            RandomScale(*_range("scale", config.scale)),
            v2.RandomApply([rotation], config.rotate_p),
            v2.RandomApply([Blur()], config.blur_p),
            v2.RandomHorizontalFlip(config.flip_p),
        ]
        if config.jitter:
            steps.append(v2.ColorJitter(config.jitter, config.jitter, config.jitter))
        if config.area is not None:
            steps.append(AreaCut(*_range("area", config.area, most=1.0), keep=config.keep_foreground))
        crop = ForegroundCrop(size, mean, keep=config.keep_foreground)
        steps.append(crop if config.crop else v2.Resize((size, size), antialias=False))
        self._steps = v2.Compose(steps)

    @_on_one_thread
    def __call__(self, image: Image.Image, labels: NDArray[np.uint8], seed: int) -> Pair:
        """The augmented pair; torch's own random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pixels, maps = self._steps(*as_tensors(image, labels))
        return _plain(pixels.clamp(0, 1), maps)  # interpolation overshoots by rounding


class RandomScale(v2.Transform):
    """Scale both sides by one factor, uniform between `low` and `high`."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The new (height, width)."""
        factor = torch.empty(()).uniform_(self.low, self.high).item()
        height, width = flat_inputs[0].shape[-2:]
        return {"size": (max(1, round(height * factor)), max(1, round(width * factor)))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """The resized image or label maps."""
        return F.resize(inpt, list(params["size"]), antialias=False)


class Blur(v2.Transform):
    """A 5 x 5 Gaussian with the sigma that OpenCV, which the papers use, takes for it: 1.1.

    Sums of shifted images: four times as fast on a CPU as `v2.GaussianBlur`, which is most of an episode's time.
    """

    def __init__(self) -> None:
        super().__init__()
        weights = np.exp(-0.5 * (np.arange(-2, 3) / 1.1) ** 2)
        self.weights = (weights / weights.sum()).tolist()

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """The blurred image; label maps stay."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        pixels = F.pad(inpt, [2], padding_mode="reflect").as_subclass(Tensor)
        for axis, side in ((-1, inpt.shape[-1]), (-2, inpt.shape[-2])):
            blurred = pixels.narrow(axis, 0, side) * self.weights[0]
            for shift in range(1, 5):
                blurred.add_(pixels.narrow(axis, shift, side), alpha=self.weights[shift])
            pixels = blurred
        return tv_tensors.Image(pixels)


class ForegroundCrop(v2.Transform):
    """A random square that keeps a share of the label 1 of the first map; too small a picture is padded all round."""

    tries = 31

    def __init__(self, size: int, mean: Sequence[float], *, keep: float) -> None:
        super().__init__()
        self.size, self.mean, self.keep = size, list(mean), keep

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Padding (left, top, right, bottom) and the crop's corner in the padded picture."""
        maps = next(x for x in flat_inputs if isinstance(x, tv_tensors.Mask))
        height, width = maps.shape[-2:]
        missing = [max(self.size - side, 0) for side in (width, height)]
        padding = [*(m // 2 for m in missing), *(m - m // 2 for m in missing)]
        foreground = F.pad(maps[:1] == 1, padding)[0]
        wanted = self.keep * int(foreground.sum())
        top = left = 0
        for _ in range(self.tries):
            top = int(torch.randint(max(height, self.size) - self.size + 1, ()))
            left = int(torch.randint(max(width, self.size) - self.size + 1, ()))
            if int(foreground[top : top + self.size, left : left + self.size].sum()) >= wanted:
                break
        return {"padding": padding, "top": top, "left": left}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """The cropped image or label maps."""
        fill = IGNORE if isinstance(inpt, tv_tensors.Mask) else self.mean
        return F.crop(F.pad(inpt, params["padding"], fill=fill), params["top"], params["left"], self.size, self.size)


class AreaCut(v2.Transform):
    """A random cut with a share of the image's area between `low` and `high`, its shape stretched by up to a third.

    It keeps `keep` of every class of the first label map, or, after 31 tries, is the whole image.
    """

    tries, stretch = 31, 0.3

    def __init__(self, low: float, high: float, *, keep: float) -> None:
        super().__init__()
        self.low, self.high, self.keep = low, high, keep

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The cut's corner and sides."""
        maps = next(x for x in flat_inputs if isinstance(x, tv_tensors.Mask))
        height, width = maps.shape[-2:]
        classes = [c for c in maps[0].unique().tolist() if c not in (0, IGNORE)]
        foreground = torch.stack([maps[0] == c for c in classes]) if classes else maps[:0] == 1
        wanted = self.keep * foreground.sum((-2, -1))
        for _ in range(self.tries):
            share = torch.empty(()).uniform_(self.low, self.high).item()
            shape = torch.empty(()).uniform_(-self.stretch, self.stretch).exp().item()
            h, w = (
                min(side, max(1, int(side * (share * f) ** 0.5))) for side, f in ((height, shape), (width, 1 / shape))
            )
            top, left = int(torch.randint(height - h + 1, ())), int(torch.randint(width - w + 1, ()))
            if bool((foreground[:, top : top + h, left : left + w].sum((-2, -1)) >= wanted).all()):
                return {"top": top, "left": left, "height": h, "width": w}
        return {"top": 0, "left": 0, "height": height, "width": width}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """The cut image or label maps."""
        return F.crop(inpt, **params)


def as_tensors(image: Image.Image, labels: NDArray[np.uint8]) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """The image as (3, H, W) float in [0, 1] and the labels as they are, as torchvision's types."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255)
    return tv_tensors.Image(pixels), tv_tensors.Mask(torch.from_numpy(np.ascontiguousarray(labels)))


def sample_seed(*numbers: int) -> int:
    """One 63-bit seed from several numbers (seed, episode, slot), as independent as NumPy's seed sequences are."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _range(key: str, values: Sequence[float], *, most: float = float("inf")) -> tuple[float, float]:
    if len(values) != 2 or not 0 < values[0] <= values[1] <= most:
        example = "[0.9, 1.1]" if most > 1 else "[0.3, 1.0]"
        raise UsageError(f"augment.{key}={list(values)} is no range; give [smallest, largest], e.g. {example}")
    return values[0], values[1]


def _plain(pixels: Tensor, maps: Tensor) -> Pair:
    return pixels.as_subclass(Tensor), maps.as_subclass(Tensor)
