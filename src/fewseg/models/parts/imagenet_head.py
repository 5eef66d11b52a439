"""The head with which an EfficientNet-Lite names ImageNet's thousand kinds of things, for telling whether two photos'
things are alike.
"""

from __future__ import annotations

from typing import Any

import scipy
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, NAMES = 1280, 1000
KINDS = (20, 30, 40)
"""Into how many groups the names are put, coarse to fine: with 40 one of them is all birds, one all dogs."""


class ImagenetHead(nn.Module):
    """The last level's features as they are before they are pooled, and the names that their mean has."""

    kinds: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(WIDTH, eps=1e-3)  # as TensorFlow's, whose weights these are
        self.features = nn.Sequential(nn.Conv2d(channels, WIDTH, 1, bias=False), norm, nn.ReLU6())
        self.names = nn.Linear(WIDTH, NAMES)
        self.register_buffer("kinds", torch.zeros(NAMES, sum(KINDS)), persistent=False)
        self.register_load_state_dict_post_hook(_group)

    def forward(self, level: Tensor) -> Tensor:
        """The last level (B, C, h, w) to features (B, 1280, h, w)."""
        return self.features(level)

    def likeness(self, found: Tensor, wanted: Tensor) -> Tensor:
        """How alike two things are, (B,), by the means of their features, both (B, 1280): the cosine of these, and
        half of whether their names are of one kind (-0.5 to 0.5), as far as `wanted` has one.
        """
        mine, own = (self.names(mean).softmax(1) @ self.kinds for mean in (found, wanted))
        sure = own.square().sum(1) / len(KINDS)
        same = (mine * own).sqrt().sum(1) / len(KINDS)  # Bhattacharyya's coefficient, the groupings' mean
        return F.cosine_similarity(found, wanted) + sure * (same - 0.5) / 2


def _group(head: ImagenetHead, _: Any) -> None:
    """Put the names into kinds by average linkage of the directions of their weights."""
    weights = head.names.weight.detach().double()
    units = F.normalize(weights - weights.mean(0), dim=1)
    distances = (1 - units @ units.T).clamp(min=0).cpu().numpy()
    tree = scipy.cluster.hierarchy.linkage(scipy.spatial.distance.squareform(distances, checks=False), "average")
    for grouping, count in zip(head.kinds.split(KINDS, 1), KINDS, strict=True):
        group = torch.from_numpy(scipy.cluster.hierarchy.fcluster(tree, count, "maxclust")) - 1
        grouping.copy_(F.one_hot(group.long(), count))
