"""The demo at a size that ends in seconds."""

from __future__ import annotations

import json

import pytest

from fewseg.data.images import read_labels
from fewseg.errors import UsageError
from fewseg.experiments.demo import run_demo
from fewseg.progress import Silent
from helpers import TINY

pytestmark = pytest.mark.slow

WORDS = (
    *TINY,
    "data.images=60",
    "data.size=96",
    "train.epochs=1",
    "train.episodes_per_epoch=8",
    "train.val_episodes=4",
    "train.workers=0",
)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    run_demo(folder, overrides=WORDS, episodes=10, progress=Silent())
    return folder


def test_the_report_compares_the_model_with_its_ablation_and_baselines_on_the_same_episodes(out):
    page = (out / "report.html").read_text()
    for row in ("HDMNet", "lite", "dense matching", "masked-average prototype", "everything foreground"):
        assert f'scope="row">{row}<' in page
    assert "support mask taken away" in page
    for name in ("hdmnet", "lite"):
        (file,) = (out / name).glob("results-scenes-fewseg-*.json")
        results = json.loads(file.read_text())
        assert results["repeats"][0]["episode_sha256"] in page
        assert results["repeats"][0]["episodes"] == 10
    trained = page.split(">training</th>")[1].split("</tr>")[0]
    assert trained.count("trained on scenes") == 3  # HDMNet, without the support mask too, and lite; the others never
    assert trained.count("none, or not known") == 2


def test_the_report_opens_with_labelled_pictures_of_episodes_and_shows_masks_of_a_folder(out):
    page = (out / "report.html").read_text()
    opening = page.split('id="opening"')[1].split("</section>")[0]
    for label in ("support", "query", "truth", "HDMNet", "lite", "dense matching", "wrongly marked", "missed"):
        assert label in opening
    assert page.index('id="opening"') < page.index('id="comparison"')
    assert "masked by lite" in page
    assert "stage 3" in page
    assert "http" not in page.split("<body")[1]
    assert not any(f">{word}<" in page for word in ("None", "True", "False"))


def test_masks_of_the_pictures_own_sizes_are_there(out):
    photos = sorted((out / "photos").glob("*.png"))
    assert photos
    for photo in photos:
        assert set(read_labels(out / "masks" / photo.name).ravel().tolist()) <= {0, 255}


def test_a_folder_that_exists_is_left_alone(out):
    before = sorted(out.rglob("*"))
    with pytest.raises(UsageError, match="exists already"):
        run_demo(out, overrides=WORDS, progress=Silent())
    assert sorted(out.rglob("*")) == before
