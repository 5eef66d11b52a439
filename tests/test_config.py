"""Recipes, overrides, and what is said of wrong ones."""

from __future__ import annotations

import contextlib
import re
from importlib import resources
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fewseg import registry
from fewseg.config import Config, load_config, recipes
from fewseg.errors import DataError, FewsegError, UsageError

METHODS = [n for n in recipes() if n.removesuffix("-paper") in {"base", *registry.classes("model")}]
SOURCES = [name for name in recipes() if name in registry.classes("source")]


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_recipe_that_lies_here_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("train: {epochs: 1}\n")
    with pytest.raises(UsageError, match=r"unknown recipe 'mine'. mine.yaml is here: give it so"):
        load_config("mine", "scenes")


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_loads_and_comes_back_from_the_file_that_a_run_keeps(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    text = yaml.safe_dump(config.as_dict(), sort_keys=False)
    assert load_config(write(tmp_path / "config.yaml", text)) == config


@pytest.mark.parametrize("source", SOURCES)
def test_every_method_goes_with_every_data_set(source: str) -> None:
    for method in METHODS:
        config = load_config(method, source)
        assert (config.model.name, config.data.name) == (method.removesuffix("-paper"), source)


def test_recipes_are_short_enough_to_read() -> None:
    for names, limit in ((METHODS, 25), (SOURCES, 12)):
        for name in names:
            lines = (resources.files("fewseg") / "configs" / f"{name}.yaml").read_text().splitlines()
            assert len(lines) <= limit, name


def test_every_trained_method_has_a_laptop_recipe_and_the_papers() -> None:
    for name, cls in registry.classes("model").items():
        assert name in recipes()
        assert load_config(name).model.backbone == ("lite2" if name == "lite" else "lite0")  # which are installed
        if cls.trainable and name != "lite":  # which no paper describes
            paper = load_config(f"{name}-paper")
            assert (paper.train.validation, paper.model.weights) == ("novel", "imagenet")


def test_overrides_win_over_recipes_and_later_recipes_over_earlier(tmp_path: Path) -> None:
    first = write(tmp_path / "first.yaml", "train: {lr: 1, epochs: 7}")
    second = write(tmp_path / "second.yaml", "train: {lr: 2}")
    config = load_config("train.batch_size=3", first, second, "train.lr=3", "data.sbd=all", "model.temperature=2")
    assert (config.train.lr, config.train.epochs, config.train.batch_size) == (3.0, 7, 3)
    assert config.model.options["temperature"] == 2.0
    assert config.data.options["sbd"] == "all"


def test_a_part_for_one_data_set_is_used_with_that_one_only() -> None:
    assert load_config("hdmnet-paper", "pascal5i").train.epochs == 200
    assert [load_config(f"{name}-paper", "pascal5i").data.options["sbd"] for name in ("hsnet", "bam", "base")] == [
        "all",
        "train_noval",
        "train_noval",
    ]
    coco = load_config("hdmnet-paper", "coco20i")
    assert (coco.train.epochs, coco.train.batch_size, coco.model.options["image_size"]) == (50, 6, 633)
    assert coco.augment.scale == [0.8, 1.25]
    assert load_config("coco20i", "hdmnet-paper", "train.epochs=3").train.epochs == 3
    assert load_config("hdmnet-paper", "data.name=coco20i").train.epochs == 50


def test_options_of_the_chosen_classes_are_keys_with_their_types() -> None:
    config = load_config("hdmnet", "scenes", "model.support_mask=false", "data.images=7")
    assert config.model.options["support_mask"] is False
    assert config.data.options["images"] == 7
    with pytest.raises(UsageError, match=r"model\.support_mask"):
        load_config("hdmnet", "model.support_mask=perhaps")
    with pytest.raises(UsageError, match=r"data\.images"):
        load_config("scenes", "data.images=many")
    with pytest.raises(UsageError, match=r"unknown key data\.sbd"):
        load_config("scenes", "data.sbd=all")


@pytest.mark.parametrize("key", ["model.base_classes", "model.shots", "data.subset"])
def test_what_the_run_decides_is_no_key(key: str) -> None:
    with pytest.raises(UsageError, match=f"unknown key {re.escape(key)}"):
        load_config("hdmnet", "scenes", f"{key}=3")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["hdmnett"], "unknown recipe 'hdmnett'. Did you mean 'hdmnet' or .*`fewseg models` lists all"),
        (["model.name=hdmnett"], "unknown model 'hdmnett'.*Did you mean 'hdmnet'"),
        (["data.name=pascal"], "unknown source 'pascal'.*Did you mean 'pascal5i'"),
        (["trian.lr=1"], "unknown group 'trian'.*Did you mean 'train'"),
        (["init=lite"], "unknown group 'init'.*Did you mean 'train.init'"),
        (["folder", "root=photos"], "unknown group 'root'.*Did you mean 'data.root'"),
        (["train.epoch=1"], r"unknown key train\.epoch;.*Did you mean 'train\.epochs'"),
        (["hdmnet", "model.temprature=1"], r"unknown key model\.temprature;.*Did you mean 'model\.temperature'"),
        (["train=3"], r"train must be a group of keys"),
        (["data=pascal5i"], r"data must be a group of keys"),
    ],
)
def test_wrong_names_are_refused_with_a_suggestion(words: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_config(*words)


@pytest.mark.parametrize(
    ("word", "key", "given"),
    [
        ("train.epochs=abc", "train.epochs", "abc"),
        ("train.lr=fast", "train.lr", "fast"),
        ("train.epochs=1.5", "train.epochs", "1.5"),
        ("train.cache_features=2.5", "train.cache_features", "2.5"),
        ("data.fold=first", "data.fold", "first"),
        ("data.shots=[1,2]", "data.shots", ""),
        ("augment.scale=[a,b]", "augment.scale", "a"),
        ("augment.crop=sometimes", "augment.crop", "sometimes"),
        ("train.epochs=null", "train.epochs", ""),
        ("train.epochs=", "train.epochs", ""),
        ("model.image_size=big", "model.image_size", "big"),
        ("train.epochs=${nothing}", "train.epochs", "nothing"),
    ],
)
def test_a_wrong_type_is_named_with_its_key(word: str, key: str, given: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config("hdmnet", word)
    assert key in str(caught.value)
    assert given in str(caught.value)


@pytest.mark.parametrize(
    ("word", "allowed"),
    [
        ("train.epochs=0", "1 or more"),
        ("train.batch_size=0", "1 or more"),
        ("train.accumulate=-1", "1 or more"),
        ("train.val_every=0", "1 or more"),
        ("train.save_every=0", "1 or more"),
        ("train.val_episodes=0", "1 or more"),
        ("train.episodes_per_epoch=0", "1 or more"),
        ("train.devices=0", "1 or more"),
        ("train.workers=-1", "0 or more"),
        ("train.held_out=-2", "0 or more"),
        ("train.power=-1", "0 or more"),
        ("train.lr=-0.1", "0 or more"),
        ("train.lr=.nan", "0 or more"),
        ("train.seed=-1", "0 or more"),
        ("data.shots=0", "1 or more"),
        ("data.fold=-1", "0 or more"),
        ("base.epochs=0", "1 or more"),
    ],
)
def test_a_number_out_of_range_is_refused(word: str, allowed: str) -> None:
    key, _, _ = word.partition("=")
    with pytest.raises(UsageError, match=f"^{re.escape(key)} is .*; give {allowed}"):
        load_config("hdmnet", word)


@pytest.mark.parametrize(
    ("word", "close"),
    [("train.optimizer=adanw", "adamw"), ("train.validation=bse", "base"), ("data.novel=drp", "drop")],
)
def test_a_word_that_is_none_of_the_choices_is_refused_before_anything_is_trained(word: str, close: str) -> None:
    with pytest.raises(UsageError, match=f"choose .*Did you mean '{close}'"):
        load_config("hdmnet", word)


@pytest.mark.parametrize(
    "text",
    ["train: {lr: 1", "a: b: c", "\tx: 1", "- 1\n- 2", "just words", "3", "train: {lr: 1}\n---\ntrain: {lr: 2}"],
)
def test_a_broken_file_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"broken\.yaml"):
        load_config(write(tmp_path / "broken.yaml", text))


def test_a_file_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "noise.yaml").write_bytes(b"\xff\xfe\x00\x81")
    for name in ("noise.yaml", "nowhere.yaml"):
        with pytest.raises(DataError, match=re.escape(name)):
            load_config(str(tmp_path / name))


