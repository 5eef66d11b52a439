"""The models that come with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    folder = Path(str(resources.files("fewseg") / "shipped"))
    return sorted(file.parent.name for file in folder.glob("*/fewseg.json"))


def shipped_folder(name: str) -> Path | None:
    """The folder of a model that comes with the package; None for another name, or where a directory has this one."""
    if name not in shipped_models() or Path(name).is_dir():
        return None
    return Path(str(resources.files("fewseg") / "shipped" / name))
