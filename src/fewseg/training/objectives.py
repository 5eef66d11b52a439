"""What one training step computes: plain tensors in, losses out, so that Fabric can wrap it (precision, DDP)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewseg.episode import Episode, Prediction
from fewseg.metrics.iou import base_confusion, episode_counts, foreground_wins, winners
from fewseg.models.answers import checked, checked_terms
from fewseg.models.base import Features, FewShotSegmenter, freeze
from fewseg.models.fast import accelerate
from fewseg.models.parts.base_learner import PSPNet
from fewseg.models.parts.ops import unmarked_as_background
from fewseg.runtime.processes import rank_and_world, whole_batch


class EpisodeObjective(nn.Module):
    """A segmenter's losses on a batch of episodes, from images or from extracted features."""

    def __init__(self, model: FewShotSegmenter) -> None:
        super().__init__()
        self.model = accelerate(model)

    def forward(
        self,
        episode: dict[str, Tensor],
        query: Features | None = None,
        support: Features | None = None,
        *,
        watch: bool = False,
    ) -> dict[str, Any]:
        """Fields of an Episode (and features of its images) to "losses", "logged" and "counts".

        "counts" (2,) holds the batch's foreground intersection and union; "logged" is empty unless `watch`.
        """
        batch = Episode(**episode)
        size = (batch.truth.shape[-2], batch.truth.shape[-1])
        if query is None or support is None:
            prediction = self.model(batch)
        else:
            support = self.model.with_classes(support, batch.class_id)
            prediction = self.model.match_extracted(query, support, size=size, base_index=batch.base_index)
        prediction = checked(prediction, self.model, count=len(batch.truth), size=size)
        prediction, batch = _of_all_processes(prediction, batch)
        with torch.no_grad():
            counts = episode_counts(foreground_wins(prediction.logits), batch.truth, 0)[1:3]
            logged = self.model.logged(prediction, batch) if watch else {}
        losses = checked_terms(self.model.loss(prediction, batch), self.model)
        return {"losses": losses, "logged": logged, "counts": counts}


class BaseObjective(nn.Module):
    """The base learner's loss on labelled images."""

    def __init__(self, model: PSPNet, *, freeze_backbone: bool) -> None:
        super().__init__()
        if freeze_backbone:
            freeze(model.backbone)
        self.model = accelerate(model)

    def forward(
        self, image: Tensor, labels: Tensor, known: Tensor | None = None, *, watch: bool = False
    ) -> dict[str, Any]:
        """Images (B, 3, H, W), base labels (B, H, W) and which classes are `known` (B, N) to "losses", "logged"
        (nothing) and "counts".
        """
        logits, labels = whole_batch(self.model(image)), whole_batch(labels)
        if known is not None:
            logits = unmarked_as_background(logits, whole_batch(known))
        with torch.no_grad():
            counts = base_confusion(winners(logits), labels, logits.shape[1] - 1)[1:].sum(0)
        return {"losses": self.model.loss(logits, labels), "logged": {}, "counts": counts}


def _of_all_processes(prediction: Prediction, batch: Episode) -> tuple[Prediction, Episode]:
    """The prediction and the labels of the whole batch; its images would have to be sent, so they have no pixels."""
    if rank_and_world()[1] == 1:
        return prediction, batch
    given = {name: whole_batch(value) for name, value in batch.as_dict().items() if "image" not in name}
    count, shots = given["support_masks"].shape[:2]
    images = {"query_image": torch.empty(count, 3, 0, 0), "support_images": torch.empty(count, shots, 3, 0, 0)}
    return prediction.map(whole_batch), Episode(**images, **given)
