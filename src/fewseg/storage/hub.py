"""Models from and to the Hugging Face hub; folders work without network.

The models' own `save_pretrained` and `push_to_hub` do the work; here the method need not be known, and what fails is
told in a line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import huggingface_hub

from fewseg.errors import DataError, first_line
from fewseg.files import replacing_files
from fewseg.models.base import FewShotSegmenter
from fewseg.storage.saved import FILES, check_replaceable, load_model


def from_pretrained(
    name_or_folder: str | Path, *, revision: str | None = None, token: str | bool | None = None, **overrides: Any
) -> FewShotSegmenter:
    """A model from a folder (saved, or a run), else from the hub's repository "owner/name", in evaluation mode.

    `overrides` as for `load_model`. A repository fetched once needs no network again. Raises DataError where it
    cannot be had.
    """
    name = str(name_or_folder)
    if Path(name).is_dir() or not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
        return load_model(name_or_folder, **overrides)
    try:
        # what is fetched is nothing that could be run
        folder = huggingface_hub.snapshot_download(name, revision=revision, token=token, allow_patterns=list(FILES))
    except Exception as error:  # each version of the hub's library has its own errors
        raise DataError(
            f"{name} is no folder here, and the hub did not give it ({type(error).__name__}: {first_line(error)}); "
            "without network give a folder"
        ) from error
    return load_model(folder, **overrides)


def save_pretrained(model: FewShotSegmenter, folder: str | Path) -> Path:
    """Save a model with a model card as a folder for `from_pretrained`; a card that is there already stays.

    Raises UsageError for a folder that holds anything but a saved model.
    """
    out = Path(folder)
    check_replaceable(out)
    with replacing_files(out, last="fewseg.json", stay=("README.md",)) as work:
        model.save_pretrained(work)
    return out


def push_to_hub(model: FewShotSegmenter, repo_id: str, **options: Any) -> str:
    """Put a model with its card into the hub's repository "owner/name", made if need be; returns the commit's address.

    `options` are the hub mixin's: `private`, `token`, `commit_message`, `branch`, `create_pr`. Raises DataError where
    the hub cannot be reached or refuses.
    """
    card = {"where": repo_id} | options.pop("model_card_kwargs", {})
    try:
        return str(model.push_to_hub(repo_id, model_card_kwargs=card, **options))
    except TypeError:  # an option that there is not
        raise
    except Exception as error:  # each version of the hub's library has its own errors
        raise DataError(
            f"the hub did not take {repo_id} ({type(error).__name__}: {first_line(error)}); it needs network and a "
            "login (hf auth login, or token=...). save_pretrained(model, folder) makes the same files without"
        ) from error
