"""Experiments: one file each; every one gives plain data, a table and a figure.

`run_support_mask(Plan("scenes", out=Path("x"), folds=(0,)))` and its like are what `fewseg experiment` calls.
The public names stand in `__init__.pyi`, and are imported when first used: torch and matplotlib take seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
