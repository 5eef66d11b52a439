"""PASCAL-5i (Shaban et al. 2017): VOC 2012 with SBD's annotations (Hariharan et al. 2011), in four folds."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewseg.data.images import read_labels
from fewseg.data.index import Indexed, build_index, read_list
from fewseg.data.matlab import read_field
from fewseg.data.source import Fold, SourceIndex, make_fold
from fewseg.errors import DataError, check_choice
from fewseg.progress import counted

SBD_RULES = ("auto", "train_noval", "all", "none")


class Pascal5i(Indexed):
    """VOC 2012 in `root`/VOC2012, `root`/VOCdevkit/VOC2012 or `root` itself, and SBD beside it in `root`/SBD.

    Training images by `sbd`: `train_noval` (the papers': SBD train without VOC val, and VOC train), `all` (SBD and VOC
    train without VOC val), `none` (VOC train), `auto` (train_noval where SBD's list is there, else all where
    SegmentationClassAug is, else none). Test images: VOC val. An image's labels are SegmentationClassAug's, else
    SegmentationClass's, else those of SBD's .mat file.
    """

    name = "pascal5i"
    min_pixels = 2048
    class_names: tuple[str, ...] = (
        *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
        *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
    )

    def __init__(self, *, subset: str = "train", root: str | None = None, sbd: str = "auto") -> None:
        super().__init__(subset, root, holds="VOC2012")
        check_choice("sbd", sbd, SBD_RULES)
        self.voc = _find_voc(self.root)
        self.sbd = self._found_rule() if sbd == "auto" else sbd
        self._guessed = sbd == "auto" and subset == "train" and self.sbd != "train_noval"

    def describe(self) -> dict[str, Any]:
        """What was found: the rule of the training list, and how many label maps come from where."""
        kinds = Counter(sorted(path.parent.name for path in self._labels))
        return super().describe() | {"voc": str(self.voc), "sbd": self.sbd, "labels": dict(kinds)}

    def labels(self, i: int) -> NDArray[np.uint8]:
        """The (H, W) label map of image `i` alone: 0 background, 1..20 classes, 255 void."""
        path = self._labels[i]
        return _read_mat(path) if path.suffix == ".mat" else read_labels(path)

    def image_path(self, i: int) -> Path:
        """The photo's file; SBD's own copy where VOC's is not there."""
        path = self.voc / "JPEGImages" / f"{self.ids[i]}.jpg"
        return path if path.exists() else self._sbd_file(f"img/{self.ids[i]}.jpg") or path

    def fold(self, index: int) -> Fold:
        """Novel classes 5 * index + 1 .. 5 * index + 5; the other 15 are base."""
        return make_fold(index, classes=20)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Image ids: VOC's own order for `test`, ascending for `train`."""
        if self.subset == "test":
            return tuple(self._voc_list("val"))
        return tuple(sorted((self._sbd_ids() | set(self._voc_list("train"))) - set(self._voc_list("val"))))

    def _build_index(self) -> SourceIndex:
        if absent := [i for i, path in enumerate(self._labels) if not path.exists()]:
            own = set(self._voc_list("train" if self.subset == "train" else "val"))
            if nothing := [self.ids[i] for i in absent if self.ids[i] in own and not self.image_path(i).exists()]:
                raise DataError(
                    f"{len(nothing)} of {len(self.ids)} images that {self.voc / 'ImageSets' / 'Segmentation'} lists "
                    f"have neither photo nor label map, the first is {nothing[0]}; put their files into {self.voc}, or "
                    "take them out of the list (`fewseg data check` names all)"
                )
            raise DataError(
                f"{len(absent)} of {len(self.ids)} images of {self.voc} have no label map, the first is "
                f"{self.ids[absent[0]]}; looked in SegmentationClassAug, SegmentationClass and SBD's cls."
                f" Put SBD into {self.root / 'SBD'}, or give data.sbd=none"
            )
        if self._guessed:
            files = "SegmentationClassAug" if self.sbd == "all" else "VOC's own training list"
            self.progress.log(
                f"note: {self.voc} is read as data.sbd={self.sbd} ({files}, {len(self.ids)} images); the list that "
                f"most papers train on, data.sbd=train_noval, needs SBD in {self.root / 'SBD'}"
            )
        return self.counted(self._labels, key=f"pascal5i-{self.subset}-{self.sbd}", root=self.voc)

    @cached_property
    def coarse(self) -> SourceIndex:
        """The index of the label maps' every 32nd pixel along both sides, by which OSLSM made the lists that HSNet has.

        Its masks, shrunk to 1/32 by their nearest pixel, are sampled half-way between two pixels; which of the two it
        is was left to rounding errors, so a few pairs of the lists are others.
        """
        return build_index(
            self.index.ids,
            lambda i: self.labels(i)[::32, ::32],
            self._labels,
            classes=len(self.class_names),
            root=self.voc,
            key=f"pascal5i-{self.subset}-{self.sbd}-coarse",
            progress=self.progress,
        )

    @cached_property
    def _labels(self) -> list[Path]:
        """The file of every image's label map; where there is none, the place where VOC's would be."""
        folders = [self._sbd_file("cls"), self.voc / "SegmentationClass", self.voc / "SegmentationClassAug"]
        known: dict[str, Path] = {}
        for folder in folders:
            if folder and folder.is_dir():
                known |= {path.stem: path for path in folder.iterdir() if path.suffix in (".png", ".mat")}
        return [known.get(i, self.voc / "SegmentationClass" / f"{i}.png") for i in self.ids]

    def _voc_list(self, name: str) -> list[str]:
        ids = read_list(path := self.voc / "ImageSets" / "Segmentation" / f"{name}.txt")
        if paths := [i for i in ids if "/" in i or i.endswith(".jpg")]:
            raise DataError(
                f"{path} lists paths, as papers' lists do ({paths[0]}, {len(paths)} of {counted(len(ids), 'line')}); "
                "VOC's own have the images' bare ids there (2007_000033). Put that list back, or keep of each line the "
                f"first file's name without its folder and .jpg: {Path(paths[0]).stem}"
            )
        return ids

    def _sbd_file(self, name: str) -> Path | None:
        """A file or folder of SBD, wherever its archive was unpacked."""
        bases = [base / "SBD" for base in (self.root, self.voc.parent, self.voc)]
        found = (base / inner / name for base in bases for inner in ("", "dataset", "benchmark_RELEASE/dataset"))
        return next((path for path in found if path.exists()), None)

    def _found_rule(self) -> str:
        if self._sbd_file("train_noval.txt") or self._sbd_file("train.txt"):
            return "train_noval"
        return "all" if (self.voc / "SegmentationClassAug").is_dir() else "none"

    def _sbd_ids(self) -> set[str]:
        """The images of SBD that the rule asks for (VOC val still among them)."""
        if self.sbd == "none":
            return set()
        if self.sbd == "train_noval":
            if found := self._sbd_file("train_noval.txt") or self._sbd_file("train.txt"):
                return set(read_list(found))
            raise self._absent("train.txt or train_noval.txt")
        train, val = self._sbd_file("train.txt"), self._sbd_file("val.txt")
        if train and val:
            return set(read_list(train)) | set(read_list(val))
        if (aug := self.voc / "SegmentationClassAug").is_dir():
            return {path.stem for path in aug.glob("*.png")}
        raise self._absent("train.txt and val.txt")

    def _absent(self, files: str) -> DataError:
        return DataError(
            f"data.sbd={self.sbd} needs SBD's {files} in {self.root / 'SBD'} or {self.root / 'SBD' / 'dataset'};"
            " unpack SBD's benchmark.tgz there, or give data.sbd=none for VOC's own list"
        )


def _find_voc(root: Path) -> Path:
    for voc in (root / "VOC2012", root / "VOCdevkit" / "VOC2012", root):
        if (voc / "ImageSets" / "Segmentation").is_dir():
            return voc
    raise DataError(
        f"no VOC 2012 in {root}: give data.root the directory that holds VOC2012/ImageSets/Segmentation"
        " (or VOCdevkit/VOC2012, or VOC2012 itself)"
    )


def _read_mat(path: Path) -> NDArray[np.uint8]:
    """The (H, W) label map of an SBD `cls` file."""
    try:
        labels = read_field(path, "GTcls", "Segmentation")
        if labels.ndim != 2 or not labels.size or not (np.isin(labels, range(256))).all():
            raise ValueError(f"its labels are {labels.dtype} of shape {labels.shape}")
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is not a label file of SBD ({error}); fetch it again") from error
    return np.ascontiguousarray(labels, dtype=np.uint8)
