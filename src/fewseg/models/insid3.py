"""INSID3: in-context segmentation with frozen features of one vision transformer, without training.

Cuttano, Trivigno, Reich, Cremers, Masone, Roth, "INSID3: Training-Free In-Context Segmentation with DINOv3", CVPR 2026,
https://arxiv.org/abs/2603.28480. Sections and equations are the paper's.
Further: docs/networks/in-context.md.

    query, whole support images --> frozen back-end --> last patch features   (section 3.1, Eq. 1)
    an image of noise --> its features' first right singular vectors: what tells of a place alone   (Eq. 3)
    both without that subspace: features to compare two images by; the query's own stay as they are   (Eq. 4)
    query positions, agglomerative clustering --> regions   (section 3.2, Eq. 5)
    candidates: regions with a position whose nearest support position is foreground   (section 3.3, Eq. 6-8)
    seed: the candidate whose mean is nearest to the foreground's mean   (Eq. 9-11)
    mask = seed, and candidates with (likeness to foreground) * (likeness to seed) >= 0.2   (section 3.4, Eq. 12-14)

Written from descriptions of the paper that give all its equations; what they leave open is told where it is
chosen. Departure: the paper smooths its masks by a conditional random field at last, whose parameters it does not
give; here they are the features' own, brought to the image's size.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor
from torch.nn import functional as F

from fewseg.episode import Episode, Prediction
from fewseg.errors import UsageError
from fewseg.models.base import Features, FewShotSegmenter, freeze
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.ops import cross_entropy, foreground, in_fp32, most_foreground, resize_ac

RANK_SHARE = 500 / 1024
"""The paper removes 500 of the 1024 dimensions of DINOv3-L. Of other widths it is silent; chosen: the same share."""


class INSID3(FewShotSegmenter):
    """INSID3: groups of alike regions of a frozen vision transformer; nothing is trained.

    `base_classes` is taken for the common signature and not used.

    `cluster_similarity` (tau) is how alike two regions must be to become one, `threshold` (alpha) what a candidate's
    score must reach, `rank` (s) how many dimensions are left out as telling of a place; None: the paper's share, 0:
    none.
    """

    name = "insid3"
    trainable = False

    def __init__(
        self,
        *,
        backbone: str = "lite0",
        base_classes: int = 15,
        shots: int = 1,
        image_size: int = 320,
        cluster_similarity: float = 0.6,
        threshold: float = 0.2,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        self.shots, self.image_size = shots, image_size
        self.cluster_similarity, self.threshold = cluster_similarity, threshold
        self.backbone = create_backbone(backbone)
        freeze(self.backbone)
        width = self.backbone.channels["layer4"]
        self.rank = round(width * RANK_SHARE) if rank is None else rank
        if not 0 <= self.rank < width:
            raise UsageError(f"model.rank={rank}: timm's features have {width} dimensions; give 0 to {width - 1}")
        # made of the weights when it is first needed, and again when they are others
        self.register_buffer("place", None, persistent=False)
        self.backbone.register_load_state_dict_post_hook(self._forget)

    def extract_query(self, image: Tensor) -> Features:
        features = self._features(image)
        clusters = torch.stack([regions(one, self.cluster_similarity) for one in features])
        return {"features": features, "compared": self.without_place(features), "clusters": clusters}

    def extract_support(self, images: Tensor, masks: Tensor) -> Features:
        compared = self.without_place(self._features(images.flatten(0, 1))).unflatten(0, masks.shape[:2])
        # a mask at the features' size: not said. Chosen: a position that is mostly foreground counts
        share = F.adaptive_avg_pool2d(foreground(masks), compared.shape[-2:])  # type: ignore[arg-type]
        return {"compared": compared, "fg": most_foreground(share)}

    @torch.no_grad()
    def _features(self, image: Tensor) -> Tensor:
        """Unit features (B, C, h, w) of the last level. That they are of unit length is not said; chosen."""
        return F.normalize(self.backbone(self.backbone.normalise(image))["layer4"].float(), dim=1)

    @torch.no_grad()
    @in_fp32
    def without_place(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) without the subspace that tells of a place (Eq. 4), unit length."""
        if self.rank == 0:
            return features
        if self.place is None:
            self.place = self._place().to(features.device)
        inside = torch.einsum("cs,bchw->bshw", self.place, features)
        return F.normalize(features - torch.einsum("cs,bshw->bchw", self.place, inside), dim=1)

    @torch.no_grad()
    def _place(self) -> Tensor:
        """The first right singular vectors of the features of noise (Eq. 3): (C, s).

        The noise is standard normal, as a normalised image; of its side and seed the paper says nothing. Chosen: the
        model's own image size, and 0.
        """
        side, generator = self.image_size, torch.Generator().manual_seed(0)
        noise = torch.randn(1, 3, side, side, generator=generator).to(self.device)
        features = F.normalize(self.backbone(noise)["layer4"].float(), dim=1).flatten(2)[0].t()  # (L, C)
        return torch.linalg.svd(features.cpu(), full_matrices=False)[2][: self.rank].t().contiguous()

    def _forget(self, *_: Any) -> None:
        self.place = None

    @torch.no_grad()
    def match(
        self, query: Features, support: Features, *, size: tuple[int, int], base_index: Tensor | None = None
    ) -> Prediction:
        lead, likeness = zip(*(self._segment(*one) for one in self._each(query, support)), strict=True)
        maps = resize_ac(torch.stack(lead).unsqueeze(1), size)  # (B, 1, H, W)
        return Prediction(torch.cat([-maps, maps], 1), correlations=(torch.stack(likeness),))

    @staticmethod
    def _each(query: Features, support: Features) -> Any:
        """The query's features, compared features and regions, the supports' positions (M, C) and foreground (M,)."""
        # several supports: the paper has up to five, and does not say how. Chosen: their positions side by side
        positions = support["compared"].movedim(2, -1).flatten(1, 3)  # (B, M, C)
        own, compared = (query[name].flatten(2).transpose(1, 2) for name in ("features", "compared"))
        return zip(own, compared, query["clusters"], positions, support["fg"].flatten(1), strict=True)

    @in_fp32
    def _segment(
        self, own: Tensor, compared: Tensor, clusters: Tensor, positions: Tensor, fg: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One query (L, C), its regions (h, w) of numbers and supports to: 1 in the mask and -1 outside (h, w), and how
        like the foreground's mean every position is (h, w).
        """
        fg, clusters = fg.bool(), clusters.long()
        prototype = F.normalize(positions[fg].sum(0), dim=0)  # Eq. 9; nothing marked: 0
        of_region = F.one_hot(clusters.flatten()).to(own.dtype)  # (L, R)
        own_means, means = (F.normalize(of_region.t() @ f, dim=1) for f in (own, compared))  # (R, C)
        matched = fg[(compared @ positions.t()).argmax(1)]  # Eq. 6 and 7
        candidates = (of_region[matched] > 0).any(0)  # Eq. 8
        cross = means @ prototype  # Eq. 10
        seed = torch.where(candidates, cross, -torch.inf).argmax()  # Eq. 11
        score = cross * (own_means @ own_means[seed])  # Eq. 12 and 13
        chosen = candidates & ((score >= self.threshold) | (torch.arange(len(score), device=score.device) == seed))
        lead = torch.where(chosen, 1.0, -1.0)[clusters]  # Eq. 14; no candidate: an empty mask
        return lead, (compared @ prototype).unflatten(0, clusters.shape)

    def loss(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        return {"final": cross_entropy(prediction.logits, episode.truth)}

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        return []


def regions(features: Tensor, similarity: float) -> Tensor:
    """Agglomerative clusters of a query's positions (C, h, w), as numbers from 0: (h, w) int32 (section 3.2).

    How the distance of two clusters is measured is not said; chosen: the mean cosine of their positions. The paper's
    ablation calls 0.6 finer than 0.5, so the number is a likeness: two clusters are joined while theirs is above it.
    """
    h, w = features.shape[-2:]
    flat = features.flatten(1).t().double().cpu().numpy()
    if len(flat) == 1:
        return torch.zeros(h, w, dtype=torch.int32, device=features.device)
    numbers = fcluster(linkage(flat, "average", metric="cosine"), 1 - similarity, criterion="distance") - 1
    return torch.from_numpy(numbers).int().view(h, w).to(features.device)
