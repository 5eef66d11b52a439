"""Several data sets as one: whose classes are joined, what is known of a photo, and what is refused."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import trees
from fewseg.build import create_source
from fewseg.cli.main import app
from fewseg.config import as_yaml, load_config
from fewseg.data.class_names import SYNONYMS
from fewseg.data.dataset import BaseDataset, EpisodeDataset
from fewseg.data.episodes.lists import EpisodeSpec
from fewseg.data.episodes.sampling import TrainingEpisodes, training_images
from fewseg.data.fingerprint import photos_fingerprint
from fewseg.data.region_classes import WithRegions
from fewseg.data.sets.mix import Mix
from fewseg.data.source import Fold, SourceIndex, class_mask, make_fold, mask_of
from fewseg.data.transforms import Squeeze
from fewseg.errors import DataError, DataWarning, UsageError
from fewseg.models.lite import BaseHeads
from fewseg.training.loop import _without_roots

SIDE = 24


class Few:
    """A source in memory: each image holds some classes, a row of ten pixels for each; the last row is void."""

    name, subset, min_pixels = "few", "train", 1

    def __init__(self, class_names: Sequence[str], images: Sequence[Sequence[str]]) -> None:
        self.class_names = tuple(class_names)
        self.held = [[self.class_names.index(name) + 1 for name in names] for names in images]
        counts = [[10 * (c in held) for c in range(1 + len(class_names))] for held in self.held]
        self.index = SourceIndex(tuple(f"{i}" for i in range(len(images))), np.array(counts))

    def labels(self, i: int) -> np.ndarray:
        wide = len(self.class_names) > 254
        labels = np.zeros((SIDE, SIDE), np.uint16 if wide else np.uint8)
        for row, c in enumerate(self.held[i]):
            labels[row, :10] = c
        labels[-1] = 65535 if wide else 255
        return labels

    def load(self, i: int) -> tuple[Image.Image, np.ndarray]:
        return Image.new("RGB", (SIDE, SIDE), (i, 90, 150)), self.labels(i)

    def fold(self, index: int) -> Fold:
        return make_fold(index, classes=len(self.class_names), folds=2)


VOC = Few(["aeroplane", "cat", "sofa"], [["aeroplane"], ["cat"], ["sofa"], ["cat", "sofa"], ["aeroplane", "cat"]] * 2)
COCO = Few(["couch", "Air-Plane", "zebra"], [["couch"], ["Air-Plane"], ["zebra"], ["zebra", "couch"]] * 2)
STREET = Few(["tree", "road"], [["tree"], ["road"], ["tree", "road"]] * 2)

NAMES = {"aeroplane": "airplane", "Air-Plane": "airplane", "sofa": "couch"}


def mix(sources: Mapping[str, Any] | None = None, **options: Any) -> Mix:
    given = {"voc": VOC, "coco": COCO, "street": STREET} if sources is None else sources
    return Mix(sources=dict(given), min_pixels=1, **options)


def test_classes_are_joined_by_name_and_by_the_tables() -> None:
    source = mix()
    assert source.class_names == ("couch", "airplane", "zebra", "tree", "road", "cat")
    assert source.joined == {
        "couch": {"coco": "couch", "voc": "sofa"},
        "airplane": {"coco": "Air-Plane", "voc": "aeroplane"},
    }
    assert source.describe()["joined"] == source.joined
    own = mix(synonyms={"settee": ["sofa"], "wood": ["tree"]})
    assert own.class_names == ("settee", "airplane", "zebra", "wood", "road", "cat")
    assert own.joined["settee"] == {"coco": "couch", "voc": "sofa"}
    apart = mix(names={"voc": {"sofa": "seat"}, "coco": {"zebra": "road"}})
    assert "seat" in apart.class_names
    assert apart.joined["road"] == {"coco": "zebra", "street": "road"}


def test_no_name_of_the_built_in_table_stands_for_two() -> None:
    names = [name for group in ((n, *others) for n, others in SYNONYMS.items()) for name in group]
    assert len(names) == len(set(names))


def test_every_photo_keeps_its_labels_and_has_an_id_of_its_own() -> None:
    source = mix()
    ids = source.index.ids
    assert len(set(ids)) == len(ids) == 24
    for i, image_id in enumerate(ids):
        key, _, place = image_id.partition("/")
        part = source.parts[key]
        image, labels = source.load(i)
        assert image.getpixel((0, 0)) == (int(place), 90, 150)
        assert labels.dtype == np.uint8
        assert (labels[-1] == 255).all()
        mine = {NAMES.get(own, own) for own in (part.class_names[c - 1] for c in part.held[int(place)])}
        assert {source.class_names[c - 1] for c in np.unique(labels[:-1]) if c} == mine
        assert {source.class_names[c - 1] for c in source.index.classes_in(i)} == mine
        for c in range(1, 7):
            assert (mask_of(source, i, c, labels) == class_mask(labels, c)).all()
    with pytest.raises(IndexError):
        source.load(24)


@given(st.permutations(["voc", "coco", "street"]))
@settings(max_examples=6, deadline=None)
def test_classes_and_hash_do_not_depend_on_the_order_of_the_sources(order: list[str]) -> None:
    known = {"voc": VOC, "coco": COCO, "street": STREET}
    again = mix({key: known[key] for key in order})
    assert (again.class_names, again.index.sha256) == (mix().class_names, mix().index.sha256)


@given(seed=st.integers(0, 2**32), draw=st.sampled_from(["image", "class"]), partial=st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_query_without_the_class_is_a_photo_whose_labels_tell_of_it(seed: int, draw: str, partial: bool) -> None:
    source = mix(absent={"street": ["sofa"]}, partial=["coco"] if partial else [])
    fold = Fold.of(0, [], classes=6)
    told = (
        pytest.warns(DataWarning, match="labels of 8 of 24 training images tell of no class")
        if partial
        else nullcontext()
    )
    with told:
        drawn = TrainingEpisodes(source, fold, seed=seed, draw=draw, negatives=0.7)
    own = {"voc": {"airplane", "cat", "couch"}, "coco": {"airplane", "couch", "zebra"}, "street": {"tree", "road"}}
    negatives = 0
    for spec in map(drawn.spec, range(60)):
        key, name = source.ids[spec.query].partition("/")[0], source.class_names[spec.class_id - 1]
        if not source.index.counts[spec.query, spec.class_id]:
            negatives += 1
            assert name in own[key] | ({"couch"} if key == "street" else set())
            assert not (partial and key == "coco")
    assert negatives > 10


def test_all_else_may_be_said_to_be_absent() -> None:
    source = mix(absent={"street": ["all"]}, partial=["voc"])
    assert source.labelled(source.ids.index("street/0")).all()
    known = source.labelled(source.ids.index("voc/3"))
    assert {n for n, k in zip(source.class_names, known[1:], strict=True) if k} == {"cat", "couch"}


def test_a_source_of_more_weight_is_drawn_more_often() -> None:
    source = mix(novel_classes=["zebra"], weights={"voc": 4})
    fold = source.fold(0)
    drawn = Counter(TrainingEpisodes(source, fold, draw="class").spec(g).class_id for g in range(600))
    share = {source.class_names[c - 1]: n / 600 for c, n in drawn.items()}
    # three classes of weight 4, coco's couch and airplane among them, and two of weight 1
    assert share == pytest.approx({n: (1 if n in STREET.class_names else 4) / 14 for n in share}, abs=0.05)
    regions = WithRegions(source, np.array([0]), np.zeros((1, 6, 6), np.uint8), np.array([[9, 9]]))
    assert regions.class_weights is not None
    assert regions.class_weights.tolist() == [0, 4, 4, 1, 1, 1, 4, 1, 1]
    with pytest.raises(UsageError, match=r"data.weights are for train.draw=class"):
        TrainingEpisodes(source, fold)


def test_the_folds_of_one_source_leave_out_namesakes_everywhere() -> None:
    source = mix(fold_of="voc")
    assert [source.class_names[c - 1] for c in source.fold(0).novel] == ["airplane"]
    assert [source.class_names[c - 1] for c in source.fold(1).novel] == ["cat"]
    kept = [source.ids[i] for i in training_images(source, source.fold(0), novel="drop")]
    assert "coco/1" not in kept
    assert "voc/4" not in kept
    assert {"coco/0", "street/0", "voc/1"} <= set(kept)
    named = mix(novel_classes=["Sofa", "aeroplane"])
    assert [named.class_names[c - 1] for c in named.fold(0).novel] == ["couch", "airplane"]
    assert mix(folds=3).fold(2).novel


def test_base_labels_call_nothing_background_that_may_be_a_class_without_a_mark() -> None:
    source = mix()
    fold = source.fold(0)
    data = EpisodeDataset(
        source, fold, spec_of=TrainingEpisodes(source, fold).spec, length=9, transform=Squeeze(SIDE), novel="drop"
    )
    for g in range(9):
        (sample,) = [data[g]]
        known = sample.episode.base_known
        query = source.ids[sample.specs[0].query].partition("/")[0]
        ids = {source._joined[1][query][c] for c in range(len(source.parts[query].class_names))}
        assert known is not None
        assert known[0].tolist() == [c in ids for c in fold.base]
    _, labels, known = BaseDataset(source, fold, transform=Squeeze(SIDE), novel="background")[0]
    assert labels.shape == (SIDE, SIDE)
    assert not known.all()


def many_classes(count: int) -> tuple[Mix, Fold]:
    words = [f"kind {c}" for c in range(count)]
    sources = {"a": Few(words, [[w] for w in words]), "b": Few(words[100:], [[w] for w in words[100:]])}
    return mix(sources), Fold.of(0, range(1, 30), classes=count)


def test_more_classes_than_a_byte_holds() -> None:
    source, fold = many_classes(300)
    last = source.load(299)[1]
    assert last.dtype == np.uint16
    assert last[0, 0] == 300
    assert (last[-1] == 65535).all()
    # class 284 is base class 255: no void may be mistaken for it, nor it for void
    query, support = source.ids.index("a/283"), source.ids.index("b/183")
    spec = EpisodeSpec(query, 284, (support,))
    data = EpisodeDataset(source, fold, spec_of=lambda _: spec, length=1, transform=Squeeze(SIDE))
    episode = data[0].episode
    assert episode.query_mask is not None
    assert episode.query_base_mask is not None
    assert (episode.query_mask[0, 0, :10] == 1).all()
    assert (episode.support_masks[0, 0, 0, :10] == 1).all()
    assert (episode.query_base_mask[0, 0, :10] == 255).all()
    assert (episode.query_base_mask[0, -1] == 65535).all()
    mask, bases = data.class_maps(data.load_views(query, [0])[0][1], 284)
    assert torch.equal(bases, episode.query_base_mask[0])
    assert torch.equal(mask, episode.query_mask[0])
    heads = BaseHeads(4, len(fold.base), 2)
    logits = heads(torch.ones(1, 4, SIDE, SIDE)).detach().requires_grad_()
    heads.loss(logits, episode.query_base_mask, episode.base_known).backward()
    assert logits.grad is not None
    assert (logits.grad[0, 1, 255, 0, :10] < 0).all()  # it learns the class, where the class is marked
    assert (logits.grad[0, :, :, -1] == 0).all()  # and nothing from void


def test_what_is_wrong_is_refused_with_what_to_do() -> None:
    for options, text in (
        ({"sources": {}}, "give data.sources="),
        ({"sources": {"a/b": VOC}}, "letters, digits"),
        ({"names": {"vco": {}}}, "unknown data.names 'vco'.*Did you mean 'voc'"),
        ({"names": {"voc": {"cta": "x"}}}, "Did you mean 'cat'"),
        ({"names": {"voc": {"cat": "sofa"}}}, "'cat' and 'sofa', which would both be.*data.names.voc"),
        ({"synonyms": {"couch": ["sofas"]}}, "no source has a class 'sofas'.*Did you mean 'sofa'"),
        ({"synonyms": {"a": ["cat"], "b": ["cat"]}}, "'cat' under 'a' and 'b'"),
        ({"absent": {"voc": ["cat"]}}, "has the class 'cat' itself"),
        ({"absent": {"voc": ["dog"]}}, "unknown data.absent.voc 'dog'"),
        ({"weights": {"voc": 0}}, "data.weights.voc=0: give a number above 0"),
        ({"partial": ["x"]}, "unknown data.partial 'x'"),
        ({"fold_of": "x"}, "unknown data.fold_of 'x'"),
        ({"fold_of": "voc", "novel_classes": ["cat"]}, "leave out data.novel_classes"),
    ):
        with pytest.raises(UsageError, match=text):
            _ = mix(**options).index
    with pytest.raises(UsageError, match=r"unknown novel class 'cta': none of coco, street, voc has it. Did you mean"):
        mix(novel_classes=["cta"]).fold(0)
    unnamed = Few(["class_1", "class_2"], [["class_1"]])
    with pytest.raises(UsageError, match="'class_1' has no name"):
        _ = mix({"a": unnamed, "b": unnamed}).index
    wrong = mix({"voc": VOC})
    with pytest.raises(DataError, match=r"voc/0: label value 9 is no class of the source voc, which has 0 to 3"):
        wrong._mapped("voc", np.full((2, 2), 9, np.uint8), "voc/0")


def test_it_goes_to_another_process_whole() -> None:
    again = pickle.loads(pickle.dumps(mix()))
    assert again.index.sha256 == mix().index.sha256


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Photos with masks of cats and dogs, and label maps of trees and a dog; one photo is in both."""
    trees.write_masks(tmp_path / "pets", {f"{c}/{n}": trees.label_map({1: 200}) for c in ("cat", "dog") for n in "012"})
    maps = {f"{n}": trees.label_map({1: 300, 2: 200}) for n in range(3)}
    trees.write_labels(tmp_path / "park", maps, classes=["tree", "Dog"])
    (tmp_path / "park/images/0.jpg").write_bytes((tmp_path / "pets/images/dog/0.jpg").read_bytes())
    (tmp_path / "mine.yaml").write_text(
        "data:\n  name: mix\n  sources:\n    pets: {name: folder, root: pets}\n    park: {name: folder, root: park}\n"
    )
    return tmp_path


