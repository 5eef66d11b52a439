"""A model's folder: `model.safetensors`, `config.json` (the constructor's arguments, as the hub mixin writes them) and
`fewseg.json` (the method, what it was trained on, the hash of the weights); for others to read, a model card.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, cast

import safetensors.torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn

from fewseg.files import file_sha256

FORMAT = 1
CARD = """---
{{ card_data }}
---

# {{ method }}: few-shot semantic segmentation

Given a few photos of a class with masks, it segments that class in other photos, whether it was trained on it or not.

```
pip install 'fewseg[train]'
```
```python
from fewseg import FewShotPredictor, from_pretrained

predictor = FewShotPredictor(from_pretrained("{{ where }}"))
predictor.set_support(["support.jpg"], ["support_mask.png"])
mask = predictor.predict("photo.jpg")
```

- Options: {{ options }}
- Trained on: {{ trained_on }}
- Trained parameters: {{ trained }} of {{ parameters }}

Masks are a network's guesses: look at them before anything depends on them. How well it does on classes and photos
unlike those it was trained on is for you to measure (`fewseg evaluate`).
"""
"""Of the model card; its data are the hub's."""


class HubModel(PyTorchModelHubMixin):
    """The hub mixin, whose folders `load_model` reads as well."""

    info: dict[str, Any]
    """What `fewseg.json` of its folder says that a loaded model was trained on."""

    def _save_pretrained(self, save_directory: Path) -> None:
        write_files(cast(nn.Module, self), Path(save_directory))

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        # a slim folder lacks the back-end: rather an error than a random one (fewseg.from_pretrained reads it)
        return super()._load_as_safetensor(model, model_file, map_location, strict=True)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card of this model; keyword arguments replace what the template asks for."""
        model = cast(nn.Module, self)
        parameters = list(model.parameters())
        info = getattr(model, "info", {})
        fields = {
            "method": getattr(type(model), "name", type(model).__name__),
            "where": "FOLDER",
            "options": ", ".join(f"{k}={v}" for k, v in model_options(model).items()),
            "trained_on": json.dumps(info) if info else "its files do not tell",
            "trained": f"{sum(p.numel() for p in parameters if p.requires_grad):,}",
            "parameters": f"{sum(p.numel() for p in parameters):,}",
        }
        return super().generate_model_card(*args, **(fields | kwargs))


def model_options(model: nn.Module) -> dict[str, Any]:
    """The constructor's arguments, as the hub mixin keeps them."""
    return dict(getattr(model, "_hub_mixin_config", None) or {})


def write_files(
    model: nn.Module,
    folder: Path,
    info: dict[str, Any] | None = None,
    *,
    state: dict[str, Tensor] | None = None,
    backbone: dict[str, str] | None = None,
) -> None:
    """Write the three files into a folder that is there; `info` None keeps what the model was loaded with.

    `state` are the tensors to write, by default all of them; `backbone` is what `fewseg.json` says of those left out.
    """
    state = cpu_state(model) if state is None else state
    arguments = json.dumps(model_options(model), indent=2)
    # the options are in this file too: its hash names the model, and other options answer otherwise. Alone: of several
    # the order is left to chance
    metadata = {"options": arguments}
    # not save_file: its files are readable by their owner alone
    (folder / "model.safetensors").write_bytes(safetensors.torch.save(state, metadata=metadata))
    (folder / "config.json").write_text(arguments)
    record = {
        "format": FORMAT,
        "method": getattr(type(model), "name", type(model).__name__),
        "class": f"{type(plain_model(model)).__module__}:{type(plain_model(model)).__qualname__}",
        "sha256": file_sha256(folder / "model.safetensors"),
        "info": getattr(model, "info", {}) if info is None else info,
    } | (backbone or {})
    record["checksum"] = checksum(record, arguments)
    (folder / "fewseg.json").write_text(json.dumps(record, indent=2))


def plain_model(model: Any) -> Any:
    """The model that a quicker view (`fewseg.models.fast`) was made of; any other model is itself."""
    return getattr(model, "_plain_model", model)


def cpu_state(model: nn.Module) -> dict[str, Tensor]:
    """A model's tensors by name, on the CPU."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def checksum(record: dict[str, Any], arguments: str) -> str:
    """Of what `fewseg.json` says (its own checksum left out) and of the text of `config.json`."""
    said = json.loads(json.dumps({key: value for key, value in record.items() if key != "checksum"}))
    return hashlib.sha256((json.dumps(said, sort_keys=True) + arguments).encode()).hexdigest()
