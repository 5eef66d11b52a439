"""What training, evaluation and the predictor rely on, for every method with one and two shots.

With FEWSEG_PLUGINS, for the methods of these plugins alone.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewseg import registry
from fewseg.build import create_model
from fewseg.episode import Episode, Prediction
from fewseg.errors import UsageError
from fewseg.models.base import FewShotSegmenter
from fewseg.storage.saved import load_model, save_model

SIZE = (65, 81)
SHOTS = (1, 2)
OWN = [name for name, cls in sorted(registry.classes("model").items()) if registry.plugins_of(cls)]
"""The methods of plugins that FEWSEG_PLUGINS names: they are tested, whatever they are called, and no other is."""
if registry.plugin_words() and not OWN:
    raise UsageError(f"{registry.PLUGINS} holds no method to test: {' '.join(registry.plugin_words())}")
NAMES = OWN or [*sorted(registry.classes("model")), "nearest-mean"]
"""The last is the method of docs/add-a-method.md."""
EVERY_MODEL = pytest.mark.parametrize(
    ("name", "shots"), [pytest.param(n, k, marks=pytest.mark.slow if k == 1 else ()) for n in NAMES for k in SHOTS]
)
pytestmark = [] if OWN else pytest.mark.usefixtures("nearest_mean")


@cache
def build(name: str, shots: int) -> FewShotSegmenter:
    """In evaluation mode; for all tests, so one that trains it takes a copy."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options: Any = {"presence": True} if name == "lite" else {}
        model = create_model(name, backbone="timm/test_resnet", base_classes=3, shots=shots, image_size=64, **options)
    return model.eval()


