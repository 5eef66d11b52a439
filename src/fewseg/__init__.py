"""fewseg: few-shot semantic segmentation.

Given a few annotated support images of a class that a network was never trained on, segment that class in query images.

The public names stand in `__init__.pyi`. They are imported when first used: torch takes seconds, which `fewseg --help`
should not.

Threads of torch that wait on a CPU sleep, unless OMP_WAIT_POLICY says otherwise: by default they wait in a loop, and
take the time of those that they wait for (docs/performance.md, "Threads that wait"). OpenMP reads it once, when torch
is loaded, so it is said here, before anything can load it.

So is ORT_DISABLE_TELEMETRY, unless somebody has set it: onnxruntime otherwise tells Microsoft of the machine and of
what runs on it, and keeps a number for the machine in the user's cache.
"""

import os
from typing import Any

import lazy_loader

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

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
