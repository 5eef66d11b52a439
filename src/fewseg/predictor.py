"""FewShotPredictor: give annotated photos once, get masks of many others, each of its picture's own size."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.class_list import named_value
from fewseg.data.decoding import AS_IT_IS, PictureRule, to_eight_bit, to_rgb
from fewseg.data.images import align_mask, overlay, read_oriented, write_image
from fewseg.data.marks import Marks, marking_from_marks
from fewseg.data.masks import Label, Marking, check_one_value, marking_of, read_marking
from fewseg.data.winners import label_map
from fewseg.errors import DataError, DataWarning, UsageError
from fewseg.labels import MOST_CLASSES
from fewseg.progress import counted
from fewseg.runtime.engine import Engine, Pixels
from fewseg.storage.engines import SEVERAL, open_engine


class TensorLike(Protocol):
    """A tensor of torch, which need not be installed."""

    def detach(self) -> Any: ...


Picture: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[Any] | TensorLike
"""A file (turned upright), or pixels as they stand: a Pillow image, an array (H, W), (H, W, 3) or (H, W, 4) of whole
numbers or of floats in [0, 1], or a tensor (3, H, W), float in [0, 1] or uint8."""
Mask: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[Any] | TensorLike | Marking | Marks
"""A file, a Pillow image, an array (H, W) of bool, whole numbers or floats, a mask that was understood before; or
`Marks`: boxes, points and strokes from which a mask is grown.

