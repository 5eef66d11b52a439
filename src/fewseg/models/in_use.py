"""How a trained model is used: as it is, or in ways that cost more for better masks, or less for nearly the same."""

from __future__ import annotations

from fewseg.errors import check_choice
from fewseg.labels import REFINE
from fewseg.models.base import FewShotSegmenter
from fewseg.models.half_precision import in_precision
from fewseg.models.mirrored import Mirrored
from fewseg.models.refined import Refined


def in_use(
    model: FewShotSegmenter, *, flip: bool = False, refine: str = "none", precision: str = "fp32"
) -> FewShotSegmenter:
    """The model itself, or one that uses it so.

    `flip` averages with the mirrored episode; `refine` fast looks twice (`Refined`), best mirrored too; `precision` is
    fp32, bf16 or fp16. UsageError for another value, or a method that cannot.
    """
    check_choice("refine", refine, REFINE)
    looking = model if refine == "none" else Refined(model)
    return in_precision(Mirrored(looking) if flip or refine == "best" else looking, precision)
