"""Frozen parts one image at a time, and shots one after the other: the memory of one, whatever the batch. On a GPU a
single image's work is one graph.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewseg.episode import Episode, Prediction
from fewseg.models.base import Features, FewShotSegmenter
from fewseg.models.fast.recorded import Recordings, recordable
from fewseg.models.hsnet import HSNet


class OneByOne(FewShotSegmenter):
    """HDMNet or lite whose frozen parts see one image at a time on a CPU, as supports' whole encoding does in use.

    That is no slower there, and what an image met in a batch cannot change its numbers. Other devices get the batch.
    """

    @property
    def _recordings(self) -> Recordings:
        return self.__dict__.setdefault("_recorded", Recordings())

    def forward(self, episode: Episode) -> Prediction:
        image = episode.query_image
        if torch.is_grad_enabled() or not (image.device.type == "cpu" or recordable(self, image)):
            return super().forward(episode)
        query = self.encode_query(episode.query_image)
        support = self.encode_support(episode.support_images, episode.support_masks)
        return self.match(query, support, size=episode.size, base_index=episode.base_index)

    def extract_query(self, image: Tensor) -> Features:
        extract = super().extract_query
        if recordable(self, image):
            return self._recordings.of(self, "extract_query", extract, image)
        if image.device.type != "cpu" or len(image) == 1:
            return extract(image)
        return _one_by_one(lambda i: extract(image[i : i + 1]), len(image))

    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        return _each_shot(super().extract_support, images, masks)

    def encode_query(self, image: Tensor) -> Features:
        encode = super().encode_query
        return self._recordings.of(self, "encode_query", encode, image) if recordable(self, image) else encode(image)

    def encode_support(self, images: Tensor, masks: Tensor, class_id: Tensor | None = None) -> Features:
        """What a support is embedded from, twice the size of what is kept, is not there beside the next one's."""
        encode = super().encode_support
        if recordable(self, images):
            return self._recordings.of(self, "encode_support", encode, images, masks)
        return encode(images, masks) if torch.is_grad_enabled() else _each_shot(encode, images, masks)


class ShotByShotHSNet(HSNet):
    """HSNet whose 4D correlations are those of one shot at a time."""

    def each_shot(self, query: Features, support: Features) -> tuple[Tensor, ...]:
        shots = next(iter(support.values())).shape[1]
        apart = [self.match_one(query, {name: f[:, k] for name, f in support.items()}) for k in range(shots)]
        return tuple(torch.stack(found, 1) for found in zip(*apart, strict=True))


def _each_shot(of: Callable[[Tensor, Tensor], Features], images: Tensor, masks: Tensor) -> Features:
    """Features `of` supports (B, K, 3, H, W) and masks (B, K, H, W), on a CPU each on its own."""
    b, k = images.shape[:2]
    if images.device.type != "cpu" or b * k == 1:
        return of(images, masks)

    def shot(i: int) -> Features:
        image, mask = (t.flatten(0, 1)[i : i + 1].unsqueeze(0) for t in (images, masks))
        return {name: f.flatten(0, 1) for name, f in of(image, mask).items()}

    return {name: f.unflatten(0, (b, k)) for name, f in _one_by_one(shot, b * k).items()}


def _one_by_one(extract: Callable[[int], Features], count: int) -> Features:
    """Features of `count` images, extracted each on its own."""
    whole: Features = {}
    for i in range(count):
        features = extract(i)
        for name, f in features.items():
            if i == 0:
                whole[name] = _like(f, count)
            whole[name][i] = f[0]
        del features, f  # not beside the next image's
    return whole


def _like(features: Tensor, batch: int) -> Tensor:
    """An empty tensor of another batch size, in the same memory layout."""
    last = features.ndim == 4 and features.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty((batch, *features.shape[1:]), dtype=features.dtype, device=features.device, memory_format=layout)
