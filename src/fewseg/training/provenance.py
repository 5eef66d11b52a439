"""What a run was made with: the user's project under git, the source of its method and data set, what is installed."""

from __future__ import annotations

import hashlib
import inspect
import os
import subprocess
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from fewseg.files import file_sha256

_GIT = ("git", "-c", "core.fsmonitor=false", "-c", "diff.relative=false")
"""No monitor that a repository names is started, and a diff is of the whole tree wherever it is asked for."""
_SECONDS = 20
"""That git may take: of a huge tree or a dead network drive nothing is told."""


def project_state(folder: Path) -> dict[str, Any] | None:
    """The commit of the git work tree that holds `folder`, whether tracked files differ from it, and their diff's hash.

    None where there is no git, no work tree or no commit. Files that git does not track are not looked at.
    """
    found = [
        _git(folder, "rev-parse", "--show-toplevel"),
        _git(folder, "rev-parse", "--verify", "--quiet", "HEAD"),
        _git(folder, "diff", "--no-ext-diff", "--no-textconv", "--binary", "HEAD"),
    ]
    top, commit, diff = found
    if top is None or commit is None or diff is None:
        return None
    changes = hashlib.sha256(diff).hexdigest() if diff else ""
    return {"folder": os.fsdecode(top.strip()), "commit": commit.decode().strip(), "dirty": bool(diff), "diff": changes}


def _git(folder: Path, *words: str) -> bytes | None:
    """What git prints; None where it fails."""
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # nothing is written, not even its index
    how: dict[str, Any] = {"cwd": folder, "capture_output": True, "timeout": _SECONDS, "env": environment}
    try:
        done = subprocess.run([*_GIT, *words], check=True, **how)  # nosec B603: no shell, fixed words
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def sources_of(*used: type[Any]) -> dict[str, str]:
    """Hashes of the files that classes and what they inherit from are written in, by module; torch's own left out."""
    found = {}
    for cls in dict.fromkeys(base for one in used for base in one.__mro__):
        name, file = cls.__module__, _file_of(cls)
        if file is not None and name.partition(".")[0] not in (
            "torch",
            "typing",
            "abc",
            "huggingface_hub",
            "collections",
        ):
            found[name] = file_sha256(file)
    return found


def _file_of(cls: type[Any]) -> Path | None:
    try:
        file = Path(inspect.getfile(cls))
    except (TypeError, OSError):  # built in, or made in a notebook
        return None
    return file if file.is_file() else None


@cache
def installed() -> dict[str, str]:
    """The version of every package that Python finds, by name. Looked up once: it takes a third of a second."""
    found = ((d.metadata["Name"], d.version) for d in distributions())
    return dict(sorted((str(name).lower(), str(version)) for name, version in found if name))
