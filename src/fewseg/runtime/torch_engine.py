"""A network in torch as an engine."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewseg.build import pick_device
from fewseg.errors import check_choice
from fewseg.models.answers import checked
from fewseg.models.base import Features, FewShotSegmenter
from fewseg.models.fast import accelerate
from fewseg.models.fast.compiling import compile_backbone
from fewseg.models.in_use import in_use
from fewseg.models.parts.ops import resize, resize_ac
from fewseg.models.untrained import as_method, methods_of
from fewseg.runtime.engine import Answer, Pixels, check_looks_once


class TorchEngine:
    """A few-shot model, moved to `device` (None leaves it where it is) and put into evaluation mode.

    Photos are squeezed to its square (bilinear without antialiasing, as the papers evaluate), and logits resized to the
    photo's own size with align_corners=True. `method` dense or prototype matches a lite model's features without what
    was trained (`fewseg.models.untrained`), and looks once; the other options are those of `FewShotPredictor`.
    """

    runtime = f"torch {torch.__version__}"
    lanes = 1

    def __init__(
        self,
        model: FewShotSegmenter,
        *,
        device: str | None = None,
        flip: bool = False,
        refine: str = "none",
        compile: bool = False,
        precision: str = "fp32",
        weights: str = "",
        method: str | None = None,
    ) -> None:
        self.name, self.weights = model.name, weights
        self.device = model.device if device is None else pick_device(device)
        model = accelerate(model.to(self.device).eval())
        if compile and (hindrance := compile_backbone(model)):
            warnings.warn(f"the back-end is not compiled: {hindrance}", stacklevel=2)
        self.methods = methods_of(model)
        self.method = method or model.name
        check_choice("method", self.method, self.methods)
        check_looks_once(self.method, refine, own=model.name)
        own, flip = in_use(model, flip=flip, refine=refine, precision=precision).eval(), flip or refine == "best"
        others = {name: in_use(as_method(model, name), flip=flip, precision=precision) for name in self.methods[1:]}
        self._by_method = {model.name: own} | {name: other.eval() for name, other in others.items()}
        self.model = self._by_method[self.method]
        self.image_size, self.tells_presence = model.image_size, self.model.tells_presence
        self._side = (model.image_size, model.image_size)
        self.takes_classes = self.model.takes_classes
        self._names: list[str] = []

    @torch.inference_mode()
    def encode_support(self, supports: Iterable[tuple[Pixels, NDArray[np.uint8]]], name: str = "") -> Features:
        """As of any engine; `name` is the class's, for a model that takes it."""
        squeezed = [(self._squeezed(image)[0], torch.tensor(mask)) for image, mask in supports]
        images, masks = (torch.stack(part)[None].to(self.device) for part in zip(*squeezed, strict=True))
        if not self.takes_classes:
            return self.model.encode_support(images, masks)
        if name not in self._names:
            self._names.append(name)
            self.model.name_classes(self._names)
        return self.model.encode_support(images, masks, torch.tensor([1 + self._names.index(name)]))

    def as_support(self, query: Features, mask: NDArray[np.uint8]) -> None:
        return None  # the trained half has changed what a support begins with

    def joined(self, supports: Sequence[Features]) -> Features:
        # the contract of features: the batch is their first dimension, the supports their second
        return {name: torch.cat([support[name] for support in supports], 1) for name in supports[0]}

    def kept(self, support: Features) -> dict[str, NDArray[Any]]:
        return {name: value.cpu().numpy() for name, value in support.items()}

    def restored(self, arrays: dict[str, NDArray[Any]]) -> Features:
        return {name: torch.from_numpy(value).to(self.device) for name, value in arrays.items()}

    @torch.inference_mode()
    def encode_query(self, image: Pixels) -> Features:
        return self.model.encode_query(self._squeezed(image).to(self.device))

    @torch.inference_mode()
    def match(self, query: Features, support: Features, *, size: tuple[int, int], method: str | None = None) -> Answer:
        check_choice("method", method or self.method, self.methods)
        model = self._by_method[method or self.method]
        prediction = checked(model.match(query, support, size=self._side), model, count=1, size=self._side)
        proba = resize_ac(prediction.logits.float(), size).softmax(1)[0, 1].cpu().numpy()
        correlations = tuple(correlation[0].float().cpu().numpy() for correlation in prediction.correlations)
        told = prediction.presence
        return Answer(proba, correlations, None if told is None else float(told.float().sigmoid()))

    def _squeezed(self, image: Pixels) -> Tensor:
        """(1, 3, image_size, image_size)."""
        scale = 255.0 if image.dtype == np.uint8 else 1.0
        return resize(torch.tensor(image).permute(2, 0, 1)[None].float() / scale, self._side)
