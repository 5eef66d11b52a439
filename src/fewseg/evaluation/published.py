"""Numbers that the papers print. They need the full data sets and a GPU, and are never mixed with measured ones."""

from __future__ import annotations

from fewseg.data.source import ImageSource
from fewseg.errors import UsageError

CAPTION = "published: the papers' mIoU on ResNet-50 and the full data set, mean over its four folds"

_MIOU: dict[str, dict[str, tuple[float, float | None]]] = {
    "pascal5i": {"pfenet": (60.8, 61.9), "hsnet": (64.0, 69.5), "bam": (67.8, 70.9), "hdmnet": (69.4, 71.8)},
    "coco20i": {
        "pfenet": (35.8, 39.0),
        "hsnet": (39.2, 46.9),
        "bam": (46.2, 51.2),
        "hdmnet": (50.0, 56.0),
        "hdmnet without base learner": (48.7, None),
    },
}
"""Per cent, 1-shot and 5-shot."""
_TEST_IMAGES = {"pascal5i": (1449,), "coco20i": (40137, 40504)}
"""VOC 2012 val; COCO val2014 without and with its images that hold no class."""


def check_full(source: ImageSource) -> None:
    """Raise UsageError unless the test subset is, by its name and its number of images, the papers' whole one."""
    if source.name not in _TEST_IMAGES:
        raise UsageError(f"there are no published numbers on {source.name}; they are on {' and '.join(_TEST_IMAGES)}")
    if refused := why_not_beside(source):
        raise UsageError(f"{refused}; leave --published away, or give the full data set")


def why_not_beside(source: ImageSource, *, backbone: str = "resnet50") -> str:
    """Why the papers' numbers cannot stand beside those measured on a source with a back-end; empty where they can."""
    images, full = len(source.index.ids), _TEST_IMAGES.get(source.name, ())
    if images not in full:
        theirs = f", the papers' has {full[-1]}" if full else ", and is none of the papers'"
        told = f"this {source.name} has {images} test images{theirs}"
        return f"{told}: their numbers cannot stand beside those measured here"
    if not _is_papers(backbone):
        return f"the papers' back-end is resnet50, this one is {backbone}"
    return ""


def _is_papers(backbone: str) -> bool:
    return backbone.removesuffix("-ds") == "resnet50"


def published_miou(method: str, *, dataset: str, backbone: str, shots: int, base_learner: bool = True) -> float | None:
    """The paper's mIoU in per cent; None where it prints none for this back-end and number of shots.

    `base_learner` is False for HDMNet's meta learner alone.
    """
    numbers = _MIOU.get(dataset, {}).get(method if base_learner else f"{method} without base learner")
    if numbers is None or shots not in (1, 5) or not _is_papers(backbone):
        return None
    return numbers[0] if shots == 1 else numbers[1]