def test_a_file_says_it_and_roots_lie_below_the_root(tree: Path) -> None:
    words = (str(tree / "mine.yaml"), f"data.root={tree}")
    config = load_config(*words)
    source = create_source(config, "train")
    assert source.class_names == ("tree", "Dog", "cat")
    (tree / "again.yaml").write_text(as_yaml(config))
    again = create_source(load_config(str(tree / "again.yaml")), "train")
    assert again.index.sha256 == source.index.sha256
    photos = photos_fingerprint(source)
    (tree / "pets/images/cat/0.jpg").write_bytes((tree / "pets/images/cat/1.jpg").read_bytes())
    assert photos_fingerprint(source)["photos"] != photos["photos"]
    assert len(create_source(load_config(*words, "data.sources.park=null"), "train").index.ids) == 6
    renamed = load_config(*words, "data.names={pets: {cat: yes, dog: 1}}", "data.absent={park: yes}")
    assert create_source(renamed, "train").class_names == ("tree", "Dog", "yes", "1")  # names are text


def test_a_source_s_faults_are_told_by_its_own_keys(tree: Path) -> None:
    words = (str(tree / "mine.yaml"), f"data.root={tree}")
    for word, text in (
        ("data.sources.pets.root=nowhere", "data.sources.pets: .*nowhere"),
        ("data.sources.pets.root=null", "give data.sources.pets.root=DIR"),
        ("data.sources.pets.lable=2", "unknown key data.sources.pets.lable.*'data.sources.pets.label'"),
        ("data.sources.pets.min_pixels=many", "data.sources.pets.min_pixels is 'many'; give a whole number"),
        ("data.sources.pets.name=foldr", "unknown source 'foldr'.*Did you mean 'folder'"),
        ("data.sources.zoo={root: zoo}", "data.sources.zoo is .* names no data set"),
        ("data.sources=pets", "give data sets by name"),
        ("data.names={pets: {cat: [1]}}", "data.names is .*; give a text"),
    ):
        with pytest.raises((UsageError, DataError), match=text):
            create_source(load_config(*words, word), "train")


