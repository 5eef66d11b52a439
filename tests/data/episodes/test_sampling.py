from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewseg.data.episodes.lists import EpisodeList, EpisodeSpec
from fewseg.data.episodes.protocols import PROTOCOLS, get_protocol, paper_seeds
from fewseg.data.episodes.sampling import TrainingEpisodes, sample_episodes, training_images
from fewseg.data.source import Fold, SourceIndex, make_fold
from fewseg.errors import DataError, DataWarning, UsageError

LIKE_HSNET = ("hsnet", "patnet", "matcher")


class Table:
    """A source that is its index alone."""

    name, subset, min_pixels = "table", "train", 100

    def __init__(self, counts: np.ndarray) -> None:
        self.index = SourceIndex(tuple(f"im,{i}" for i in range(len(counts))), np.asarray(counts, np.int64))
        self.class_names = tuple(f"class {c}" for c in range(1, counts.shape[1]))

    def load(self, i: int):
        raise NotImplementedError

    def fold(self, index: int) -> Fold:
        return make_fold(index, classes=len(self.class_names))


def table(seed: int = 0, *, images: int = 120, classes: int = 8) -> Table:
    rng = np.random.default_rng(seed)
    counts = np.where(rng.random((images, 1 + classes)) < 0.3, rng.integers(1, 400, (images, 1 + classes)), 0)
    counts[np.arange(images), 1 + np.arange(images) % classes] = 150
    return Table(counts)


def draw(
    name: str, source: Table, *, seed: int = 0, shots: int = 2, dataset: str = "pascal5i", **options
) -> EpisodeList:
    protocol = get_protocol(name, dataset=dataset)
    return sample_episodes(source, source.fold(1), protocol=protocol, seed=seed, shots=shots, **options)


