"""Regions of photos that look alike to a frozen back-end: what labels leave unmarked becomes classes to train on.

sampled photos --> the back-end's last stages at every position --> 64 principal components --> K means
every photo: distances to the means, on its superpixels --> the nearest mean, where no second one is as near, and
nothing along the edge between two
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.cluster.vq import kmeans2
from scipy.ndimage import maximum_filter, minimum_filter
from torch import Tensor
from torch.nn import functional as F

from fewseg.data.episodes.sampling import training_images
from fewseg.data.fingerprint import photos_fingerprint
from fewseg.data.index import cached_arrays
from fewseg.data.region_classes import UNSURE, WithRegions, enlarged
from fewseg.data.source import Fold, ImageSource
from fewseg.data.transforms import Squeeze
from fewseg.errors import UsageError
from fewseg.features.store import frozen_hash
from fewseg.models.fast import accelerate
from fewseg.progress import Silent

VERSION = 2
"""Of the way that regions are found; others' maps are made anew."""
STAGES = 3
"""The last ones of the back-end: a region is to look alike, whatever its colour."""
SAMPLED, POSITIONS, COMPONENTS = 600, 60, 64
SIDE, FINE, SUPERPIXELS = 96, 192, 250
BAND = 5
"""Of the fine map's pixels, the width of what is void between two regions."""
LEAST, LEAD = 0.015, 0.02
"""Of a photo that a region covers at least; by which share the nearest mean must be nearer than the next."""


def with_regions(
    model: Any, source: ImageSource, fold: Fold, *, count: int, novel: str, progress: Silent
) -> tuple[WithRegions, Fold]:
    """The source with `count` regions as further classes, and the fold with them among the base classes.

    Found on the fold's training images alone, and kept beside the data as their index is. A label is never looked at
    but for where there is none. UsageError for more regions than a map's byte holds.
    """
    if count >= UNSURE:
        raise UsageError(f"train.regions={count}: a photo's map holds 254 at most")
    images = training_images(source, fold, novel=novel)
    depends = VERSION, torch.__version__, count, source.index.sha256, photos_fingerprint(source), frozen_hash(model)
    mark = hashlib.sha256(repr((depends, model.image_size, images.tolist())).encode()).hexdigest()
    # a source without a folder has none in the cache either, so that they lie among the indices there
    root = Path(getattr(source, "root", None) or platformdirs.user_cache_path("fewseg") / source.name)
    key = f"regions{count}-fold{fold.index}-{source.subset}"
    found = cached_arrays(
        lambda: _find(model, source, images, count=count, progress=progress), root=root, key=key, mark=mark
    )
    wrapped = WithRegions(source, images, found["maps"], found["counts"])
    return wrapped, wrapped.fold_with(fold)


def _find(
    model: Any, source: ImageSource, images: NDArray[np.int64], *, count: int, progress: Silent
) -> dict[str, NDArray[Any]]:
    """Maps (n, SIDE, SIDE) of the images, and the pixels (n, count) of every region where there is no label."""
    model = accelerate(model).eval()
    center, components, means = _means(model, source, images, count=count, progress=progress)
    maps = np.zeros((len(images), SIDE, SIDE), np.uint8)
    pixels = np.zeros((len(images), count), np.int64)
    for n, i in enumerate(progress(images.tolist(), "finding regions", len(images))):
        image, labels = source.load(i)
        features = _positions(model, image)
        at = (features.flatten(1).T.numpy() - center) @ components
        near = -np.sqrt(np.maximum((at**2).sum(1)[:, None] - 2 * at @ means.T + (means**2).sum(1), 0))
        maps[n] = _on_superpixels(near.T.reshape(count, *features.shape[1:]), image)
        shares = np.bincount(maps[n].ravel(), minlength=256)[:count] / maps[n].size
        maps[n][np.isin(maps[n], np.flatnonzero(shares < LEAST))] = UNSURE
        large = enlarged(maps[n], labels.shape)
        pixels[n] = np.bincount(large[labels == 0], minlength=256)[:count]
    return {"maps": maps, "counts": pixels}


def _means(
    model: Any, source: ImageSource, images: NDArray[np.int64], *, count: int, progress: Silent
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """What positions without a label look like: their centre (C,), components (C, 64) and K means (K, 64)."""
    sampled, found = images[:: max(1, len(images) // SAMPLED)], []
    for i in progress(sampled.tolist(), "looking for regions", len(sampled)):
        image, labels = source.load(i)
        features = _positions(model, image)
        (height, width), bare = features.shape[1:], torch.from_numpy((labels == 0).astype(np.float32))
        bare = F.adaptive_avg_pool2d(bare[None, None], (height, width))[0, 0] > 0.8
        some = np.random.default_rng(i).permutation(int(bare.sum()))[:POSITIONS]
        found.append(features[:, bare][:, some].T.numpy())
    every = np.concatenate(found)
    if len(every) <= count:
        raise UsageError(
            f"train.regions={count}, but the training images have unlabelled parts for {len(every)} at most; give 0"
        )
    center = every.mean(0)
    _, vectors = np.linalg.eigh(np.cov((every - center).T))
    components = vectors[:, -COMPONENTS:]
    means, _ = kmeans2((every - center) @ components, count, minit="++", iter=40, rng=np.random.default_rng(0))
    return center, components, means


@torch.inference_mode()
def _positions(model: Any, image: Image.Image) -> Tensor:
    """The back-end's last stages side by side (C, h, w), each of length 1 at every position of the coarsest one."""
    pixels, _ = Squeeze(model.image_size)(image, np.zeros((1, image.height, image.width), np.uint8))
    stages = list(model.backbone.stages(model.backbone.normalise(pixels[None])).values())[-STAGES:]
    height, width = stages[-1].shape[-2:]
    scaled = (F.layer_norm(f.movedim(1, -1), f.shape[1:2]).movedim(-1, 1) for f in stages)
    return torch.cat([F.normalize(F.adaptive_avg_pool2d(f, (height, width)), dim=1) for f in scaled], 1)[0]


def _on_superpixels(scores: NDArray[Any], image: Image.Image) -> NDArray[np.uint8]:
    """Scores (K, h, w), below 0, to a map (SIDE, SIDE) of the best one's number on every superpixel, or `UNSURE`."""
    from skimage.segmentation import slic  # takes a second

    small = np.asarray(image.resize((FINE, FINE), Image.Resampling.BOX))
    parts = slic(small, n_segments=SUPERPIXELS, compactness=8, start_label=0, channel_axis=-1).ravel()
    large = F.interpolate(torch.from_numpy(scores).float()[None], (FINE, FINE), mode="bilinear")[0].flatten(1).numpy()
    sizes = np.bincount(parts)
    means = np.stack([np.bincount(parts, weights=one) / sizes for one in large])
    ordered = np.sort(means, 0)
    sure = ordered[-1] - ordered[-2] > -LEAD * ordered[-1] if len(means) > 1 else np.ones(len(sizes), np.bool_)
    best = np.where(sure, means.argmax(0), UNSURE).astype(np.uint8)[parts].reshape(FINE, FINE)
    # a superpixel's edge is a guess, and taught as it is it would teach coarse edges
    inside = maximum_filter(best, BAND, mode="nearest") == minimum_filter(best, BAND, mode="nearest")
    return np.where(inside, best, UNSURE)[1 :: FINE // SIDE, 1 :: FINE // SIDE]