def episode(batch: int, shots: int, *, size: tuple[int, int] = SIZE) -> Episode:
    g = torch.Generator().manual_seed(1)
    h, w = size
    masks = torch.zeros(batch, shots, h, w, dtype=torch.uint8)
    for b in range(batch):
        for k in range(shots):
            masks[b, k, h // 4 : h // 2 + 6 * b, w // 5 : w // 2 + 7 * k] = 1
    masks[..., :3] = 255
    query_mask = torch.zeros(batch, h, w, dtype=torch.uint8)
    query_mask[:, h // 3 :, : w // 2] = 1
    query_mask[:, :, -2:] = 255
    return Episode(
        query_image=torch.rand(batch, 3, h, w, generator=g),
        support_images=torch.rand(batch, shots, 3, h, w, generator=g),
        support_masks=masks,
        class_id=torch.arange(batch),
        base_index=torch.arange(batch) - 1,  # the first novel, the others base
        query_mask=query_mask,
        query_base_mask=query_mask.clone(),
    )


def predict(model: FewShotSegmenter, batch: Episode) -> Prediction:
    with torch.no_grad():
        return model(batch)


def everything(prediction: Prediction) -> dict[str, Tensor]:
    maps = {f"correlation{i}": c for i, c in enumerate(prediction.correlations)}
    told = {} if prediction.presence is None else {"presence": prediction.presence}
    return {"logits": prediction.logits, **told, **prediction.aux, **maps}


def assert_same(a: Prediction, b: Prediction, *, atol: float = 1e-4) -> None:
    ours, theirs = everything(a), everything(b)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=atol, msg=lambda m, name=name: f"{name}: {m}")


@EVERY_MODEL
@pytest.mark.parametrize("size", [(65, 81), (97, 66), (64, 64)])
def test_any_image_size_gives_maps_of_that_size(name: str, shots: int, size: tuple[int, int]) -> None:
    prediction = predict(build(name, shots), episode(1, shots, size=size))
    assert prediction.logits.shape == (1, 2, *size)
    assert prediction.mask.shape == (1, *size)
    assert all(value.shape[-2:] == size for value in prediction.aux.values())
    assert all(c.ndim == 3 for c in prediction.correlations)
    assert all(value.isfinite().all() for value in everything(prediction).values())


@EVERY_MODEL
def test_a_batch_of_two_equals_two_of_one(name: str, shots: int) -> None:
    model, batch = build(name, shots), episode(2, shots)
    both = predict(model, batch)
    for b in range(2):
        fields = {name: value[b : b + 1] for name, value in batch.as_dict().items()}
        alone = predict(model, Episode(**fields))
        part = Prediction(
            both.logits[b : b + 1],
            aux={n: v[b : b + 1] for n, v in both.aux.items()},
            correlations=tuple(c[b : b + 1] for c in both.correlations),
            presence=None if both.presence is None else both.presence[b : b + 1],
        )
        assert_same(part, alone)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", [[1, 0], [2, 0, 1]])
def test_the_order_of_the_supports_does_not_matter(name: str, order: list[int]) -> None:
    model, batch = deepcopy(build(name, len(order))), episode(2, len(order))
    if hasattr(model, "ensemble"):
        torch.nn.init.constant_(model.ensemble.gram_merge.weight, 0.7)  # type: ignore[union-attr]  # as trained: psi matters
    shuffled = replace(
        batch, support_images=batch.support_images[:, order], support_masks=batch.support_masks[:, order]
    )
    a, b = predict(model, batch), predict(model, shuffled)
    # HDMNet's released K-shot weights stay sorted while the distances do not (docs/networks/hdmnet.md section 6)
    ours, theirs = (p.aux["meta"] if name == "hdmnet" else p.logits for p in (a, b))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@EVERY_MODEL
def test_labels_of_the_query_never_reach_the_prediction(name: str, shots: int) -> None:
    model, batch = build(name, shots), episode(2, shots)
    assert_same(predict(model, batch), predict(model, replace(batch, query_mask=None, query_base_mask=None)), atol=0)


@EVERY_MODEL
def test_every_trainable_parameter_is_in_one_group_and_gets_a_finite_gradient(name: str, shots: int) -> None:
    model, batch = deepcopy(build(name, shots)).train(), episode(2, shots)
    trainable = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
    grouped = [id(p) for group in model.param_groups(1e-3) for p in group["params"]]
    if not model.trainable:
        assert not grouped
        return
    assert sorted(grouped) == sorted(trainable)
    terms = model.loss(model(batch), batch)
    torch.stack(list(terms.values())).sum().backward()
    for n, p in model.named_parameters():
        if p.requires_grad:
            assert p.grad is not None, n
            assert p.grad.isfinite().all(), n
        else:
            assert p.grad is None, n


@EVERY_MODEL
def test_frozen_weights_and_statistics_survive_a_step(name: str, shots: int) -> None:
    model, batch = deepcopy(build(name, shots)).train(), episode(2, shots)
    if not model.trainable:
        return
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad] + [n for n, _ in model.named_buffers()]
    before = {n: t.clone() for n, t in model.state_dict(keep_vars=True).items()}
    optimizer = torch.optim.SGD(model.param_groups(0.1), lr=0.1)
    terms = model.loss(model(batch), batch)
    torch.stack(list(terms.values())).sum().backward()
    optimizer.step()
    after = model.state_dict()
    assert frozen
    assert all(torch.equal(before[n], after[n]) for n in frozen if n in after)
    assert any(not torch.equal(before[n], after[n]) for n in after)


@EVERY_MODEL
def test_frozen_parts_stay_in_eval(name: str, shots: int) -> None:
    model = deepcopy(build(name, shots)).train()
    for module_name, module in model.named_modules():
        frozen = [not p.requires_grad for p in module.parameters(recurse=False)]
        if frozen and all(frozen):
            assert not module.training, module_name
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))


@EVERY_MODEL
def test_a_saved_model_loads_the_same(name: str, shots: int, tmp_path: Path) -> None:
    model, batch = build(name, shots), episode(2, shots)
    loaded = load_model(save_model(model, tmp_path / "saved"))
    assert (type(loaded), loaded.shots, loaded.image_size) == (type(model), shots, 64)
    assert_same(predict(model, batch), predict(loaded, batch), atol=0)


@EVERY_MODEL
@pytest.mark.parametrize("value", [0, 1, 255])
def test_one_sided_support_masks_give_finite_numbers(name: str, shots: int, value: int) -> None:
    model, batch = deepcopy(build(name, shots)), episode(2, shots)
    batch = replace(batch, support_masks=torch.full_like(batch.support_masks, value))
    assert all(v.isfinite().all() for v in everything(predict(model, batch)).values())
    terms = model.train().loss(model(batch), batch)
    assert all(t.isfinite() for t in terms.values())