@given(seed=st.integers(0, 2**32), shots=st.integers(1, 5), name=st.sampled_from(PROTOCOLS), coco=st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_protocol_keeps_the_rules_of_an_episode(seed: int, shots: int, name: str, coco: bool) -> None:
    source = table()
    episodes = draw(name, source, seed=seed, shots=shots, episodes=50, dataset="coco20i" if coco else "pascal5i")
    novel, counts = source.fold(1).novel, source.index.counts
    for spec in episodes.specs:
        assert spec.class_id in novel
        assert len(spec.support) == shots
        assert spec.query not in spec.support
        generalised = name.endswith("-generalised")
        least = 0 if generalised else source.min_pixels if name in ("fewseg", "whole", *LIKE_HSNET) else 1
        assert counts[spec.query, spec.class_id] >= least
        assert (counts[list(spec.support), spec.class_id] >= (1 if generalised else source.min_pixels)).all()
        if name not in LIKE_HSNET:
            assert len(set(spec.support)) == shots


def test_whole_takes_every_pair_once_and_references_draw_supports_alone() -> None:
    source = table()
    pools = {c: source.index.images_of(c, min_pixels=source.min_pixels) for c in source.fold(1).novel}
    listed = draw("whole", source)
    pairs = [(spec.query, spec.class_id) for spec in listed.specs]
    assert sorted(pairs) == sorted((int(i), c) for c, pool in pools.items() for i in pool)
    assert pairs != sorted(pairs)
    whole = get_protocol("whole", dataset="pascal5i")
    three = sample_episodes(source, source.fold(1), protocol=whole.varied(references=3), seed=0, shots=2)
    assert three.specs[::3] == listed.specs
    for first, *others in (three.specs[i : i + 3] for i in range(0, len(three), 3)):
        assert all((o.query, o.class_id) == (first.query, first.class_id) for o in others)
    assert (
        sum(len({spec.support for spec in three.specs[i : i + 3]}) > 1 for i in range(0, len(three), 3))
        > len(pairs) / 2
    )


def test_fewseg_draws_classes_and_their_images_equally_often() -> None:
    source = table()
    episodes = draw("fewseg", source, episodes=401)
    by_class = Counter(spec.class_id for spec in episodes.specs)
    assert set(by_class) == set(source.fold(1).novel)
    assert max(by_class.values()) - min(by_class.values()) <= 1
    for class_id in by_class:
        queries = Counter(spec.query for spec in episodes.specs if spec.class_id == class_id)
        assert set(queries) == set(source.index.images_of(class_id, min_pixels=100).tolist())
        assert max(queries.values()) - min(queries.values()) <= 1


def test_papers_take_queries_in_list_order_and_classes_of_any_pixel() -> None:
    source = table()
    novel = source.fold(1).novel
    listed = [i for i in range(120) if (source.index.counts[i, list(novel)] >= 100).any()]
    episodes = draw("hdmnet", source, episodes=1000)
    assert [spec.query for spec in episodes.specs] == [listed[e % len(listed)] for e in range(1000)]
    few = [spec for spec in episodes.specs if source.index.counts[spec.query, spec.class_id] < 100]
    assert few


def test_in_order_can_keep_the_rule_for_the_class_too() -> None:
    source, protocol = table(), replace(get_protocol("hdmnet", dataset="pascal5i"), query_class="eligible")
    specs = sample_episodes(source, source.fold(1), protocol=protocol, seed=0, shots=1).specs
    assert min(source.index.counts[spec.query, spec.class_id] for spec in specs) >= 100


def test_hsnet_pairs_in_order_and_supports_with_repeats() -> None:
    source = table()
    novel = source.fold(1).novel
    pairs = [(i, c) for i in range(120) for c in novel if source.index.counts[i, c] >= 100]
    episodes = draw("hsnet", source, episodes=300, shots=5)
    assert [(s.query, s.class_id) for s in episodes.specs] == [pairs[e % len(pairs)] for e in range(300)]
    assert any(len(set(spec.support)) < 5 for spec in episodes.specs)


def test_patnet_takes_classes_in_turn() -> None:
    source = table()
    specs = draw("patnet", source, episodes=100, dataset="deepglobe").specs
    assert [spec.class_id for spec in specs] == [source.fold(1).novel[e % 2] for e in range(100)]
    assert len({spec.query for spec in specs}) > 20


@given(seed=st.integers(0, 2**32), shots=st.integers(1, 3), name=st.sampled_from(PROTOCOLS))
@settings(max_examples=30, deadline=None)
def test_images_cut_from_one_photo_are_never_in_one_episode(seed: int, shots: int, name: str) -> None:
    source = table()
    source.cut_from = np.arange(120) // 3
    for dataset in ("pascal_part", "paco_part"):
        for spec in draw(name, source, seed=seed, shots=shots, episodes=30, dataset=dataset).specs:
            assert spec.query // 3 not in {i // 3 for i in spec.support}
    episodes = TrainingEpisodes(source, source.fold(1), shots=shots, seed=seed)
    for spec in map(episodes.spec, range(30)):
        photos = [i // 3 for i in (spec.query, *spec.support)]
        assert len(set(photos)) == len(photos)


def test_a_class_whose_images_are_all_cut_from_one_photo_is_not_drawn() -> None:
    counts = np.zeros((8, 3), np.int64)
    counts[:4, 1] = counts[4:, 2] = 500
    source = Table(counts)
    source.cut_from = np.array([0, 0, 0, 0, 1, 2, 2, 2])
    protocol = get_protocol("matcher", dataset="paco_part")
    with pytest.warns(DataWarning, match="class 'class 1' has 1 image; 1-shot episodes need 2"):
        specs = sample_episodes(
            source, Fold.of(0, [1, 2], classes=2), protocol=protocol, seed=0, shots=1, episodes=300
        ).specs
    queries = Counter(spec.query for spec in specs)
    assert set(queries) == {4, 5, 6, 7}
    assert 0.4 < queries[4] / len(specs) < 0.6  # a photo first, then what is cut from it


def test_several_ways_are_classes_of_one_query_the_first_of_which_it_holds() -> None:
    counts = np.zeros((120, 13), np.int64)
    rng = np.random.default_rng(0)
    for i in range(120):
        counts[i, rng.choice(np.arange(1, 13), 2, replace=False)] = 500
    source = Table(counts)
    fold = Fold.of(0, [1, 2, 3, 4], classes=12)
    plain = get_protocol("fewseg", dataset="x")
    one, three = (
        sample_episodes(source, fold, protocol=plain.varied(ways=n), seed=0, shots=2, episodes=40) for n in (1, 3)
    )
    assert three.specs[::3] == one.specs
    for group in (three.specs[i : i + 3] for i in range(0, 120, 3)):
        assert len({spec.query for spec in group}) == 1
        assert len({spec.class_id for spec in group}) == 3
        assert all(counts[i, spec.class_id] and i != spec.query for spec in group for i in spec.support)
    with pytest.raises(UsageError, match="5 classes at once, and 4 to draw in this fold"):
        sample_episodes(source, fold, protocol=plain.varied(ways=5), seed=0, shots=1)
    for more in ({"absent": 0.2}, {"references": 2}):
        with pytest.raises(UsageError, match="ways=2"):
            plain.varied(ways=2, **more)


def test_all_novel_classes_have_the_same_supports_in_every_query() -> None:
    source = table()
    listed = draw("fewseg-all-generalised", source, episodes=50, shots=2)
    novel = source.fold(1).novel
    supports = {c: {spec.support for spec in listed.specs if spec.class_id == c} for c in novel}
    assert all(len(found) == 1 for found in supports.values())
    taken = {i for found in supports.values() for images in found for i in images}
    assert not taken & {spec.query for spec in listed.specs}
    assert [spec.class_id for spec in listed.specs] == 50 * list(novel)
    assert (
        draw("fewseg-all-generalised", source, episodes=50, shots=2, seed=1).specs[0].support not in supports[novel[0]]
    )


@pytest.mark.parametrize("name", ["bam-generalised", "fewseg-generalised"])
def test_generalised_episodes_follow_bams_rule(name: str) -> None:
    source = table()
    source.index.counts[7, 1:] = 0  # an image without any class is no query
    fold, counts = source.fold(1), source.index.counts
    listed = np.flatnonzero(counts[:, 1:].any(1)).tolist()
    specs = draw(name, source, episodes=3 * len(listed)).specs
    queries = [spec.query for spec in specs]
    if name == "bam-generalised":
        assert queries == 3 * listed
    else:
        laps = [queries[i : i + len(listed)] for i in range(0, len(queries), len(listed))]
        assert all(sorted(lap) == listed for lap in laps)
        assert laps[0] != laps[1]
    present = [{c for c in fold.novel if counts[spec.query, c]} for spec in specs]
    with_base = [bool(counts[spec.query, list(fold.base)].any()) for spec in specs]
    assert all(spec.class_id in own for spec, own, b in zip(specs, present, with_base, strict=True) if not b)
    free = [spec.class_id in own for spec, own, b in zip(specs, present, with_base, strict=True) if b]
    assert any(free)
    assert not all(free)
    assert {spec.class_id for spec in specs} == set(fold.novel)
    assert any(0 < counts[i, spec.class_id] < source.min_pixels for spec in specs for i in spec.support)


@given(seed=st.integers(0, 1000), first=st.integers(1, 60), more=st.integers(0, 60))
@settings(max_examples=20, deadline=None)
@pytest.mark.slow
def test_an_episode_depends_on_its_number_alone(seed: int, first: int, more: int) -> None:
    source = table()
    for name in PROTOCOLS:
        short, long = (draw(name, source, seed=seed, episodes=n) for n in (first, first + more))
        assert short.specs == long.specs[: len(short)]


def test_hash_is_pinned() -> None:
    """Published hashes must stay: a change here makes every published episode list unreproducible."""
    counts = np.zeros((40, 9), np.int64)
    counts[np.arange(40), 1 + np.arange(40) % 8] = 100
    assert (
        draw("fewseg", Table(counts), episodes=100).sha256
        == "6a6a6c405ac380bc8bf464608858feb92324c93e3c5dcd86803efac0504c696d"
    )
    assert (
        draw("hdmnet", Table(counts), episodes=100).sha256
        == "00cb436eca2910fdcc31d7f38936a18818b86939afa8cd5bf027c81393a86be7"
    )


def test_seeds_and_protocols_differ_in_hash() -> None:
    source = table()
    hashes = {draw(name, source, seed=seed, episodes=50).sha256 for name in ("fewseg", "hsnet") for seed in range(3)}
    assert len(hashes) == 6


def test_too_few_images_are_told() -> None:
    counts = np.zeros((20, 5), np.int64)
    counts[:17, 1] = counts[17:, 2] = 500
    source = Table(counts)
    protocol = get_protocol("fewseg", dataset="x")
    with pytest.raises(DataError, match="class 'class 2' has 3 images; 5-shot episodes need 6"):
        sample_episodes(source, source.fold(1), protocol=protocol, seed=0, shots=5)
    with pytest.raises(UsageError, match="shots=0"):
        sample_episodes(source, source.fold(0), protocol=protocol, seed=0, shots=0)
    with pytest.raises(UsageError, match="no class to draw"):
        sample_episodes(source, source.fold(0), protocol=protocol, seed=0, shots=1, classes=())


def test_a_class_with_too_few_images_is_left_out_and_named_once() -> None:
    counts = np.zeros((30, 9), np.int64)
    counts[np.arange(30), 1 + np.arange(30) % 3] = 500  # classes 1 to 3 have ten images each
    counts[:2, 4] = 500
    source, protocol = Table(counts), get_protocol("fewseg", dataset="x")
    fold = Fold.of(0, (1, 4, 5), classes=5)
    with pytest.warns(
        DataWarning, match="the episodes: class 'class 4' has 2 images, class 'class 5' has 0 images; 2-"
    ):
        episodes = sample_episodes(source, fold, protocol=protocol, seed=0, shots=2, episodes=20)
    alone = sample_episodes(source, Fold.of(0, (1,), classes=5), protocol=protocol, seed=0, shots=2, episodes=20)
    assert episodes.specs == alone.specs
    other = Fold.of(1, (1,), classes=4)
    with pytest.warns(
        DataWarning, match=r"left out of training: class 'class 4' has 1 image; 2-shot .*data.novel=back"
    ):
        training = TrainingEpisodes(source, other, shots=2)
    assert {training.spec(g).class_id for g in range(60)} == {2, 3}
    assert set(training.images) == set(np.flatnonzero((counts[:, 2:4] > 0).any(1) & (counts[:, 1] == 0)))


def test_advice_can_be_followed() -> None:
    counts = np.zeros((4, 3), np.int64)
    counts[:3, 1] = counts[2:, 2] = 500
    source, protocol = Table(counts), get_protocol("fewseg", dataset="x")

    def refused(shots: int, classes: tuple[int, ...]) -> str:
        with pytest.raises(DataError) as caught:
            sample_episodes(source, Fold.of(0, classes, classes=2), protocol=protocol, seed=0, shots=shots)
        return str(caught.value)

    assert refused(5, (1, 2)).endswith(
        ": add photos of the class, or give 2 shots, or take another fold than 0, or other data.novel_classes"
    )
    counts[:2, 1] = 0
    assert refused(1, (1,)).endswith(
        "What helps: add photos of the class, or take another fold than 0, or other data.novel_classes"
    )
    with pytest.raises(DataError, match=r"1 hold 100 pixels .* a novel class as well; data.novel=background keeps"):
        TrainingEpisodes(Table(counts[2:3]), Fold.of(0, (2,), classes=2))
    both = np.array([[0, 500, 500]])
    with pytest.raises(
        DataError, match=r"held out to validate on \(class 2\) as well; train.validation=none holds none"
    ):
        TrainingEpisodes(Table(both), Fold(0, (), (1,), held_out=(2,)))


def test_held_out_classes_can_be_drawn() -> None:
    source = table()
    fold = source.fold(0).hold_out(2)
    protocol = get_protocol("fewseg", dataset="x")
    episodes = sample_episodes(source, fold, protocol=protocol, seed=0, shots=1, episodes=20, classes=fold.held_out)
    assert {spec.class_id for spec in episodes.specs} == set(fold.held_out)


@given(seed=st.integers(0, 99), held_out=st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_no_unseen_class_in_training(seed: int, held_out: int) -> None:
    source = table(seed, images=400)
    fold = source.fold(0).hold_out(held_out)
    episodes = TrainingEpisodes(source, fold, shots=2, seed=seed)
    for g in range(0, 3 * len(episodes), 5):
        spec = episodes.spec(g)
        images = [spec.query, *spec.support]
        assert spec.class_id in fold.base
        assert not source.index.counts[images][:, list(fold.unseen)].any()
        assert (source.index.counts[images, spec.class_id] >= source.min_pixels).all()
        assert len(set(images)) == 3


def test_other_rules_keep_images_with_novel_classes() -> None:
    source = table()
    fold = source.fold(0)
    dropped, kept = (set(training_images(source, fold, novel=rule).tolist()) for rule in ("drop", "background"))
    assert dropped < kept
    with pytest.raises(UsageError, match=r"unknown data\.novel 'keep'; choose drop, background, ignore"):
        training_images(source, fold, novel="keep")


def test_every_training_image_is_the_query_once_per_epoch() -> None:
    episodes = TrainingEpisodes(table(), make_fold(0, classes=8), shots=1, seed=5)
    n = len(episodes)
    epochs = [[episodes.spec(g).query for g in range(e * n, (e + 1) * n)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == episodes.images.tolist()
    assert epochs[0] != epochs[1]


def test_save_and_load(tmp_path: Path) -> None:
    source = table()
    episodes = draw("fewseg", source, episodes=30)
    episodes.save(tmp_path / "list.csv")
    assert EpisodeList.load(tmp_path / "list.csv", source) == episodes
    text = (tmp_path / "list.csv").read_text().splitlines()
    assert text[:3] == ["# source: table", "# subset: train", "# fold: 1"]
    assert text[7] == "episode,class_id,class_name,query,support_1,support_2"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"im,', '"in,', "line 9: table .train. has no image 'in,"),
        ("0,3,class 3", "0,3,class 4", "line 9: class 3 is not 'class 4' in table"),
        ("0,3,", "0,three,", "line 9: class_id must be a whole number, not 'three'"),
        ("support_1", "first", "line 8: the columns must be episode,class_id"),
        ("# shots: 2", "# shots: 1", "line 8: the columns must be"),
        ("# shots: 2", "# shots: 1000000000", "says 1000000000 shots; table has 120 images"),
        ("# shots: 2", "# shots: 0", "says 0 shots"),
        ("0,3,class 3", f"0,3,{'class' * 30_000}", "line 9: this is no row of an episode list .field larger"),
        ("# seed: 0\n", "", "no line '# seed"),
        ("# source: table", "# source: other", "lists episodes of other"),
        ("# fold: 1", "# fold: one", "fold must be a whole number"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    source = table()
    path = tmp_path / "list.csv"
    draw("fewseg", source, episodes=3).save(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises((DataError, UsageError), match=message):
        EpisodeList.load(path, source)


def test_impossible_and_edited_episodes_are_refused(tmp_path: Path) -> None:
    source = table()
    path = tmp_path / "list.csv"
    head = "# source: table\n# subset: train\n# fold: 0\n# shots: 1\n# protocol: mine\n# seed: 0\n"
    columns = "episode,class_id,class_name,query,support_1\n"
    path.write_text(f'{head}{columns}0,1,class 1,"im,0","im,0"\n')
    with pytest.raises(DataError, match="line 8: the query 'im,0' is among its own supports"):
        EpisodeList.load(path, source)
    path.write_text(f'{head}{columns}0,1,class 1,"im,0"\n')
    with pytest.raises(DataError, match="line 8: 4 cells, but 5 columns"):
        EpisodeList.load(path, source)
    path.write_text(f'{head}{columns}0,1,class 1,"im,0","im,8"\n')
    assert EpisodeList.load(path, source).specs == (EpisodeSpec(0, 1, (8,)),)
    path.write_text(f'{head}# sha256: 123\n{columns}0,1,class 1,"im,0","im,8"\n')
    with pytest.raises(DataError, match="was changed after it was saved"):
        EpisodeList.load(path, source)
    with pytest.raises(DataError, match="cannot read the episode list"):
        EpisodeList.load(tmp_path / "none.csv", source)


def test_protocol_records() -> None:
    assert paper_seeds(5) == (510, 365, 382, 322, 988)
    for name in PROTOCOLS:
        record = get_protocol(name, dataset="coco20i").as_dict()
        assert record["repeats"] == len(record["seeds"])
        without = {key for key, value in record.items() if value is None}
        assert without <= ({"input_size", "episodes"} if name == "whole" else {"input_size"})
    pascal, coco = (get_protocol("hdmnet", dataset=dataset) for dataset in ("pascal5i", "coco20i"))
    assert (pascal.episodes, pascal.input_size, len(pascal.seeds)) == (1000, 473, 10)
    assert (coco.episodes, coco.input_size, len(coco.seeds)) == (10000, 633, 10)
    assert get_protocol("fewseg", dataset="x").seeds == (0, 1, 2, 3, 4)
    with pytest.raises(UsageError, match="unknown protocol 'voc'; choose fewseg, whole, hdmnet"):
        get_protocol("voc", dataset="pascal5i")


@given(seed=st.integers(0, 2**32), negatives=st.sampled_from([0.0, 0.3, 1.0]), draw=st.sampled_from(["image", "class"]))
@settings(max_examples=20, deadline=None)
def test_training_episodes_with_negatives_keep_the_rules(seed: int, negatives: float, draw: str) -> None:
    source = table()
    fold, counts = source.fold(1), source.index.counts
    episodes = TrainingEpisodes(source, fold, shots=2, seed=seed, draw=draw, negatives=negatives)
    for g in range(40):
        spec = episodes.spec(g)
        assert spec == TrainingEpisodes(source, fold, shots=2, seed=seed, draw=draw, negatives=negatives).spec(g)
        assert spec.class_id in fold.base
        assert spec.query not in spec.support
        assert (counts[list(spec.support), spec.class_id] >= source.min_pixels).all()
        if negatives == 0:
            assert counts[spec.query, spec.class_id] >= source.min_pixels
        if negatives == 1:
            held = [c for c in fold.base if counts[spec.query, c]]
            assert counts[spec.query, spec.class_id] == 0 or len(held) == len(fold.base)


def test_supports_by_turns_are_one_to_the_most_and_the_same_number_within_a_batch() -> None:
    source = table()
    episodes = TrainingEpisodes(source, source.fold(1), most_shots=3, batch=4)
    shots = [len(episodes.spec(g).support) for g in range(24)]
    assert shots == [1] * 4 + [2] * 4 + [3] * 4 + [1] * 4 + [2] * 4 + [3] * 4 == [*map(episodes.shots_of, range(24))]
    for g in range(24):
        spec = episodes.spec(g)
        assert spec.query not in spec.support
        assert len(set(spec.support)) == len(spec.support)


def test_by_turns_a_class_with_too_few_images_gives_some_several_times() -> None:
    counts = np.zeros((8, 9), np.int64)
    counts[:2, 1], counts[2:, 2] = 500, 500  # two images of one class, six of another
    source = Table(counts)
    with pytest.warns(DataWarning, match="1-shot episodes need 2"):  # the other classes have none
        episodes = TrainingEpisodes(source, source.fold(3), most_shots=5, draw="class")
    drawn = {(spec.class_id, len(spec.support)): spec for spec in map(episodes.spec, range(100))}
    assert drawn.keys() == {(c, k) for c in (1, 2) for k in range(1, 6)}
    assert set(drawn[1, 5].support) == {0, 1} - {drawn[1, 5].query}
    assert len(set(drawn[2, 5].support)) == 5


def test_classes_drawn_alike_are_not_weighed_by_their_images() -> None:
    counts = np.zeros((103, 9), np.int64)
    counts[:100, 3] = 500  # one class in a hundred images, the others in three
    counts[100:, 1:7] = 500
    source = Table(counts)
    by_class, by_image = (TrainingEpisodes(source, source.fold(3), draw=draw) for draw in ("class", "image"))
    drawn = Counter(by_class.spec(g).class_id for g in range(600))
    assert set(drawn) == set(source.fold(3).base)
    assert max(drawn.values()) < 2 * min(drawn.values())
    assert Counter(by_image.spec(g).class_id for g in range(600))[3] > 500
    # 103 photos beside five times 3: 0.54 and 0.87 of the episodes
    for power, least, most in ((0.5, 0.45, 0.63), (1.0, 0.8, 0.93)):
        weighed = TrainingEpisodes(source, source.fold(3), draw="class", power=power)
        drawn = Counter(weighed.spec(g).class_id for g in range(600))
        assert set(drawn) == set(source.fold(3).base)
        assert least < drawn[3] / 600 < most


@pytest.mark.parametrize(
    ("options", "said"),
    [({"draw": "pixel"}, "image, class"), ({"negatives": 1.5}, "0 to 1"), ({"power": 0.5}, "train.draw=class")],
)
def test_rules_of_training_that_are_none_are_refused(options: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TrainingEpisodes(table(), table().fold(1), **options)
