"""A model's folder: `model.safetensors`, `config.json` (the constructor's arguments, as the hub mixin writes them) and
`fewseg.json` (the method, what it was trained on, the hash of the weights); for others to read, a model card.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn

from fewseg.errors import UsageError
from fewseg.models.backbones import LITE, create_backbone
from fewseg.models.weights import load_backbone_weights

FORMAT = 1
CARD = """---
{{ card_data }}
---

# {{ method }}: few-shot semantic segmentation

Given a few photos of a class with masks, it segments that class in other photos, whether it was trained on it or not.

```
pip install fewseg
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
        return super().generate_model_card(*args, **(_card_fields(cast(nn.Module, self)) | kwargs))


def _card_fields(model: nn.Module) -> dict[str, Any]:
    parameters = list(model.parameters())
    info = getattr(model, "info", {})
    return {
        "method": getattr(type(model), "name", type(model).__name__),
        "where": "FOLDER",
        "options": ", ".join(f"{k}={v}" for k, v in model_options(model).items()),
        "trained_on": json.dumps(info) if info else "its files do not tell",
        "trained": f"{sum(p.numel() for p in parameters if p.requires_grad):,}",
        "parameters": f"{sum(p.numel() for p in parameters):,}",
    }


def model_options(model: nn.Module) -> dict[str, Any]:
    """The constructor's arguments, as the hub mixin keeps them."""
    return dict(getattr(model, "_hub_mixin_config", None) or {})


def write_files(model: nn.Module, folder: Path, info: dict[str, Any] | None = None, *, slim: bool = False) -> None:
    """Write the three files into a folder that is there; `info` None keeps what the model was loaded with.

    `slim`: see `fewseg.checkpoints.save_model`.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    state = _slim(model, state) if slim else state
    # not save_file: its files are readable by their owner alone
    (folder / "model.safetensors").write_bytes(safetensors.torch.save(state, metadata={"format": "pt"}))
    arguments = json.dumps(model_options(model), indent=2)
    (folder / "config.json").write_text(arguments)
    record = {
        "format": FORMAT,
        "method": type(model).name if hasattr(type(model), "name") else type(model).__name__,  # type: ignore[attr-defined]
        "class": f"{type(model).__module__}:{type(model).__qualname__}",
        "sha256": file_sha256(folder / "model.safetensors"),
        "info": getattr(model, "info", {}) if info is None else info,
    } | ({"backbone": "imagenet"} if slim else {})
    record["checksum"] = checksum(record, arguments)
    (folder / "fewseg.json").write_text(json.dumps(record, indent=2))


def _slim(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The trained tensors in 16 bits; UsageError where the back-end is another than the ImageNet one of a package."""
    name = str(model_options(model).get("backbone"))
    if name not in LITE:
        raise UsageError(f"a slim model's back-end comes with a package, as {', '.join(LITE)} do; this one has {name}")
    backbone = create_backbone(name)
    load_backbone_weights(backbone, name, "imagenet")
    if any(not torch.equal(t, state[f"backbone.{n}"]) for n, t in backbone.state_dict().items()):
        raise UsageError("this model's back-end was trained further, so it must be kept; save it whole")
    rest = {n: t for n, t in state.items() if not n.startswith("backbone.")}
    return {n: t.half() if t.is_floating_point() else t for n, t in rest.items()}


def checksum(record: dict[str, Any], arguments: str) -> str:
    """Of what `fewseg.json` says (its own checksum left out) and of the text of `config.json`."""
    said = json.loads(json.dumps({key: value for key, value in record.items() if key != "checksum"}))
    return hashlib.sha256((json.dumps(said, sort_keys=True) + arguments).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
