from .build import create_model as create_model
from .concept.concept import Concept as Concept
from .concept.teach import teach as teach
from .config import Config as Config
from .config import load_config as load_config
from .data.episodes.protocols import get_protocol as get_protocol
from .data.episodes.sampling import sample_episodes as sample_episodes
from .episode import Episode as Episode
from .episode import Prediction as Prediction
from .errors import DataError as DataError
from .errors import FewsegError as FewsegError
from .errors import UsageError as UsageError
from .evaluation.benchmark import Benchmark as Benchmark
from .evaluation.evaluate import evaluate as evaluate
from .evaluation.results import Results as Results
from .metrics.few_shot_iou import FewShotIoU as FewShotIoU
from .models.bam import BAM as BAM
from .models.base import FewShotSegmenter as FewShotSegmenter
from .models.dcama import DCAMA as DCAMA
from .models.fast import accelerate as accelerate
from .models.hdmnet import HDMNet as HDMNet
from .models.hsnet import HSNet as HSNet
from .models.insid3 import INSID3 as INSID3
from .models.lite import Lite as Lite
from .models.panet import PANet as PANet
from .models.parts.base_learner import PSPNet as PSPNet
from .models.pfenet import PFENet as PFENet
from .models.prototype import DenseMatching as DenseMatching
from .models.prototype import Prototype as Prototype
from .models.ssp import SSP as SSP
from .predictor import FewShotPredictor as FewShotPredictor
from .registry import create as create
from .registry import register as register
from .report.comparison import report_page as report_page
from .report.contents import ReportPage as ReportPage
from .report.figures import save_figures as save_figures
from .report.html import write_report as write_report
from .storage.hub import from_pretrained as from_pretrained
from .storage.hub import push_to_hub as push_to_hub
from .storage.hub import save_pretrained as save_pretrained
from .storage.released import load_released as load_released
from .storage.saved import load_model as load_model
from .storage.saved import save_model as save_model
from .training.loop import train as train

__version__: str

Report = Results  # its name in 0.1
