"""fewseg: few-shot semantic segmentation.

Given a few annotated support images of a class that a network was never trained on, segment that class in query images.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewseg.build import create_model
    from fewseg.config import Config, load_config
    from fewseg.data.episodes.protocols import get_protocol
    from fewseg.data.episodes.sampling import sample_episodes
    from fewseg.episode import Episode, Prediction
    from fewseg.errors import DataError, FewsegError, UsageError
    from fewseg.evaluation.benchmark import Benchmark
    from fewseg.evaluation.evaluate import evaluate
    from fewseg.evaluation.results import Results
    from fewseg.metrics import FewShotIoU
    from fewseg.models.base import FewShotSegmenter
    from fewseg.predictor import FewShotPredictor
    from fewseg.registry import create, register
    from fewseg.report.contents import ReportPage, write_report
    from fewseg.report.figures import save_figures
    from fewseg.report.measure import report_page
    from fewseg.storage.hub import from_pretrained, push_to_hub, save_pretrained
    from fewseg.storage.released import load_released
    from fewseg.storage.saved import load_model, save_model
    from fewseg.training.loop import train

__all__ = [
    "Benchmark",
    "Config",
    "DataError",
    "Episode",
    "FewShotIoU",
    "FewShotPredictor",
    "FewShotSegmenter",
    "FewsegError",
    "Prediction",
    "ReportPage",
    "Results",
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
    "build": ("create_model",),
    "storage.released": ("load_released",),
    "storage.saved": ("load_model", "save_model"),
    "config": ("Config", "load_config"),
    "data.episodes.protocols": ("get_protocol",),
    "data.episodes.sampling": ("sample_episodes",),
    "evaluation.benchmark": ("Benchmark",),
    "evaluation.evaluate": ("evaluate",),
    "evaluation.results": ("Results",),
    "training.loop": ("train",),
    "episode": ("Episode", "Prediction"),
    "errors": ("DataError", "FewsegError", "UsageError"),
    "storage.hub": ("from_pretrained", "push_to_hub", "save_pretrained"),
    "metrics": ("FewShotIoU",),
    "models.base": ("FewShotSegmenter",),
    "predictor": ("FewShotPredictor",),
    "registry": ("create", "register"),
    "report.figures": ("save_figures",),
    "report.contents": ("ReportPage", "write_report"),
    "report.measure": ("report_page",),
}


_FORMERLY = {"Report": "Results"}
"""Names of 0.1, which still work."""


def __getattr__(name: str) -> Any:
    name = _FORMERLY.get(name, name)
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"fewseg.{module}"), name)
    raise AttributeError(f"module 'fewseg' has no attribute {name!r}")
