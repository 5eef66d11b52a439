"""fewseg: few-shot semantic segmentation.

Given a few annotated support images of a class that a network was never trained on, segment that class in query images.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers, which do not follow the table
    from fewseg.build import create_model as create_model
    from fewseg.config import Config as Config
    from fewseg.config import load_config as load_config
    from fewseg.data.episodes.protocols import get_protocol as get_protocol
    from fewseg.data.episodes.sampling import sample_episodes as sample_episodes
    from fewseg.episode import Episode as Episode
    from fewseg.episode import Prediction as Prediction
    from fewseg.errors import DataError as DataError
    from fewseg.errors import FewsegError as FewsegError
    from fewseg.errors import UsageError as UsageError
    from fewseg.evaluation.benchmark import Benchmark as Benchmark
    from fewseg.evaluation.evaluate import evaluate as evaluate
    from fewseg.evaluation.results import Results as Results
    from fewseg.metrics.few_shot_iou import FewShotIoU as FewShotIoU
    from fewseg.models.bam import BAM as BAM
    from fewseg.models.base import FewShotSegmenter as FewShotSegmenter
    from fewseg.models.fast import accelerate as accelerate
    from fewseg.models.hdmnet import HDMNet as HDMNet
    from fewseg.models.hsnet import HSNet as HSNet
    from fewseg.models.lite import Lite as Lite
    from fewseg.models.parts.base_learner import PSPNet as PSPNet
    from fewseg.models.pfenet import PFENet as PFENet
    from fewseg.models.prototype import DenseMatching as DenseMatching
    from fewseg.models.prototype import Prototype as Prototype
    from fewseg.predictor import FewShotPredictor as FewShotPredictor
    from fewseg.registry import create as create
    from fewseg.registry import register as register
    from fewseg.report.contents import ReportPage as ReportPage
    from fewseg.report.figures import save_figures as save_figures
    from fewseg.report.html import write_report as write_report
    from fewseg.report.measure import report_page as report_page
    from fewseg.storage.hub import from_pretrained as from_pretrained
    from fewseg.storage.hub import push_to_hub as push_to_hub
    from fewseg.storage.hub import save_pretrained as save_pretrained
    from fewseg.storage.released import load_released as load_released
    from fewseg.storage.saved import load_model as load_model
    from fewseg.storage.saved import save_model as save_model
    from fewseg.training.loop import train as train

    __version__: str

_HOMES = {
    "BAM": "models.bam",
    "Benchmark": "evaluation.benchmark",
    "Config": "config",
    "DataError": "errors",
    "DenseMatching": "models.prototype",
    "Episode": "episode",
    "FewShotIoU": "metrics.few_shot_iou",
    "FewShotPredictor": "predictor",
    "FewShotSegmenter": "models.base",
    "FewsegError": "errors",
    "HDMNet": "models.hdmnet",
    "HSNet": "models.hsnet",
    "Lite": "models.lite",
    "PFENet": "models.pfenet",
    "PSPNet": "models.parts.base_learner",
    "Prediction": "episode",
    "Prototype": "models.prototype",
    "ReportPage": "report.contents",
    "Results": "evaluation.results",
    "UsageError": "errors",
    "accelerate": "models.fast",
    "create": "registry",
    "create_model": "build",
    "evaluate": "evaluation.evaluate",
    "from_pretrained": "storage.hub",
    "get_protocol": "data.episodes.protocols",
    "load_config": "config",
    "load_model": "storage.saved",
    "load_released": "storage.released",
    "push_to_hub": "storage.hub",
    "register": "registry",
    "report_page": "report.measure",
    "sample_episodes": "data.episodes.sampling",
    "save_figures": "report.figures",
    "save_model": "storage.saved",
    "save_pretrained": "storage.hub",
    "train": "training.loop",
    "write_report": "report.html",
}
"""Public names and their modules, imported when first used: torch takes seconds, which `fewseg --help` should not."""

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]

_FORMERLY = {"Report": "Results"}
"""Names of 0.1, which still work."""


def __getattr__(name: str) -> Any:
    name = _FORMERLY.get(name, name)
    if name in _HOMES:
        return getattr(import_module(f"fewseg.{_HOMES[name]}"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("fewseg")
    raise AttributeError(f"module 'fewseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_HOMES, "__version__"]
