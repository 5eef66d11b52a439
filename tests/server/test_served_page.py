"""The page that `fewseg serve` gives out, in Chromium: the server computes, and nothing else is asked."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import fewseg
from fewseg.concept import Concept
from fewseg.data.annotations.read import load_supports
from fewseg.data.marks import Marks, mask_from_marks
from fewseg.data.masks import marking_of
from fewseg.data.winners import label_map
from fewseg.errors import UsageError
from fewseg.segment.table import COLUMNS
from fewseg.web.site import Example
from helpers import iou
from npm_packages import axe_script, barred
from served import Server, served
from served_page import QUERIES, SUPPORT, done, downloaded, opened, outline, place, truth
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture(scope="module")
def example(browser: Any, server: Server) -> Iterator[Any]:
    """The page on which the example was tried."""
    with opened(browser, server) as view:
        view.locator("#example").click()
        done(view, 3)
        view.get_by_text("Expected overlap").wait_for()
        yield view


def test_teach_by_a_polygon_find_correct_find_again_and_take_away(view, server, photos) -> None:
    support = photos / f"{SUPPORT}.png"
    view.set_input_files("#teach-files", str(support))
    view.locator("#marking").wait_for()
    view.get_by_label("Polygon", exact=True).check()
    to = place(view, support)
    height, width = truth(photos, SUPPORT).shape
    for x, y, side in ((0, 0, -1), (width, 0, 1), (width, height, 1), (0, height, -1)):  # beside the photo
        view.mouse.click(to(x, y)[0] + 5 * side, to(x, y)[1] + (5 if y else -5))
    view.locator("#editor").press("Enter")
    view.get_by_text("all of it is marked").wait_for()
    view.locator("#clear").click()
    corners = outline(truth(photos, SUPPORT))
    for x, y in [*corners, corners[0]]:
        view.mouse.click(*to(x, y))
    view.locator("#name").fill("owl")
    view.locator("#add").click()
    view.get_by_text("Expected overlap with the true mask").wait_for()
    view.set_input_files("#find-files", [str(photos / f"{number}.png") for number in QUERIES])
    done(view, 2)
    wanted = truth(photos, QUERIES[0])
    first = np.asarray(Image.open(io.BytesIO(downloaded(view, "#found .take >> nth=0")))) > 0
    assert first.shape == wanted.shape
    assert iou(first, wanted) > 0.6

    # painted out on the second photo, and taken as a further support
    asked = []
    view.once("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    with view.expect_event("dialog"):
        view.evaluate("() => location.reload()")
    assert asked == ["beforeunload"]  # what was taught would be lost
    view.locator("#found .correct >> nth=1").click()
    view.locator("#marking").wait_for()
    view.locator("#clear").click()
    view.get_by_label("Polygon", exact=True).check()
    query = photos / f"{QUERIES[1]}.png"
    to, corners = place(view, query), outline(truth(photos, QUERIES[1]))
    for x, y in corners:
        view.mouse.click(*to(x, y))
    view.get_by_role("button", name="Teach with it and find again").click()
    view.get_by_text("The polygon is still open").wait_for()
    view.locator("#editor").press("Enter")
    view.get_by_role("button", name="Teach with it and find again").click()
    view.locator("#supports li").nth(1).wait_for()
    done(view, 2)
    view.get_by_text("(corrected)").wait_for()
    second = np.asarray(Image.open(io.BytesIO(downloaded(view, "#found .take >> nth=1")))) > 0
    assert iou(second, truth(photos, QUERIES[1])) > 0.85
    again = np.asarray(Image.open(io.BytesIO(downloaded(view, "#found .take >> nth=0")))) > 0
    assert iou(again, wanted) > iou(first, wanted) - 0.05

    # what is taken away says the same in every form
    with zipfile.ZipFile(io.BytesIO(downloaded(view, "#all"))) as archive:
        mask = np.asarray(Image.open(archive.open(f"{QUERIES[0]}.png"))) > 0
    coco = json.loads(downloaded(view, "#all", "coco"))
    annotation = next(one for one in coco["annotations"] if one["image_id"] == 1)
    runs, size = annotation["segmentation"]["counts"], annotation["segmentation"]["size"]
    decoded = np.repeat(np.arange(len(runs)) % 2, runs).reshape(size[::-1]).T
    assert (decoded == mask).all()
    assert annotation["area"] == mask.sum()
    left, top, width, height = annotation["bbox"]
    assert mask[top : top + height, left : left + width].sum() == mask.sum()
    assert coco["categories"] == [{"id": 1, "name": "owl"}]
    row, corrected = csv.DictReader(io.StringIO(downloaded(view, "#all", "csv").decode()))
    assert [*row] == [column for column in COLUMNS if column not in ("mask", "value", "written")]
    assert abs(float(row["share"]) - mask.mean()) < 1e-5
    doubt = 1 - float(row["expected_iou"]) * float(row["presence"] or 1)
    assert float(row["doubt"]) == pytest.approx(doubt, abs=0.002)
    view.get_by_text(f"sure: {100 * (1 - doubt):.0f} %").wait_for()
    assert (corrected["expected_iou"], corrected["doubt"]) == ("", "")
    shapes = json.loads(downloaded(view, "#found .take >> nth=0", "geojson"))["features"]
    assert sum(one["properties"]["pixels"] for one in shapes) == mask.sum()
    with zipfile.ZipFile(io.BytesIO(downloaded(view, "#found .take >> nth=0", "yolo"))) as archive:
        assert archive.read("classes.txt") == b"owl\n"
        line = archive.read(f"{QUERIES[0]}.txt").decode().splitlines()[-1].split()
    drawn = Image.new("1", mask.shape[::-1])
    corners = np.array(line[1:], float).reshape(-1, 2) * mask.shape[::-1] - 0.5
    ImageDraw.Draw(drawn).polygon(corners.ravel().tolist(), fill=1)
    assert (line[0], iou(np.asarray(drawn), mask) > 0.95) == ("0", True)
    for kind, name in (("labelstudio", "a.json"), ("cvat", "a.xml"), ("labelme", "a.json"), ("via", "a.json")):
        (photos / name).write_bytes(downloaded(view, "#found .take >> nth=0", kind))
        if kind == "labelstudio":  # a person takes it as it is
            (task,) = json.loads((photos / name).read_text())
            (photos / name).write_text(json.dumps([task | {"id": 1, "annotations": task["predictions"]}]))
        (back,) = load_supports(photos / name, photos=photos)["owl"][1]
        assert ((back == 1) == mask).all(), kind
        (photos / name).unlink()
    concept = view.get_by_role("button", name="Download concept owl")
    with view.expect_download() as download:
        concept.click()
    assert [len(Concept.load(download.value.path()).supports), download.value.suggested_filename] == [2, "owl.concept"]
    assert b"\x89PNG" not in {file.read_bytes()[:4] for file in server.files()}  # no photo is kept
    view.goto("about:blank")
    until(lambda: not server.files())  # nor what was taught, once the page is left
    view.goto(server.url)


def test_the_gallery_is_sorted_filtered_and_thresholded_without_another_run(example) -> None:
    view = example
    asked: list[str] = []
    view.on("request", lambda request: asked.append(request.url))
    names = "() => [...document.querySelectorAll('#found li:not([hidden]) b')].map((one) => one.textContent)"
    given = view.evaluate(names)
    view.select_option("#sort", "most")
    most = view.evaluate(names)
    assert sorted(most) == sorted(given)
    assert most != given
    view.select_option("#sort", "given")
    view.locator("#threshold").fill("100")
    view.select_option("#there", "yes")
    view.get_by_text("3 of 3 are not shown").wait_for()
    view.locator("#threshold").fill("50")
    view.locator("#part").fill("100")
    view.get_by_text("2.00 %").wait_for()
    view.select_option("#there", "")
    for how in ("heat", "photo", "masks"):
        view.select_option("#show", how)
    assert view.evaluate(names) == given
    assert not [address for address in asked if "/v1/" in address]


def test_zips_are_called_by_what_is_in_them_and_are_of_today_and_sure_is_explained(example) -> None:
    for kind, name in (("each", "masks.zip"), ("yolo", "yolo.zip"), ("labels", "label-maps.zip")):
        example.select_option("#kind", kind)
        with example.expect_download() as download:
            example.locator("#all").click()
        assert download.value.suggested_filename == name
        with zipfile.ZipFile(download.value.path()) as archive:
            made = [datetime(*one.date_time) for one in archive.infolist()]
        assert all(abs(datetime.now() - one) < timedelta(hours=1) for one in made)
    example.select_option("#kind", "each")
    example.get_by_text("What “sure” under a photo says").click()
    example.get_by_text("Of a mask, doubt is 1 - presence × expected_iou").wait_for()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_nobody_is_barred_from_what_the_server_adds(example, server, photos, tmp_path, width, scheme) -> None:
    view = example
    view.set_viewport_size({"width": width, "height": 900})
    view.emulate_media(color_scheme=scheme)
    script = axe_script(tmp_path)
    view.evaluate(script)
    assert not barred(view, width)
    if width < 640:  # masks come first, what adjusts them is folded
        assert view.locator("#show").is_hidden()
        view.locator("#settings > summary").press("Enter")
        assert not barred(view, width)
    view.select_option("#show", "heat")
    view.get_by_label("Use owl-25.png").uncheck()  # what was found is of what was taught before
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    view.set_input_files("#find-files", str(tmp_path / "broken.jpg"))
    view.get_by_text("broken.jpg cannot be read").wait_for()
    assert not barred(view, width)
    view.get_by_label("Use owl-25.png").check()
    view.get_by_label("Remove broken.jpg").click()
    view.select_option("#show", "masks")
    view.set_input_files("#teach-files", str(photos / f"{SUPPORT}.png"))
    view.locator("#absent").wait_for()
    assert not barred(view, width)
    view.keyboard.press("Escape")
    view.locator("#found .correct >> nth=0").press("Enter")
    view.locator("#keep").wait_for()
    view.locator("#clear").press("Enter")
    view.keyboard.press("Escape")
    view.get_by_text("What you marked would be lost").wait_for()
    assert not barred(view, width)
    view.locator("#leave").press("Enter")
    view.locator("#marking").wait_for(state="hidden")
    other = view.context.new_page()
    other.set_viewport_size({"width": width, "height": 900})
    other.emulate_media(color_scheme=scheme)
    other.goto(f"{server.url}api.html")
    other.get_by_role("heading", name="POST /v1/segment").wait_for()
    other.evaluate(script)
    assert not barred(other, width)
    other.close()


def test_a_photo_that_is_too_large_is_told_and_the_others_are_done(example, photos, tmp_path) -> None:
    view = example
    before = view.locator("#found .take:not([disabled])").count()
    Image.new("1", (9000, 6000)).save(tmp_path / "wide.png")  # more than a browser takes by itself, too
    view.set_input_files("#find-files", [str(tmp_path / "wide.png"), str(photos / f"{QUERIES[0]}.png")])
    view.get_by_text("wide.png has 9000 x 6000 pixels; at most 25 megapixels").wait_for()
    done(view, before + 1)


def test_a_server_that_was_started_anew_behind_a_proxy_is_waited_for_and_taught_again(example, photos) -> None:
    view = example
    before = view.locator("#found .take:not([disabled])").count()
    view.evaluate("() => fetch('v1/session', {method: 'DELETE'})")
    asked: list[str] = []

    def away(route: Any) -> None:
        asked.append(route.request.url)
        route.fulfill(status=502, body="<html>Bad Gateway") if len(asked) < 5 else route.continue_()

    view.route("**/v1/*", away)
    view.set_input_files("#find-files", [str(photos / f"{number}.png") for number in QUERIES])
    done(view, before + 2)
    view.unroute("**/v1/*")


def test_photos_that_failed_are_tried_again_all_at_once(browser, server, photos) -> None:
    held: list[Any] = []
    asked: list[str] = []

    def fail_twice(route: Any) -> None:
        asked.append(route.request.url)
        if len(asked) < 3:
            route.fulfill(status=504, body="<html>")
        elif not held:
            held.append(route)
        else:
            route.continue_()

    with opened(browser, server) as view:
        teach(view, photos, SUPPORT, "owl")
        view.get_by_text("Expected overlap").wait_for()
        again = view.get_by_role("button", name="Try all again")
        view.route("**/v1/segment", fail_twice)
        view.set_input_files("#find-files", str(photos / f"{QUERIES[0]}.png"))
        view.get_by_text("504: a proxy reaches no server").wait_for()
        assert again.is_hidden()  # it has its own
        view.set_input_files("#find-files", [str(photos / f"{number}.png") for number in (QUERIES[1], SUPPORT)])
        view.get_by_text("2 photos could not be searched.").wait_for()
        while not held:
            view.wait_for_timeout(50)
        again.click()  # while another is searched
        held[0].continue_()
        done(view, 3)
        view.get_by_text("3 photos done.").wait_for()
        assert again.is_hidden()


def test_a_photo_that_the_server_had_no_room_for_is_tried_again(example, photos) -> None:
    view = example
    before = view.locator("#found .take:not([disabled])").count()
    for number, (answer, words) in enumerate(
        (
            ({"json": {"error": "there is no room"}}, "there is no room"),
            ({"body": "<html>413 Request Entity Too Large"}, "413: not fewseg but a proxy before it"),
        ),
        start=1,
    ):
        view.route("**/v1/segment", lambda route, _, answer=answer: route.fulfill(status=413, **answer))
        view.set_input_files("#find-files", str(photos / f"{QUERIES[0]}.png"))
        view.get_by_text(words).wait_for()
        view.unroute("**/v1/segment")
        view.get_by_role("button", name=f"Try again to search {QUERIES[0]}.png").click()
        done(view, before + number)


def test_a_photo_in_which_all_that_was_found_is_wrong_teaches_that_it_is_not_there(example, photos) -> None:
    view = example
    view.locator("#found .correct >> nth=0").click()
    view.get_by_role("button", name="It is not in this photo").click()
    until(lambda: taught(view).get("absent") == 1)
    done(view, view.locator("#found .take").count())
    view.locator("#found").get_by_text("not found (corrected)").wait_for()
    view.locator("#supports li").last.get_by_role("button", name="Remove").click()
    view.get_by_text("no owl in it").wait_for(state="detached")


def test_supports_are_switched_off_changed_and_removed_and_photos_without_it_count(example, photos, tmp_path) -> None:
    view = example
    view.set_input_files("#teach-files", str(photos / f"{QUERIES[0]}.png"))
    view.get_by_role("button", name="It is not in this photo").click()
    view.get_by_text("no owl in it").wait_for()
    until(lambda: taught(view).get("absent") == 1)
    view.get_by_label("Use owl-25.png").uncheck()
    until(lambda: taught(view).get("supports") == 1)
    view.get_by_text("Not all photos were searched").wait_for()
    view.get_by_role("button", name="Change the marking of owl-17.png").click()
    view.locator("#clear").click()
    size = Example().pictures()["example/owl-17.png"]().size
    Image.open(photos / f"{SUPPORT}-mask.png").resize(size, Image.Resampling.NEAREST).save(tmp_path / "17-mask.png")
    view.set_input_files("#mask-file", str(tmp_path / "17-mask.png"))
    view.locator("#marked").get_by_text("15 % marked; 17-mask.png: 0 and 1: 1 is the object").wait_for()
    view.locator("#name").fill("bird")
    view.locator("#add").click()
    view.locator("#classes").get_by_text("bird").wait_for()
    assert view.locator("#classes li").count() == 1  # of the owl only one is left, and that is off
    view.get_by_role("button", name="Remove owl-17.png").click()
    view.wait_for_function("() => !document.querySelector('#classes li')")


def test_a_mask_that_is_loaded_is_understood_as_by_the_command_line_or_refused(view, photos, tmp_path) -> None:
    owl = truth(photos, SUPPORT)
    several = np.where(owl, 3, 0).astype(np.uint8)
    several[:9, :40] = 7
    ignored = np.where(owl, 12, 0).astype(np.uint8)
    ignored[:9, :40] = 255
    for name, values in (("several", several), ("ignored", ignored), ("small", ignored[::2, ::2])):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    view.set_input_files("#teach-files", str(photos / f"{SUPPORT}.png"))
    view.locator("#marking").wait_for()
    for name, told in (
        ("several", "several.png holds the values 0, 3 and 7: which of them is the object?"),
        ("several", "load a mask in which the object alone is not black"),
        ("small", "give a mask of the image's size"),
    ):
        view.set_input_files("#mask-file", str(tmp_path / f"{name}.png"))
        view.locator("#marking-told").get_by_text(told).wait_for()
        assert view.locator("#add").is_disabled()
    view.set_input_files("#mask-file", str(tmp_path / "ignored.png"))
    view.locator("#marked").get_by_text(
        "12 is the object, 255 is ignored; what it ignores is background here"
    ).wait_for()
    assert view.locator("#marking-told").inner_text() == ""
    view.get_by_role("button", name="Leave it out").click()


@pytest.mark.parametrize(
    ("values", "lossy", "told"),
    [
        ([0, 0, 0, 9], False, "0 and 9: 9 is the object"),
        (
            [0, 12, 12, 255],
            False,
            "0, 12 and 255: 12 is the object, 255 is ignored; what it ignores is background here",
        ),
        ([0] * 9 + [60, 120, 180] + [255] * 40, False, "from black to white: the upper half is the object"),
        ([0, 1, 2, 255], False, "holds the values 0, 1, 2 and 255: which is the object?"),
        ([0, 128, 128, 255], False, "holds the values 0, 128 and 255: which is the object?"),
        ([0, 1, 1, 40], False, "holds the values 0, 1 and 40: which is the object?"),
        ([0, 2, 253, 255], True, "from black to white: the upper half is the object"),
        ([0, 0], False, "marks nothing: it is black all over"),
    ],
)
def test_the_page_without_a_server_takes_masks_that_are_plain(view, values, lossy, told) -> None:
    found = view.evaluate(
        """async ([values, lossy]) => {
          const { understood } = await import("/plain.js");
          const data = Uint8Array.from(values.flatMap((value) => [value, value, value]));
          try {
            const { data: ones, told } = understood({ data, width: values.length, height: 1 }, lossy);
            return [told, [...ones]];
          } catch (error) {
            return [error.message, null];
          }
        }""",
        [values, lossy],
    )
    assert found[0].startswith(told)
    try:
        command = marking_of(np.array([values] * 8, np.uint8))
    except UsageError:
        assert found[1] is None
    else:
        wanted = (command.mask[0] == 1).astype(int).tolist()
        assert found[1] == wanted if any(wanted) else found[1] is None


def test_all_is_taken_away_once_no_search_is_under_way(view, photos) -> None:
    teach(view, photos, SUPPORT, "owl")
    view.set_input_files("#find-files", [str(photos / f"{number}.png") for number in QUERIES])
    done(view, 2)
    assert view.locator("#all").is_enabled()
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    view.route("**/v1/segment", hold)  # a second search that takes its time
    view.set_input_files("#find-files", str(photos / f"{SUPPORT}.png"))
    until(lambda: view.wait_for_timeout(50) or held)
    assert view.locator("#all").is_disabled()
    assert view.locator("#all").get_attribute("title") == "Once the search has ended"
    held[0].continue_()
    done(view, 3)
    assert view.locator("#all").is_enabled()


def test_a_click_grows_what_the_command_line_grows_and_outlines_are_those_of_masks(view, photos) -> None:
    photo = Image.open(photos / f"{SUPPORT}.png").convert("RGB")
    rows, columns = np.nonzero(truth(photos, SUPPORT))
    point = float(np.median(columns)), float(np.median(rows))
    ours = view.evaluate(
        """async ([content, point]) => {
          const { grown } = await import("/grow.js");
          const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
          return [...grown(await createImageBitmap(new Blob([bytes])), [point], [])];
        }""",
        [b64encode((photos / f"{SUPPORT}.png").read_bytes()).decode(), point],
    )
    before, after = view.evaluate(
        """async ([content, point]) => {
          const { Clicks } = await import("/clicks.js");
          const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
          const image = await createImageBitmap(new Blob([bytes]));
          const clicks = new Clicks(image, new Uint8Array(image.width * image.height));
          return [[...clicks.add(point, true)], [...clicks.add([5, 5], false)]];
        }""",
        [b64encode((photos / f"{SUPPORT}.png").read_bytes()).decode(), point],
    )
    assert before == ours
    assert np.less_equal(after, before).all(), "what is not here only takes away"
    expected = mask_from_marks(photo, Marks(points=[point])) > 0
    assert iou(np.array(ours).reshape(expected.shape) > 0, expected) > 0.9

    labels = np.zeros((9, 9), np.uint8)
    labels[1:8, 1:8] = 1
    labels[2:7, 2:7] = 0  # a hole
    labels[3:6, 3:6] = 1  # an island in it
    labels[4, 4] = 0  # with a hole of its own
    labels[8, 8] = 1  # touches at a corner
    labels[0, 8] = 2
    found = view.evaluate(
        """async ([labels, width, height]) => {
          const { area, joined, parts, polygons } = await import("/parts.js");
          const sizes = [];
          const given = Uint8Array.from(labels);
          parts(given, width, height, ({ label, pixels, box }) => sizes.push([label, pixels, ...box]));
          const found = polygons(given, width, height, 1);
          return { areas: found.map((one) => one.map(area)), joined: found.map((one) => area(joined(one))), sizes };
        }""",
        [labels.ravel().tolist(), 9, 9],
    )
    assert found["areas"] == [[2], [18, -2], [98, -50]]
    assert found["joined"] == [2, 16, 48]
    assert sorted(found["sizes"]) == [[1, 8, 3, 3, 6, 6], [1, 25, 1, 1, 9, 9], [2, 1, 8, 0, 9, 1]]


@pytest.mark.parametrize("threshold", [50, 20])
def test_objects_are_no_more_torn_than_by_the_command_line(view: Any, threshold: int) -> None:
    """Two and three classes whose maps overlap in patches: what `segment` makes of them, the page makes too."""
    rng, torn = np.random.default_rng(threshold), 0
    for count in (2, 3) * 6:
        coarse = rng.uniform(0, 1, (count, 6, 7)).astype(np.float32) * 0.5 + rng.uniform(0, 0.5, (1, 6, 7))
        maps = np.floor(100 * np.repeat(np.repeat(coarse, 4, 1), 4, 2)).astype(np.uint8)
        plain = np.where(maps.max(0) > threshold, maps.argmax(0) + 1, 0).astype(np.uint8)
        found = view.evaluate(
            """async ([labels, maps, width, height, threshold]) => {
              const [{ whole }, { leftOf }] = [await import("/parts.js"), await import("/found.js")];
              const given = maps.map((map) => Uint8Array.from(map));
              const kept = whole(Uint8Array.from(labels), given, width, height, threshold);
              return { kept: [...kept], left: leftOf({ levels: kept, maps: given }, kept, threshold) };
            }""",
            [plain.ravel().tolist(), maps.reshape(count, -1).tolist(), 28, 24, threshold],
        )
        expected = label_map(maps / np.float32(100), threshold=threshold / 100 + 1e-4)
        np.testing.assert_array_equal(np.reshape(found["kept"], (24, 28)), expected)
        own = [(expected == label, one > threshold) for label, one in enumerate(maps, start=1)]
        assert found["left"] == [pytest.approx((a & b).sum() / max(1, (a | b).sum())) for a, b in own]
        torn += int((expected != plain).any())
    assert torn > 3


def test_a_mask_of_the_photos_own_colour_is_seen_by_its_edge(example) -> None:
    rims = """async () => {
      const { tinted } = await import("./colors.js");
      const labels = new Uint8Array(20 * 20);
      for (let y = 5; y < 15; y++) labels.fill(1, 20 * y + 5, 20 * y + 15);
      const { data } = tinted(labels, 20, 20, () => [230, 57, 70]);
      return [0, 4, 5, 9, 19].map((x) => [...data.slice(4 * (200 + x), 4 * (200 + x) + 4)]);
    }"""
    outside, beside, within, middle, last = example.evaluate(rims)
    assert (outside, last, middle) == ([0, 0, 0, 0], [0, 0, 0, 0], [230, 57, 70, 130])
    assert (beside[:3], within[:3]) == ([0, 0, 0], [255, 255, 255])
    assert min(beside[3], within[3]) > 100


def test_a_concept_of_before_is_opened_finds_as_it_did_and_is_corrected_and_taught_further(
    view, photos, tmp_path
) -> None:
    pairs = [[photos / f"{number}{what}.png" for number in (SUPPORT, QUERIES[0])] for what in ("", "-mask")]
    blank = np.full((90, 120, 3), 120, np.uint8)
    owl = fewseg.teach(*pairs, name="owl", absent=[blank])
    owl = replace(owl, choice=replace(owl.choice, threshold=0.65))  # none that would be chosen anew
    owl.save(tmp_path / "owl.concept")
    view.set_input_files("#concept-files", str(tmp_path / "owl.concept"))
    view.locator("#classes").get_by_text(f"found by {owl.choice}: that is 0.50 on the slider").wait_for()
    told = view.locator("#supports li p:first-of-type").all_text_contents()
    wanted = [f" owl, {100 * truth(photos, number).mean():.0f} % marked" for number in (SUPPORT, QUERIES[0])]
    assert told == [*wanted, " no owl in it"]

    query = photos / f"{QUERIES[1]}.png"
    view.set_input_files("#find-files", str(query))
    done(view, 1)
    found = np.asarray(Image.open(io.BytesIO(downloaded(view, "#found .take")))) > 0
    assert iou(found, owl.segment(query).mask) > 0.97
    view.evaluate("() => fetch('v1/session', {method: 'DELETE'})")  # the server is started anew
    view.set_input_files("#find-files", str(photos / f"{QUERIES[0]}.png"))
    done(view, 2)
    assert taught(view)["choice"] == str(owl.choice)

    drop(view, "#teach-drop", tmp_path / "owl.concept")
    view.get_by_text("owl.concept: it is of owl, which is taught here already").wait_for()
    view.get_by_role("button", name=f"Correct the mask of {QUERIES[1]}.png").click()
    view.set_input_files("#mask-file", str(photos / f"{QUERIES[1]}-mask.png"))
    view.get_by_role("button", name="Teach with it and find again").click()
    until(lambda: taught(view).get("supports") == 3)
    done(view, 2)
    assert (taught(view)["absent"], taught(view)["name"]) == (1, "owl")
    view.get_by_label("Use 66.png").uncheck()  # what is left is the file's again
    until(lambda: taught(view).get("choice") == str(owl.choice))


def test_a_concept_without_its_photos_finds_and_takes_no_more(view, photos, tmp_path) -> None:
    pair = [photos / f"{SUPPORT}{what}.png" for what in ("", "-mask")]
    fewseg.teach(*pair, name="owl", keep_photos=False).save(tmp_path / "bare.concept")
    drop(view, "#teach-drop", tmp_path / "bare.concept")
    view.get_by_text("owl, by 1 photo that bare.concept does not keep").wait_for()
    view.set_input_files("#find-files", str(photos / f"{QUERIES[0]}.png"))
    done(view, 1)
    assert (
        iou(np.asarray(Image.open(io.BytesIO(downloaded(view, "#found .take")))) > 0, truth(photos, QUERIES[0])) > 0.6
    )
    teach(view, photos, SUPPORT, "owl")
    view.get_by_text("keeps no photos, so nothing can be added to it: remove it, or teach").wait_for()


def test_files_that_are_no_concepts_and_concepts_for_photos_are_told_of(view, photos, tmp_path) -> None:
    (tmp_path / "no.concept").write_bytes(b"x" * 99)
    view.set_input_files("#concept-files", [str(tmp_path / "no.concept"), str(photos / f"{SUPPORT}.png")])
    view.get_by_text(
        f"no.concept: it is no concept; give a file that fewseg teach wrote; {SUPPORT}.png: it is"
    ).wait_for()
    drop(view, "#find-drop", tmp_path / "no.concept")
    view.get_by_text("no.concept is a concept, and no photo: open it above").wait_for()


def test_limits_that_are_reached_are_told_and_what_is_removed_makes_room(browser, photos, tmp_path) -> None:
    with served(tmp_path, "--limit", "concepts=1", "--limit", "supports=1") as server, opened(browser, server) as view:
        teach(view, photos, SUPPORT, "owl")
        view.get_by_text("Expected overlap").wait_for()
        teach(view, photos, SUPPORT, "bird")
        view.get_by_text("you have 1 concept, which is all").wait_for()
        view.get_by_role("button", name=f"Remove {SUPPORT}.png").first.click()
        teach(view, photos, SUPPORT, "bird")
        view.get_by_text("a concept is taught by at most 1 photo").wait_for()
        view.get_by_role("button", name=f"Remove {SUPPORT}.png").first.click()
        view.get_by_text("Expected overlap").wait_for()
        view.set_input_files("#find-files", str(photos / f"{QUERIES[0]}.png"))
        done(view, 1)


def drop(view: Any, area: str, file: Path) -> None:
    """A file, dropped on an area."""
    given = view.evaluate_handle(
        """([name, content]) => {
          const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
          const given = new DataTransfer();
          given.items.add(new File([bytes], name));
          return given;
        }""",
        [file.name, b64encode(file.read_bytes()).decode()],
    )
    view.dispatch_event(area, "drop", {"dataTransfer": given})


def taught(view: Any) -> dict[str, Any]:
    """What the server tells of the first concept; a promise, which `wait_for_function` would take for true."""
    return view.evaluate("async () => (await (await fetch('v1/concepts')).json())[0] ?? {}")


def teach(view: Any, photos: Path, number: int, name: str) -> None:
    """By the photo's own mask."""
    view.set_input_files("#teach-files", str(photos / f"{number}.png"))
    view.locator("#marking").wait_for()
    view.locator("#name").fill(name)
    view.set_input_files("#mask-file", str(photos / f"{number}-mask.png"))
    view.locator("#add").click()


def test_a_browser_comes_in_by_the_token_of_its_address_or_one_that_is_typed_and_shows_neither(
    browser, tmp_path
) -> None:
    with served(tmp_path, "--allow-host", "photos.example") as server:
        assert server.token
        for address in (server.address, server.url, f"{server.url}#token=none"):
            with closing(browser.new_context()) as context:
                view = context.new_page()
                view.goto(address)
                if address != server.address:
                    if address == server.url:
                        view.get_by_label("Or give the token").fill("another-one-of-16")
                        view.keyboard.press("Enter")
                    view.get_by_text("This is not the server's token.").wait_for()
                    view.get_by_label("Or give the token").fill(server.token)
                    view.keyboard.press("Enter")
                view.locator("#status.ready").wait_for()
                view.goto(server.address)  # again, as from a bookmark
                view.wait_for_function("() => !location.hash")
                assert view.url == server.url