@pytest.mark.parametrize("text", ["when: 3", "when: [1]", "when: {pascal5i: 3}", "train: 3", "train: [1]", "1: {a: 2}"])
def test_a_file_with_other_things_where_groups_belong(text: str, tmp_path: Path) -> None:
    with pytest.raises(FewsegError):
        load_config(write(tmp_path / "odd.yaml", text))


def test_an_empty_file_and_empty_groups_change_nothing(tmp_path: Path) -> None:
    assert load_config(write(tmp_path / "empty.yaml", "")) == load_config()
    assert load_config(write(tmp_path / "empty.yaml", "train:\nwhen:\n")) == load_config()


def test_a_run_in_a_directory_with_an_equals_sign_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    assert load_config(write(folder / "config.yaml", "train: {lr: 0.1}")).train.lr == 0.1


WORDS_OF_LIBRARIES = re.compile(r"OmegaConf|Node|ListConfig|Traceback|NoneType|<class|object at|unpack|Scalar|yaml\\.")
ANY_KEY = ["train.epochs", "train.lr", "train.cache_features", "train.precision", "train.cache_dir", "train.clip"]
ANY_KEY += [
    "train.episodes_per_epoch",
    "augment.scale",
    "augment.area",
    "data.novel_classes",
    "data.root",
    "data.folds",
]
ANY_KEY += ["data", "data.novel", "train.optimizer"]