def test_a_file_s_source_of_unknown_code_is_refused(tree: Path) -> None:
    (tree / "bad.yaml").write_text("data: {name: mix, sources: {a: {name: 'stranger.code:Source'}}}\n")
    with pytest.raises(UsageError, match=r"bad.yaml names the class stranger.code:Source.*--plugin stranger"):
        load_config(str(tree / "bad.yaml"))
    with pytest.raises(UsageError, match=r"cannot import source 'stranger.code:Source'"):
        load_config(str(tree / "mine.yaml"), "data.sources.pets.name='stranger.code:Source'")


def test_a_shared_model_tells_no_path_of_a_source() -> None:
    told = _without_roots({"root": "/a", "fold": 0, "sources": {"x": {"name": "folder", "root": "/b"}}})
    assert told == {"fold": 0, "sources": {"x": {"name": "folder"}}}


def test_the_commands_show_what_was_joined_and_copies_of_photos(tree: Path) -> None:
    words = [str(tree / "mine.yaml"), f"data.root={tree}"]
    shown = CliRunner().invoke(app, ["data", "stats", "mix", *words])
    assert "joined as Dog: park/Dog, pets/dog" in shown.stdout
    assert "pets: 6 images to train on, 6 to test on, 2 classes" in shown.stdout
    checked = CliRunner().invoke(app, ["data", "check", "mix", *words])
    assert f"9 images of {tree}: nothing wrong" in checked.stdout
    assert "1 photo in several sources" in checked.stderr
    assert "park/0 = pets/dog/0" in checked.stderr
    (tree / "park/labels/1.png").unlink()
    again = CliRunner().invoke(app, ["data", "check", "mix", *words])
    assert again.exit_code == 1


def test_a_later_data_set_takes_no_options_of_the_former(tree: Path) -> None:
    config = load_config(str(tree / "mine.yaml"), "data.shots=5", "scenes")
    assert (config.data.name, config.data.shots, "sources" in config.data.options) == ("scenes", 5, False)
