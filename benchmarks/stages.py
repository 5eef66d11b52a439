"""How well each stage of a frozen back-end tells an object from its surroundings, before anything is trained.

`python -m benchmarks.stages ROOT lite2 --stride 16 --size 384`

Episodes are drawn from *training* photos of fold 0's base classes, so that a back-end can be chosen without a look at
the classes that are reported. A stage's map of the query: cosine with the mean foreground of the support minus that
with its mean background. Told is the IoU at every photo's best threshold, mean over classes.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional as F

from fewseg import registry
from fewseg.data.dataset import EpisodeDataset
from fewseg.data.episodes.protocols import get_protocol
from fewseg.data.episodes.sampling import sample_episodes
from fewseg.data.transforms import Squeeze
from fewseg.models.parts import ops
from fewseg.models.parts.backbone_weights import load_backbone_weights
from fewseg.models.parts.backbones import create_backbone


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="PASCAL VOC's folder")
    parser.add_argument("backbone")
    parser.add_argument("--stride", type=int, help="of the last level at most [the back-end's own]")
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--episodes", type=int, default=250)
    given = parser.parse_args()
    source = registry.create("source", "pascal5i", subset="train", root=given.root)
    fold = source.fold(0)
    fold = replace(fold, base=fold.novel, novel=fold.base)  # the base classes are drawn as if they were novel
    protocol = get_protocol("fewseg", dataset=source.name)
    episodes = sample_episodes(source, fold, protocol=protocol, seed=7, shots=1, episodes=given.episodes)
    dataset = EpisodeDataset(
        source, fold, spec_of=episodes.specs.__getitem__, length=len(episodes), transform=Squeeze(given.size), seed=0
    )
    backbone = create_backbone(given.backbone, output_stride=given.stride).eval()
    load_backbone_weights(backbone, given.backbone, "imagenet")
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for n, spec in enumerate(episodes.specs):
        episode = dataset[n].episode
        assert episode.query_mask is not None
        query, support = (
            backbone.stages(backbone.normalise(image)) for image in (episode.query_image, episode.support_images[:, 0])
        )
        for name, maps in query.items():
            likeness = _likeness(maps, support[name], ops.foreground(episode.support_masks))
            found[name][spec.class_id].append(_best_iou(likeness, episode.query_mask[0]))
    print(f"{given.backbone}, {given.size} px, {len(episodes)} episodes {episodes.sha256[:16]}")
    for name, by_class in found.items():
        print(f"{name:20} {100 * fmean(map(fmean, by_class.values())):.1f}")


def _likeness(query: Tensor, support: Tensor, fg: Tensor) -> Tensor:
    """Maps (1, C, h, w) and foreground (1, 1, H, W) to nearness to foreground minus nearness to background, (h, w)."""
    share = ops.average_to(fg, support.shape[-2:])
    units = F.normalize(support, dim=1)
    near, far = (F.normalize(ops.masked_average(units, part), dim=1)[0] for part in (share, 1 - share))
    return torch.einsum("chw,c->hw", F.normalize(query, dim=1)[0], near - far)


def _best_iou(likeness: Tensor, labels: Tensor) -> float:
    """The highest IoU that any threshold on the map reaches; pixels of 255 are left out."""
    values = ops.resize(likeness[None, None], labels.shape)[0, 0][labels != 255]
    truth = labels[labels != 255][values.argsort(descending=True)] == 1
    hits, taken = truth.cumsum(0), torch.arange(1, len(truth) + 1)
    return float((hits / (taken + truth.sum() - hits)).max())


if __name__ == "__main__":
    main()
