"""fewseg: few-shot semantic segmentation.

Given a few annotated support images of a class that a network was never trained on, segment that class in query images.

The public names stand in `__init__.pyi`. They are imported when first used: torch takes seconds, which `fewseg --help`
should not.
"""

from typing import Any

import lazy_loader

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_FORMERLY = {"Report": "Results"}
"""Names of 0.1, which still work."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("fewseg")
    try:
        return _public(_FORMERLY.get(name, name))
    except ModuleNotFoundError as error:
        from fewseg.errors import missing_extra

        if told := missing_extra(error):
            raise ModuleNotFoundError(f"fewseg.{name}: {told}", name=error.name) from error
        raise
