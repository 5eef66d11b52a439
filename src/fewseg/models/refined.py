"""A method that looks twice: what it is sure of in the query joins the supports.

The query is the photo most like itself: its own object, and its own background, say more than another photo's (the
observation of self-support, Fan et al., ECCV 2022). Not part of any network here: two matchings in place of one.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fewseg.episode import IGNORE, Prediction
from fewseg.errors import UsageError
from fewseg.labels import LEAST_FOUND, SURE
from fewseg.models.base import Features, FewShotSegmenter
from fewseg.models.wrapper import Wrapper

_OWN = "own."


class Refined(Wrapper):
    """A trained model whose logits are the mean of a first matching, and of one with the query as a further support.

    There its mask is what the first one is sure of; the rest is void, as in any support. Whether the class is there at
    all is the first one's to say. A query in which next to nothing was found keeps its first logits.
    """

    def __init__(self, model: FewShotSegmenter) -> None:
        if not model.masks_features:
            raise UsageError(f"{model.name} encodes a support from its masked image, so it cannot look twice; lite can")
        if model.takes_classes:
            raise UsageError(f"{model.name} takes the names of classes, and cannot look twice; lite can")
        super().__init__(model, refine=True)

    def extract_query(self, image: Tensor) -> Features:
        return self.model.extract_query(image)

    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        return self.model.extract_support(images, masks)

    def embed_query(self, features: Features) -> Features:
        return self.model.embed_query(features) | {_OWN + n: f for n, f in features.items()}

    def embed_support(self, features: Features) -> Features:
        return self.model.embed_support(features)

    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        own = {n.removeprefix(_OWN): f for n, f in query.items() if n.startswith(_OWN)}
        query = {n: f for n, f in query.items() if not n.startswith(_OWN)}
        first = self.model.match(query, support, size=size, base_index=base_index)
        proba = first.logits.float().softmax(1)[:, 1]
        mask = torch.full_like(proba, IGNORE, dtype=torch.uint8)
        mask[proba > SURE], mask[proba < 1 - SURE] = 1, 0
        enough = (mask == 1).flatten(1).float().mean(1) >= LEAST_FOUND
        if not enough.any():
            return first
        own = self.model.embed_support(self.model.as_support(own, mask.unsqueeze(1)))
        both = {n: torch.cat([f, own[n]], 1) for n, f in support.items()}
        second = self.model.match(query, both, size=size, base_index=base_index)
        mean = (first.logits + second.logits) / 2
        return replace(first, logits=torch.where(enough.view(-1, 1, 1, 1), mean, first.logits))
