"""Extracted features in a folder, for several runs: of other seeds, folds or heads on the same frozen back-end.

Every view of an image is one file, written under another name and moved into place, so runs may share it while they
run. What extraction depends on names the folder inside: other photos, weights or code, another image size or
augmentation find nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from fewseg.data.dataset import ImageLabels
from fewseg.data.fingerprint import code_fingerprint, photos_fingerprint, source_classes
from fewseg.data.source import ImageSource
from fewseg.data.transforms import AugmentConfig
from fewseg.files import read_sealed, replacing, write_sealed
from fewseg.models.base import Features, FewShotSegmenter
from fewseg.models.hub_model import cpu_state, model_options

PACKAGES = ("fewseg", "torch", "torchvision", "timm", "numpy", "pillow")
_MARK = b"fewseg features 1 sha256 "


class FeatureStore:
    """Features and labels by key, in files under `folder`; `classes` are those that views are cut by, () all."""

    news: str
    """What to tell where there are features in `folder`, but none that fit; else empty."""

    def __init__(
        self,
        folder: Path,
        model: FewShotSegmenter,
        source: ImageSource,
        augment: AugmentConfig,
        *,
        classes: tuple[int, ...] = (),
    ) -> None:
        depends = {
            "versions": {name: version(name) for name in PACKAGES},
            "code": code_fingerprint(type(model), *source_classes(source)),
            "method": model.name,
            # what the number of base classes and shots changes besides is in the frozen tensors, which are hashed
            "options": {
                key: value for key, value in model_options(model).items() if key not in ("base_classes", "shots")
            },
            "device": model.device.type,
            "frozen": frozen_hash(model),
            "image_size": model.image_size,
            "augment": asdict(augment),
            "classes": classes,
            "data": [source.name, source.subset, source.index.sha256],
            "photos": photos_fingerprint(source),
        }
        text = json.dumps(depends, indent=2, sort_keys=True)
        self.folder = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.news = "" if self.folder.exists() else _what_is_new(folder, json.loads(text))
        with replacing(self.folder / "depends.json") as work:
            work.write_text(text)

    def get(self, key: tuple[Any, ...]) -> tuple[Features, ImageLabels] | None:
        """What was put under the key; None where nothing was, or the file is damaged."""
        try:
            content = read_sealed(self._path(key), mark=_MARK)
        except FileNotFoundError:
            return None
        if content is None:  # another value would give other features in silence
            return None
        tensors = safetensors.torch.load(content)
        labels = ImageLabels(tensors.pop("labels"), tuple(tensors.pop("class_ids").tolist()), tensors.pop("masks"))
        return dict(_unpacked(name, tensor) for name, tensor in tensors.items()), labels

    def put(self, key: tuple[Any, ...], features: Features, labels: ImageLabels) -> None:
        """Keep features and the labels of their view."""
        tensors = dict(_packed(name, f) for name, f in features.items())
        ids = torch.tensor(labels.class_ids, dtype=torch.int64)
        tensors |= {"labels": labels.local.contiguous(), "class_ids": ids, "masks": labels.masks.contiguous()}
        with replacing(self._path(key)) as work:
            write_sealed(work, safetensors.torch.save(tensors), mark=_MARK)

    def _path(self, key: tuple[Any, ...]) -> Path:
        return self.folder / ("-".join(str(part) for part in key) + ".features")


def _what_is_new(folder: Path, depends: dict[str, Any]) -> str:
    """What differs from the features in `folder` that fit best; empty where there are none."""
    found = []
    for file in folder.glob("*/depends.json"):
        try:
            known = dict(json.loads(file.read_text()))
        except (ValueError, TypeError, RecursionError):  # it is damaged, and says nothing
            continue
        found.append([key for key in depends if known.get(key) != depends[key]])
    if not found:
        return ""
    return f"{folder} holds features of other settings ({', '.join(min(found, key=len))}); they are extracted anew"


_LAST = "@channels_last"


def _packed(name: str, f: Tensor) -> tuple[str, Tensor]:
    """A file keeps no memory layout, on which the last bits of a sum depend; so channels-last maps are marked."""
    last = f.ndim >= 4 and not f.is_contiguous() and f.movedim(-3, -1).is_contiguous()
    return (name + _LAST, f.movedim(-3, -1)) if last else (name, f.contiguous())


def _unpacked(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    return (name.removesuffix(_LAST), tensor.movedim(-1, -3)) if name.endswith(_LAST) else (name, tensor)


def frozen_hash(model: FewShotSegmenter) -> str:
    """Of all tensors that training does not change."""
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name: tensor for name, tensor in cpu_state(model).items() if name not in trained}
    return hashlib.sha256(safetensors.torch.save(frozen)).hexdigest()
