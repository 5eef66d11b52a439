"""Metrics: the pooled mIoU and FB-IoU of few-shot segmentation, and their intervals.

The public names stand in `__init__.pyi`, and are imported when first used: torchmetrics takes a second or two.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