@given(
    st.sampled_from(ANY_KEY),
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            ["yes", "1", "null", "", "[]", "[1, a]", "{a: 1}", "[[1]]", "1e-3", "-3", "2020-01-01", "1:30"]
        ),
    ),
)
@settings(max_examples=200)
@pytest.mark.slow
def test_any_value_of_any_type_is_read_or_refused_in_plain_words(key: str, value: str) -> None:
    said = ""
    try:
        load_config("folder", f"{key}={value}")
    except FewsegError as error:
        said = str(error)
    assert not said or key.partition(".")[0] in said
    assert not WORDS_OF_LIBRARIES.search(said)


@given(
    st.lists(st.sampled_from(["cow", "yes", "no", "1", "null", "~", "1.50", "012", "2020-01-01", "1e3"]), min_size=1)
)
@pytest.mark.slow
def test_names_that_yaml_would_read_as_something_else_stay_as_written(names: list[str]) -> None:
    assert load_config("folder", f"data.novel_classes=[{', '.join(names)}]").data.options["novel_classes"] == names


def test_one_value_where_a_list_belongs_is_a_list_of_one(tmp_path: Path) -> None:
    def novel(*words: str) -> object:
        return load_config("folder", *words).data.options["novel_classes"]

    assert novel("data.novel_classes=cow") == ["cow"]
    assert novel("data.novel_classes=yes") == ["yes"]
    assert novel("data.novel_classes=null") is None
    assert novel(write(tmp_path / "mine.yaml", "data: {novel_classes: no}")) == ["no"]
    assert load_config("lite", "augment.area=[0.3, 1]").augment.area == [0.3, 1.0]


