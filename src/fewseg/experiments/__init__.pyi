from .correlation import run_correlation as run_correlation
from .episode_count import run_episodes as run_episodes
from .option_sweeps import run_relu as run_relu
from .option_sweeps import run_temperature as run_temperature
from .plan import Plan as Plan
from .statistics import run_statistics as run_statistics
from .support_mask import run_support_mask as run_support_mask
