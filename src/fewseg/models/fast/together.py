"""HDMNet's encoder on queries and supports at once: on small maps a batch of twice as many takes little longer."""

from __future__ import annotations

import torch
from torch import Tensor

from fewseg.episode import Prediction
from fewseg.models.base import Features
from fewseg.models.hdmnet import Extracted, HDMNet, Query, encoded_support


class EncodedTogether(HDMNet):
    """HDMNet whose training step passes the encoder once."""

    def match_extracted(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        q, e = Query(**self.embed_query(query)), Extracted(**support)
        prototype, merged_support = self.merged_support(e)
        prior = self.prior_of(q, e)
        shots = prototype.unflatten(0, (len(q.maps), -1))  # (B, K, 256)
        merged = torch.cat([self.merge_query(q.maps, shots.mean(1), 10 * prior), merged_support])
        of_both = [stage.split([len(q.maps), len(merged_support)]) for stage in self.encoder(merged)]
        query_stages, support_stages = map(list, zip(*of_both, strict=True))
        s = encoded_support(e, prototype, support_stages)
        return self.match_stages(q, query_stages, s, prior, size=size, base_index=base_index)
