"""`accelerate(model)`: a view of a model that computes the same numbers in quicker ways.

A view is another network around the very same parameters and buffers: what trains, moves or loads one does so to both.
Its modules are instances of quicker subclasses, one for each plain class in `QUICKER`; everything else is as it was.
The training mode is each one's own.
"""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

from fewseg.models.fast.backbones import FoldedResidualBlock, QuickResNet, QuickTimmPyramid, QuickTimmViT, QuickVGG
from fewseg.models.fast.folding import FoldedSequential
from fewseg.models.fast.matching import ForegroundAttention, ForegroundNearest, ForegroundPrior
from fewseg.models.fast.one_by_one import OneByOne, ShotByShotHSNet
from fewseg.models.fast.pyramid import FoldedBaseHead
from fewseg.models.hdmnet import CorrelationAttention, HDMNet
from fewseg.models.hsnet import HSNet
from fewseg.models.lite import Lite
from fewseg.models.parts.backbones import VGG, ResidualBlock, ResNet, TimmPyramid, TimmViT
from fewseg.models.parts.base_learner import BaseHead
from fewseg.models.parts.matching import CosinePrior, NearestCosines

Network = TypeVar("Network", bound=nn.Module)

QUICKER: dict[type[nn.Module], type[nn.Module]] = {
    nn.Sequential: FoldedSequential,
    ResidualBlock: FoldedResidualBlock,
    ResNet: QuickResNet,
    VGG: QuickVGG,
    TimmPyramid: QuickTimmPyramid,
    TimmViT: QuickTimmViT,
    BaseHead: FoldedBaseHead,
    CosinePrior: ForegroundPrior,
    NearestCosines: ForegroundNearest,
    CorrelationAttention: ForegroundAttention,
    HSNet: ShotByShotHSNet,
}


def accelerate(model: Network) -> Network:
    """A view of a segmenter or a base learner with the same parameters and, within 1e-4, the same numbers.

    For use and for training: what is not trained is folded and kept to the foreground, what is trained gets the plain
    network's gradients. The back-end's weights are laid out channels last, in the model too; no value changes. A view
    of a view is itself, and a model without parameters (exported graphs) has none.
    """
    if getattr(model, "is_view", False) or next(model.parameters(), None) is None:
        return model
    view = _view(model)
    if isinstance(model, HDMNet | Lite):
        cls = type(view)
        view.__class__ = type(f"Quick{cls.__name__}", (OneByOne, cls), {"__module__": __name__})
    view.is_view = True
    return view


def _view(module: Any) -> Any:
    """A module of the quicker class around the same parameters and buffers, its parts likewise."""
    quicker = QUICKER.get(type(module))
    view: Any = object.__new__(quicker or type(module))
    view.__dict__.update(module.__dict__)  # the dicts of parameters and buffers are shared: a change shows in both
    shared = getattr(quicker, "shares", ())
    view._modules = {n: m if m is None or n in shared else _view(m) for n, m in module._modules.items()}
    if quicker is not None and hasattr(quicker, "lay_out"):
        view.lay_out()
    return view