def test_numbers_are_of_their_key_s_type() -> None:
    config = load_config("hdmnet", "train.lr=1e-3", "train.clip=2", "train.cache_features=yes", "data.root=2024")
    assert (config.train.lr, config.train.clip, config.train.cache_features) == (0.001, 2.0, True)
    assert config.data.root == "2024"
    config = load_config("lite", "train.schedule=CosineAnnealingLR", "train.schedule_options.eta_min=1e-5")
    assert config.train.schedule_options == {"eta_min": 1e-5}  # text in YAML 1.1
    for word, wanted in (
        ("train.cache_features=2", "give true or false"),
        ("train.epochs=yes", "is 'yes'; give a whole number"),
        ("data.root=[a]", r"is '\[a\]'; give a text"),
        ("augment.scale=[1, wide]", r"give a number, or several in brackets"),
    ):
        with pytest.raises(UsageError, match=wanted):
            load_config("hdmnet", word)


KEYS = ["train.epochs", "train.lr", "model.name", "data.name", "data", "model.image_size", "augment.scale", "base.run"]


@settings(max_examples=50, deadline=None)
@given(
    st.one_of(st.sampled_from(KEYS), st.text(alphabet="tain.l[]{}$:\\ '\"-é", max_size=8)),
    st.one_of(st.text(max_size=8), st.text(alphabet="[]{}$.:,'\"#&*!|>%@`~?0aoen\\ \n", max_size=8)),
)
@example("", "")
@example("..", "1")
@example("train.epochs", "")
@example("model.name", "os:path")
@example("model.name", ":")
@example("data.name", "null")
@example("train.lr", "${train.epochs}")
@example("train.lr", "${train.lr}")
@example("train.lr", "${lr}")
@example("train.lr", "${oc.env:NOTHING}")
@example("augment.scale", "5")
@example("train.epochs[0]", "5")
@example("train.epochs", "1" * 5000)
def test_no_override_ever_ends_in_a_traceback(key: str, value: str) -> None:
    try:
        config = load_config("hdmnet", f"{key}={value}")
    except FewsegError:
        return
    assert isinstance(config, Config)
    assert isinstance(config.train.lr, float)
    assert isinstance(config.train.epochs, int)


LAUGHS = "a0: &a0 [x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20))
MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        MERGED,
        "model: &m {name: *m}",
        "data: " + "[" * 5000,
        "? [a, b]\n: 1",
        "? {a: b}\n: 1",
        "model: {name: !!python/name:os.system}",
    ],
    ids=range(7),
)
@pytest.mark.slow
def test_a_yaml_that_no_configuration_can_be_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(DataError, match=r"c\.yaml is no YAML that a configuration can be"):
        load_config(str(tmp_path / "c.yaml"))


@pytest.mark.parametrize("value", ["2001-99-99", "2001-01-01", "9" * 5000], ids=range(3))
def test_a_date_or_a_number_beyond_all_bounds_is_told_in_a_line(value: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"data: {{fold: {value}}}")
    with pytest.raises(UsageError, match=r"data\.fold is '.*; give a whole number") as error:
        load_config(str(tmp_path / "c.yaml"))
    assert len(str(error.value)) < 200


ODD = (
    *("2001-01-01", "2001-01-01 10:00:00", "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", ".inf"),
    *(".nan", "{1: 2}", "{null: 1}", "{true: 1}", "[[1]]", "${oc.env:HOME}", "${no.such}", "${", "'???'"),
)


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize(
    "key",
    ["model: {image_size: X}", "data: {name: X}", "train: {lr: X}", "train: X", "X: 1", "when: {scenes: {data: X}}"],
)
def test_values_of_odd_types_are_told(value: str, key: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(key.replace("X", value))
    with contextlib.suppress(FewsegError):
        load_config(str(tmp_path / "c.yaml"), "scenes")


def test_aliases_within_reason_are_taken(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("train: &t {lr: 0.5}\nwhen: {scenes: {train: {<<: *t, epochs: 3}}}")
    config = load_config(str(tmp_path / "c.yaml"), "scenes")
    assert (config.train.lr, config.train.epochs) == (0.5, 3)


def test_infinity_is_no_value_of_an_option() -> None:
    for word in ("train.cache_gb=inf", "train.timeout=inf", "train.lr=inf"):
        with pytest.raises(UsageError, match=f"{word.partition('=')[0]} is inf; give 0 or more"):
            load_config("hdmnet", "scenes", word)
