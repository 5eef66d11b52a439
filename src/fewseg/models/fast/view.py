"""`accelerate(model)`: a view of a model that computes the same numbers in quicker ways.

A view is another network around the very same parameters and buffers: what trains, moves or loads one does so to both.
Its modules are instances of quicker subclasses, one for each plain class in `QUICKER`; everything else is as it was.
The training mode is each one's own, but for timm's networks, which are one network in both. Other attributes are those
that the model had when the view was made.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar

from torch import nn

from fewseg.models.base import FewShotSegmenter
from fewseg.models.fast.backbones import (
    FoldedResidualBlock,
    QuickResNet,
    QuickTimmPyramid,
    QuickTimmSwin,
    QuickTimmViT,
    QuickVGG,
)
from fewseg.models.fast.folding import FoldedSequential, MergedBottleneck
from fewseg.models.fast.matching import ForegroundAttention, ForegroundNearest, ForegroundPrior
from fewseg.models.fast.merge import SplitMerge
from fewseg.models.fast.one_by_one import OneByOne, ShotByShotHSNet
from fewseg.models.fast.pyramid import FoldedBaseHead
from fewseg.models.fast.together import EncodedTogether
from fewseg.models.fast.transformer import QuickDropout, QuickMixFFN
from fewseg.models.fast.winograd import QuickConv2d
from fewseg.models.hdmnet import Bottleneck, CorrelationAttention, HDMNet
from fewseg.models.hsnet import HSNet
from fewseg.models.hub_model import plain_model
from fewseg.models.lite import Lite
from fewseg.models.parts.backbones import VGG, ResidualBlock, ResNet
from fewseg.models.parts.base_learner import BaseHead, PSPNet
from fewseg.models.parts.matching import CosinePrior, NearestCosines
from fewseg.models.parts.merge import Merge
from fewseg.models.parts.segformer import MixFFN
from fewseg.models.parts.timm_backbones import TimmPyramid, TimmSwin, TimmViT

Network = TypeVar("Network", bound=nn.Module)

QUICKER: dict[type[nn.Module], type[nn.Module]] = {
    nn.Sequential: FoldedSequential,
    nn.Conv2d: QuickConv2d,
    nn.Dropout: QuickDropout,
    MixFFN: QuickMixFFN,
    Merge: SplitMerge,
    ResidualBlock: FoldedResidualBlock,
    ResNet: QuickResNet,
    VGG: QuickVGG,
    TimmPyramid: QuickTimmPyramid,
    TimmSwin: QuickTimmSwin,
    TimmViT: QuickTimmViT,
    BaseHead: FoldedBaseHead,
    CosinePrior: ForegroundPrior,
    NearestCosines: ForegroundNearest,
    CorrelationAttention: ForegroundAttention,
    Bottleneck: MergedBottleneck,
    HDMNet: EncodedTogether,
    HSNet: ShotByShotHSNet,
}


def accelerate(model: Network) -> Network:
    """A view of a segmenter or a base learner with the same parameters and, within 1e-4, the same numbers.

    For use and for training: what is not trained is folded and kept to the foreground, what is trained gets the plain
    network's gradients. The back-end's weights are laid out channels last, in the model too; no value changes. A view
    of a view is itself, and a model without parameters (exported graphs) has none. Saved, pickled or exported, a view
    is the model that it was made of.
    """
    if plain_model(model) is not model or next(model.parameters(), None) is None:
        return model
    return _view(model, QUICKER)


def _view(module: Any, table: dict[type[nn.Module], type[nn.Module]]) -> Any:
    """A module of the quicker class around the same parameters and buffers, its parts likewise."""
    if plain_model(module) is not module:
        return module
    quicker = table.get(type(module), type(module))
    view: Any = object.__new__(_one_by_one(quicker) if isinstance(module, HDMNet | Lite) else quicker)
    view.__dict__.update(module.__dict__)  # the dicts of parameters and buffers are shared: a change shows in both
    shared, plain = getattr(quicker, "shares", ()), getattr(quicker, "keeps_plain", ())
    view._modules = {
        name: part if part is None or name in shared else _view(part, {} if name in plain else table)
        for name, part in module._modules.items()
    }
    if isinstance(module, FewShotSegmenter | PSPNet):
        view.__dict__["_plain_model"] = module  # no part of the view
    if quicker is not type(module) and hasattr(quicker, "lay_out"):
        view.lay_out()
    return view


@functools.lru_cache
def _one_by_one(cls: type[Any]) -> type[Any]:
    """A method's class whose frozen parts see one image at a time."""
    return type(f"Quick{cls.__name__}", (OneByOne, cls), {"__module__": __name__, "__reduce__": _reduce})


def _reduce(view: Any) -> tuple[Any, ...]:
    """How a view is pickled, since its class has no place of its own: made anew of its model."""
    return accelerate, (plain_model(view),)
