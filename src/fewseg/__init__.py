"""fewseg: few-shot semantic segmentation.

Given a few annotated support images of a class that a network was never trained on, segment that class in query images.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewseg.checkpoints import create_model, load_model, load_released, save_model
    from fewseg.config import Config, load_config
    from fewseg.data.protocols import get_protocol
    from fewseg.data.sampling import sample_episodes
    from fewseg.engine.evaluate import evaluate
    from fewseg.engine.results import Report
    from fewseg.engine.train import train
    from fewseg.episode import Episode, Prediction
    from fewseg.errors import DataError, FewsegError, UsageError
    from fewseg.hub import from_pretrained, push_to_hub, save_pretrained
    from fewseg.metrics import FewShotIoU
    from fewseg.models.base import FewShotSegmenter
    from fewseg.predictor import FewShotPredictor
    from fewseg.registry import create, register
    from fewseg.report.figures import save_figures
    from fewseg.report.page import ReportPage, write_report
    from fewseg.report.runs import report_page

__all__ = [
    "Config",
    "DataError",
    "Episode",
    "FewShotIoU",
    "FewShotPredictor",
    "FewShotSegmenter",
    "FewsegError",
    "Prediction",
    "Report",
    "ReportPage",
    "UsageError",
    "create",
    "create_model",
    "evaluate",
    "from_pretrained",
    "get_protocol",
    "load_config",
    "load_model",
    "load_released",
    "push_to_hub",
    "register",
    "report_page",
    "sample_episodes",
    "save_figures",
    "save_model",
    "save_pretrained",
    "train",
    "write_report",
]

# Imported when first used: importing torch takes seconds, which `fewseg --help` should not.
_HOMES = {
    "checkpoints": ("create_model", "load_model", "load_released", "save_model"),
    "config": ("Config", "load_config"),
    "data.protocols": ("get_protocol",),
    "data.sampling": ("sample_episodes",),
    "engine.evaluate": ("evaluate",),
    "engine.results": ("Report",),
    "engine.train": ("train",),
    "episode": ("Episode", "Prediction"),
    "errors": ("DataError", "FewsegError", "UsageError"),
    "hub": ("from_pretrained", "push_to_hub", "save_pretrained"),
    "metrics": ("FewShotIoU",),
    "models.base": ("FewShotSegmenter",),
    "predictor": ("FewShotPredictor",),
    "registry": ("create", "register"),
    "report.figures": ("save_figures",),
    "report.page": ("ReportPage", "write_report"),
    "report.runs": ("report_page",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"fewseg.{module}"), name)
    raise AttributeError(f"module 'fewseg' has no attribute {name!r}")