@EVERY_MODEL
def test_cached_halves_equal_forward(name: str, shots: int) -> None:
    model, batch = build(name, shots), episode(2, shots)
    # one image at a time, as the feature cache computes them
    queries = [model.extract_query(image.unsqueeze(0)) for image in batch.query_image]
    supports = [
        [
            model.extract_support(batch.support_images[b : b + 1, k : k + 1], batch.support_masks[b : b + 1, k : k + 1])
            for k in range(shots)
        ]
        for b in range(2)
    ]
    query = {n: torch.cat([q[n] for q in queries]) for n in queries[0]}
    support = {n: torch.cat([torch.cat([s[n] for s in row], 1) for row in supports]) for n in supports[0][0]}
    assert not any(t.requires_grad for t in [*query.values(), *support.values()])
    with torch.no_grad():
        embedded = model.embed_query(query), model.embed_support(support)
        model.embed_query({n: t.flip(0) for n, t in query.items()})  # `match` goes by what it is given
        cached = model.match(*embedded, size=batch.size, base_index=batch.base_index)
    assert_same(cached, predict(model, batch))


@EVERY_MODEL
def test_a_class_unknown_to_the_base_learner_needs_no_index(name: str, shots: int) -> None:
    model, batch = build(name, shots), replace(episode(2, shots), base_index=torch.tensor([-1, -1]))
    with torch.no_grad():
        query = model.encode_query(batch.query_image)
        support = model.encode_support(batch.support_images, batch.support_masks)
        assert_same(model.match(query, support, size=batch.size), predict(model, batch))


def test_hdmnet_works_without_its_base_learner() -> None:
    torch.manual_seed(0)
    model = create_model("hdmnet", backbone="timm/test_resnet", image_size=64, base_learner=False)
    batch = episode(2, 1)
    prediction = model(batch)
    assert not prediction.aux
    torch.stack(list(model.loss(prediction, batch).values())).sum().backward()
    assert all(p.grad is not None for p in model.trainable_parameters())
    cached = model.match(
        model.encode_query(batch.query_image),
        model.encode_support(batch.support_images, batch.support_masks),
        size=SIZE,
    )
    assert cached.logits.shape == (2, 2, *SIZE)


def test_presence_is_learnt_from_queries_that_tell_and_teaches_the_masks_nothing() -> None:
    model = deepcopy(build("lite", 1)).train()
    assert model.tells_presence
    batch = episode(3, 1)
    assert batch.query_mask is not None
    query_mask = batch.query_mask.clone()
    query_mask[1][query_mask[1] == 1] = 0  # the class is not there
    query_mask[2] = 255  # and here nobody knows
    batch = replace(batch, query_mask=query_mask)
    prediction = model(batch)
    prediction.presence.retain_grad()
    model.loss(prediction, batch)["presence"].backward()
    pushed = prediction.presence.grad.sign().tolist()
    assert pushed == [-1, 1, 0]
    taught = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert taught == {"presence"}


def test_a_margin_is_added_in_use_and_not_in_training() -> None:
    exact, batch = build("lite", 1), episode(1, 1)
    ready = deepcopy(exact)
    ready.margin = 0.7  # type: ignore[assignment]
    difference = predict(ready, batch).logits - predict(exact, batch).logits
    torch.testing.assert_close(difference, torch.tensor([0.0, 0.7]).view(1, 2, 1, 1).expand_as(difference))
    ready.train()
    torch.manual_seed(0)
    trained = predict(ready, batch).logits
    ready.margin = 0.0  # type: ignore[assignment]
    torch.manual_seed(0)
    assert torch.equal(predict(ready, batch).logits, trained)


def test_lite_on_all_stages_takes_stored_features_in_any_order() -> None:
    torch.manual_seed(0)
    options: Any = {"all_stages": True, "presence": True, "imagenet_head": 4.0}
    model = create_model("lite", backbone="lite0", base_classes=3, image_size=64, **options).eval()
    e = episode(1, 2)
    query, support = model.extract_query(e.query_image), model.extract_support(e.support_images, e.support_masks)
    assert len(query) == 6

    def match(*features: dict[str, Tensor]) -> Tensor:
        q, s = model.embed_query(features[0]), model.embed_support(features[1])
        return model.match(q, s, size=e.size).logits

    turned = [dict(reversed(features.items())) for features in (query, support)]
    assert torch.equal(match(query, support), match(*turned))
    assert torch.equal(match(query, support), model(e).logits)