`fewseg.data.masks` says what its values mean, and asks where they may mean several things.
"""


AS_IT_RUNS = {
    "device": None,
    "flip": False,
    "refine": "none",
    "compile": False,
    "precision": "fp32",
    "runtime": None,
    "provider": None,
}
"""The options of an engine that was made elsewhere."""

_LOOKS = ("flip", "refine", "precision")
"""Those that change what is found."""


@dataclass(frozen=True)
class Result:
    """What the model says about one class in one image of (H, W) pixels."""

    mask: NDArray[np.bool_]
    """(H, W): where `proba` > 0.5."""
    proba: NDArray[np.float32]
    """(H, W) foreground probability: the softmax of the model's logits, resized to the image."""
    correlations: tuple[NDArray[np.float32], ...]
    """Correlation maps of the squeezed image, coarse to fine, each (h, w)."""
    presence: float | None
    """Probability that the class is in the image at all, which `mask` and `proba` take no notice of; None where the
    model does not tell.
    """
    quality: float | None = None
    """The IoU to expect of the mask, where a concept found it: by what it expects, and by how sure it is here."""

    def doubt(self, presence: float) -> float | None:
        """From 0 to 1: how much of the answer may be wrong, by its quality and the chance that the class is not there;
        None where no concept tells. `mask` counts as empty if the class is there with less than `presence`.
        """
        there = self.presence is None or self.presence >= presence
        return told_of(self.presence, self.quality, mask=self.mask & there, own=self.mask)[2]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mask, 0/255, to a PNG or what else the name ends with."""
        write_image(Image.fromarray(self.mask.astype(np.uint8) * 255), Path(path))

    def plot(self, image: Picture, *, pictures: PictureRule = AS_IT_IS) -> Image.Image:
        """The photo with the mask tinted and outlined: `result.plot("a.jpg").show()`; a notebook draws it by itself."""
        photo = pixels_of(image, pictures)
        shown = photo if photo.dtype == np.uint8 else np.rint(255 * photo.clip(0, 1)).astype(np.uint8)
        return overlay(Image.fromarray(shown), self.mask)

    def proba_if(self, presence: float) -> NDArray[np.float32]:
        """`proba`, or 0 everywhere if the class is there with less than a probability of `presence`."""
        return unless_absent(self.proba, self.presence, presence)


def told_of(
    presence: float | None, quality: float | None, *, mask: NDArray[np.bool_], own: NDArray[np.bool_]
) -> tuple[float | None, float | None, float | None]:
    """What tables and exports say of a class in a photo: its presence, the IoU to expect of its mask, and the doubt in
    it, by a result's presence and quality, the mask (H, W) as it is written, and the class's `own`, before other
    classes took from it and small parts went: the quality holds for that, and less for what is left of it.

    Of an empty mask, for whatever reason, the IoU to expect is the chance that this is right, and the doubt the rest.
    """
    if quality is None:
        return presence, None, None
    if presence is not None and not mask.any():
        return presence, 1 - presence, presence
    either = np.count_nonzero(mask | own)
    expected = quality * (np.count_nonzero(mask & own) / either if either else 1.0)
    return presence, expected, 1 - expected * (1.0 if presence is None else presence)


def told_of_all(
    results: Iterable[Result], labels: NDArray[np.uint8], *, threshold: float = 0.5
) -> list[tuple[float | None, float | None, float | None]]:
    """`told_of` every class of a label map (H, W) that was made at that threshold, in order."""
    return [
        told_of(one.presence, one.quality, mask=labels == label, own=one.proba > threshold)
        for label, one in enumerate(results, start=1)
    ]


def unless_absent(proba: NDArray[np.float32], told: float | None, presence: float) -> NDArray[np.float32]:
    """`proba`, or 0 everywhere where it is told that the class is there with less than a probability of `presence`."""
    return np.zeros_like(proba) if told is not None and told < presence else proba


class FewShotPredictor:
    """Segments images with a few-shot model: `set_support` once, `predict` many times.

    `model` is a name (`lite`, which comes with fewseg, or what is taken unless another is named: `lite+linear`, lite
    with a linear classifier that a class's supports train if they are several), the folder of a run, of a saved model
    or of exported graphs, a model, or an engine. `runtime` graphs or torch overrides the rule of
    `fewseg.storage.engines`; `runtime` of the predictor tells which one runs; `provider` (cpu, cuda, coreml, directml,
    openvino) is what onnxruntime runs graphs by. Pictures are squeezed to the model's square and its answer is resized
    to the picture's own size. `device` is as `pick_device` takes it; None leaves a model where it is. `flip` averages
    the logits with those of the mirrored pictures, in twice the time; `refine` "fast" looks at a picture twice, the
    second time with what was found in it as a further support, and "best" does both; neither is for `lite+linear`.
    `compile` compiles the back-end with torch.compile; where no compiler works it warns, and predicts without.
    `precision` is fp32, bf16 or fp16 (GPUs). `pictures` says how deep pictures are scaled, and which bands and page are
    read, of supports and queries alike.
    """

    def __init__(
        self,
        model: Any = SEVERAL,
        device: Any = None,
        *,
        flip: bool = False,
        refine: str = "none",
        compile: bool = False,
        precision: str = "fp32",
        pictures: PictureRule = AS_IT_IS,
        runtime: str | None = None,
        provider: str | None = None,
    ) -> None:
        device = None if device is None else str(device)
        how = {"device": device, "flip": flip, "refine": refine, "compile": compile, "precision": precision}
        how |= {"runtime": runtime, "provider": provider}
        if isinstance(model, Engine):
            if how != AS_IT_RUNS:
                raise UsageError("an engine runs as it was made; give what it was made of, by its name or folder")
            self.engine: Engine = model
        else:
            self.engine = open_engine(model, **how)
        self.runtime, self.tells_presence = self.engine.runtime, self.engine.tells_presence
        self.model = getattr(self.engine, "model", self.engine)
        """The network itself where torch runs it."""
        self.device = getattr(self.engine, "device", "cpu")
        self.names: tuple[str, ...] | None = None
        """Names of the classes, in order; None for the one class of a support without a name."""
        self.support_files: frozenset[Path] = frozenset()
        """The files that the support was read from."""
        self.support_names: frozenset[str] = frozenset()
        self.support_side: int | None = None
        """The longer side of the supports' photos, in pixels: their median."""
        self.markings: dict[str, tuple[Marking, ...]] = {}
        """How each support's mask was understood, by class; `support` is the class without a name."""
        self.pictures = pictures
        self.settings: dict[str, Any] = {name: how[name] for name in _LOOKS if how[name] != AS_IT_RUNS[name]}
        """What else changes masks, where it is not as usual."""
        self._supports: list[Any] = []

    def set_support(
        self, images: Any, masks: Any = None, *, label: Label | Mapping[str, Label | None] | None = None
    ) -> None:
        """Learn what to segment: an image and its mask, equal lists of both, or {name: (images, masks)}.

        `label` is the value of the masks that is the object, where they hold several; by name where classes differ.
        UsageError or DataError, and the former support kept, if anything in it cannot be used, or may mean two things.
        """
        if isinstance(images, Mapping):
            if masks is not None:
                raise UsageError("named supports bring their own masks: give {name: (images, masks)} and nothing else")
            named = {str(name): value for name, value in images.items()}
        else:
            named = {"support": (images, masks)}
        if not 1 <= len(named) <= MOST_CLASSES:
            raise UsageError(f"{len(named)} classes were given; one predictor takes 1 to {MOST_CLASSES}")
        lists = {name: listed(name, value) for name, value in named.items()}
        labels = label if isinstance(label, Mapping) else dict.fromkeys(lists, label)
        if unknown := sorted(set(labels) - set(lists)):
            raise UsageError(f"a label is given for {unknown[0]!r}, which has no support; there is {', '.join(lists)}")
        told = isinstance(images, Mapping) and getattr(self.engine, "takes_classes", False)
        how = {name: {"name": name} if told else {} for name in lists}
        encoded = [self._encode(name, *pair, labels.get(name), how[name]) for name, pair in lists.items()]
        self.support_side = round(float(np.median([side for *_, sides in encoded for side in sides])))
        self._supports = [features for features, *_ in encoded]
        self.markings = {name: markings for name, (_, markings, _) in zip(lists, encoded, strict=True)}
        self.names = tuple(lists) if isinstance(images, Mapping) else None
        pictures = [picture for pair in lists.values() for part in pair for picture in part]
        self.support_files = frozenset(Path(p).resolve() for p in pictures if isinstance(p, str | os.PathLike))

    def predict(self, image: Picture) -> NDArray[np.bool_]:
        """(H, W) bool mask of the one class; UsageError where there are several: `predict_labels`, `predict_each`."""
        return self.predict_full(image).mask

    def predict_proba(self, image: Picture) -> NDArray[np.float32]:
        """(H, W) float32 foreground probability of the one class, above 0.5 where `predict` says foreground."""
        return self.predict_full(image).proba

    def predict_full(self, image: Picture) -> Result:
        """Mask, probability and correlation maps of the one class."""
        return only(self.predict_each(image))

    def predict_labels(self, image: Picture) -> NDArray[np.uint8]:
        """(H, W) uint8 labels of all classes: 0 background, 1.. the classes in their order; see `label_map`."""
        return label_map(result.proba for result in self.predict_each(image).values())

    def predict_each(self, image: Picture, *, query: Any = None) -> dict[str, Result]:
        """The result of every class by its name, `object` where it has none; the photo is encoded once for all, or is
        `query` already.
        """
        if not self._supports:
            raise UsageError("there is no support yet; call set_support(images, masks) before predicting")
        photo = pixels_of(image, self.pictures)
        query = self.engine.encode_query(photo) if query is None else query
        results = {}
        for name, support in zip(self.names or ("object",), self._supports, strict=True):
            proba, correlations, presence = self.engine.match(query, support, size=photo.shape[:2])
            results[name] = Result(proba > 0.5, proba, correlations, presence)
        return results

    def _encode(
        self, name: str, images: Sequence[Picture], masks: Sequence[Mask], label: Label | None, how: dict[str, str]
    ) -> tuple[Any, tuple[Marking, ...], list[int]]:
        """Encoded supports, how their masks were understood, and the longer sides of their photos."""
        side, markings, sides = self.engine.image_size, list[Marking](), list[int]()

        def read() -> Iterator[tuple[Pixels, NDArray[np.uint8]]]:  # one photo at a time in memory
            for number, (image, mask) in enumerate(zip(images, masks, strict=True), start=1):
                what = str(mask) if isinstance(mask, str | os.PathLike) else f"mask {number} of {name!r}"
                photo, marking = read_support(image, mask, label=label, name=what, pictures=self.pictures)
                squeezed = nearest(marking.mask, side)
                if not (squeezed == 1).any():
                    vanish = f"{what} marks only {counted((marking.mask == 1).sum(), 'pixel')}, which vanish at"
                    raise DataError(f"{vanish} {side} x {side}; crop its image and mask closer")
                markings.append(marking)
                sides.append(max(photo.shape[:2]))
                yield photo, squeezed

        encoded = self.engine.encode_support(read(), **how)
        check_one_value(masks, (marking.value for marking in markings))
        return encoded, tuple(markings), sides


def only(results: Mapping[str, Result]) -> Result:
    """The result of one class; UsageError where there are several."""
    if len(results) > 1:
        raise UsageError(f"there are several classes ({', '.join(results)}); call predict_labels or predict_each")
    return next(iter(results.values()))


def read_support(
    image: Picture,
    mask: Mask,
    *,
    label: Label | None = None,
    name: str,
    pictures: PictureRule = AS_IT_IS,
    may_be_empty: bool = False,
) -> tuple[Pixels, Marking]:
    """A support's picture (H, W, 3), uint8 or float32 in [0, 1], and what its mask marks on it, turned as it was.

    `name` is for messages. DataError where nothing is marked or the sizes differ, UsageError where the mask may mean
    several things; a DataWarning where nothing is background. With `may_be_empty` a mask may mark nothing.
    """
    photo, orientation = _pixels(image, pictures)
    marking = _grown(photo, mask, name) if isinstance(mask, Marks) else _marking(mask, label, name)
    aligned = marking.mask
    if not marking.upright or aligned.shape != photo.shape[:2]:
        aligned = align_mask(aligned, (photo.shape[1], photo.shape[0]), orientation=orientation, name=name)
    turned = "" if aligned is marking.mask else ", turned as its photo is"
    marking = replace(marking, mask=aligned, meaning=marking.meaning + turned)
    if not marking.share and not may_be_empty:
        advice = "mark the object with 255 on a background of 0" if label is None else "give a label that it holds"
        raise DataError(f"{name} marks nothing ({marking.meaning}): no pixel is foreground; {advice}")
    if aligned.all():
        warnings.warn(DataWarning(f"{name} leaves nothing as background ({marking.meaning})"), stacklevel=2)
    return photo, marking


def _grown(photo: Pixels, marks: Marks, name: str) -> Marking:
    """The mask that marks on a photo mean."""
    pixels = photo if photo.dtype == np.uint8 else np.rint(255 * photo.clip(0, 1)).astype(np.uint8)
    return marking_from_marks(Image.fromarray(pixels), marks, name)


def nearest(mask: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A mask (H, W) squeezed to (side, side) by its nearest pixels, as torch chooses them."""
    rows, columns = (
        np.minimum(np.arange(side, dtype=np.float32) * (np.float32(n) / np.float32(side)), n - 1).astype(int)
        for n in mask.shape
    )
    return mask[rows[:, None], columns]


def listed(name: str, value: Any) -> tuple[list[Picture], list[Mask]]:
    """A class's supports as equal lists of pictures and masks; UsageError where they are not."""
    if not (isinstance(value, tuple | list) and len(value) == 2):
        raise UsageError(f"the support of {name!r} is not a pair; give {{{name!r}: (images, masks)}}")
    images, masks = value
    masks = [] if masks is None else masks
    pictures, marks = (list(part) if isinstance(part, list | tuple) else [part] for part in (images, masks))
    if len(pictures) != len(marks) or not pictures:
        raise UsageError(
            f"{name!r} has {counted(len(pictures), 'image')} and {counted(len(marks), 'mask')}; give one mask for each "
            "image, at least one"
        )
    return pictures, marks


def eight_bit(photo: Pixels) -> NDArray[np.uint8]:
    """A photo (H, W, 3) of uint8 or of float in [0, 1] as uint8."""
    return photo if photo.dtype == np.uint8 else np.rint(255 * photo.clip(0, 1)).astype(np.uint8)


def pixels_of(image: Picture, rule: PictureRule) -> Pixels:
    """(H, W, 3) uint8, or float32 in [0, 1]; UsageError or DataError where it is no picture."""
    return _pixels(image, rule)[0]


def _pixels(image: Picture, rule: PictureRule) -> tuple[Pixels, int]:
    """(H, W, 3) uint8, or float32 in [0, 1], and the EXIF orientation that was applied to a file."""
    if isinstance(image, str | os.PathLike):
        photo, orientation = read_oriented(image, rule)
        return np.asarray(photo), orientation
    if isinstance(image, Image.Image):
        return np.asarray(to_rgb(image, rule)), 1
    if hasattr(image, "detach"):
        image = _channels_last(image)
    if isinstance(image, np.ndarray):
        return _rgb(image, rule), 1
    raise UsageError(f"a {type(image).__name__} is no image; give a path, a Pillow image, an array or a tensor")


def _channels_last(image: Any) -> NDArray[Any]:
    """(H, W, 3) uint8 or float from a tensor (3, H, W)."""
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise UsageError(f"an image tensor of shape {tuple(image.shape)} was given; it must be (3, H, W)")
    pixels = _array(image)
    if pixels.dtype != np.uint8 and pixels.dtype.kind != "f":
        raise UsageError(f"an image tensor of {image.dtype} was given; use float in [0, 1] or uint8")
    return np.moveaxis(pixels, 0, -1)


def _array(tensor: Any) -> NDArray[Any]:
    """A tensor's values; 16-bit floats, which numpy may not have, as 32-bit ones."""
    values = tensor.detach().cpu()
    return (values.float() if values.is_floating_point() else values).numpy()


def _rgb(image: NDArray[Any], rule: PictureRule) -> NDArray[Any]:
    """(H, W, 3) uint8 or float in [0, 1] from an array of 1, 3 or 4 channels; transparent parts become white.

    Whole numbers up to 255 are 8-bit ones, unless their type is uint16: deep pictures' own.
    """
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise UsageError(f"an image array of shape {image.shape} was given; it must be (H, W), (H, W, 3) or (H, W, 4)")
    if np.issubdtype(image.dtype, np.integer):
        if image.dtype != np.uint16 and image.min() >= 0 and image.max() <= 255:
            image = image.astype(np.uint8)
        levels = to_eight_bit(image, rule)
        return np.asarray(to_rgb(Image.fromarray(levels[..., 0] if image.shape[2] == 1 else levels)))
    if not (np.issubdtype(image.dtype, np.floating) or image.dtype == bool):
        raise UsageError(f"an image array of {image.dtype} was given; use uint8, uint16, or float in [0, 1]")
    values = image.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not (low >= -0.01 and high <= 1.01):  # resampling may overshoot a little; NaN is refused too
        raise UsageError(f"a float image holds values from {low:g} to {high:g}; scale it to [0, 1] or give uint8")
    if values.shape[2] == 4:
        alpha = values[..., 3:]
        return values[..., :3] * alpha + (1 - alpha)
    return np.broadcast_to(values, (*values.shape[:2], 3))


def _marking(mask: Mask, label: Label | None, name: str) -> Marking:
    """What any kind of mask marks."""
    if isinstance(mask, Marking):
        return mask
    if isinstance(mask, str | os.PathLike):
        return read_marking(mask, named_value(Path(mask), label))
    if hasattr(mask, "detach"):
        mask = _array(mask)
    if not isinstance(mask, Image.Image | np.ndarray):
        raise UsageError(f"{name} is a {type(mask).__name__}; give a path, a Pillow image, or an array (H, W)")
    return marking_of(mask, label, name=name)
