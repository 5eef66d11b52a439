"""What is said about supports: groups in order, folders, boxes, points and scribbles."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fewseg.data.marks import Marks, _lab, _met_first, mask_from_marks, strokes_in
from fewseg.data.sets.scenes import Scenes
from fewseg.errors import DataError, DataWarning, UsageError
from fewseg.segment.supports import MarkedPhoto, folder_supports, grouped, merged, ordered, supports_of
from helpers import iou, scene


def groups(line):
    return grouped(ordered(line.split()))


def test_groups_follow_the_order_of_the_command_line():
    line = "photos --class cat --support a.jpg --mask=a.png --support=b.jpg --box 1,2,30,40 --model dense"
    line += " --class dog --support c.jpg --support d.jpg --mask c.png --mask d.png --class cat --support e.jpg"
    found, without, labels = groups(line + " --label 3" + " --point 3,4 --point 5,6.5 --background 7,8 --class bird")
    assert without == ["bird"]
    assert labels == {"cat": "3"}
    cat, dog = found["cat"], found["dog"]
    assert [(str(p.path), str(p.mask)) for p in dog] == [("c.jpg", "c.png"), ("d.jpg", "d.png")]
    assert [str(p.path) for p in cat] == ["a.jpg", "b.jpg", "e.jpg"]
    assert (str(cat[0].mask), cat[1].box, cat[2].point) == ("a.png", [(1, 2, 30, 40)], [(3, 4), (5, 6.5)])
    assert cat[2].background == [(7, 8)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--support a.jpg", "1 --support but 0 --mask"),
        ("--support a --mask a --mask b", "1 --support but 2 --mask"),
        ("--class cat --support a --class dog --mask a.png", "for --class dog"),
        ("--box 1,2,3,4 --support a", "stands before any --support"),
        ("--mask a.png --support a", "--mask a.png stands before any --support"),
        ("--support a --box 1,2,3", "give LEFT,TOP,RIGHT,BOTTOM"),
        ("--support a --point x,y", "give X,Y"),
        ("--support a --mask a --point 1,2", "one or the other"),
        ("--support a --background 1,2", "needs --mask, --scribble, --box or --point"),
    ],
)
def test_what_does_not_go_together_is_named(line, message):
    with pytest.raises(UsageError, match=message):
        groups(line)


def test_some_supports_with_and_some_without_a_class_are_refused():
    with pytest.raises(UsageError, match=r"some supports have a class \(cat\)"):
        merged({None: (["a"], ["b"])}, {"cat": (["c"], ["d"])})
    assert merged({"x": (["a"], ["b"])}, {"x": (["c"], ["d"])}) == {"x": (["a", "c"], ["b", "d"])}


def test_a_folder_of_classes(tmp_path):
    pixels, mask = scene()
    for name in ("cat/a.jpg", "cat/b.png", "dog/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    for name in ("cat/a.png", "cat/b_mask.png"):
        Image.fromarray(mask).save(tmp_path / name)
    with pytest.raises(DataError, match=r"c\.jpg has no mask; put c_mask\.png or c_scribble\.png beside it"):
        folder_supports(tmp_path)
    strokes = Image.new("RGB", (40, 30), "white")
    ImageDraw.Draw(strokes).line([(15, 10), (25, 15)], fill=(255, 0, 0), width=3)
    strokes.save(tmp_path / "dog/c_scribble.png")
    found = folder_supports(tmp_path)
    assert list(found) == ["cat", "dog"]
    assert [[p.name for p in part] for part in found["cat"]] == [["a.jpg", "b.png"], ["a.png", "b_mask.png"]]
    assert iou(found["dog"][1][0].mask > 0, mask) > 0.7
    with pytest.raises(DataError, match=r"cat holds photos, .* give the folder above it, and --class cat"):
        folder_supports(tmp_path / "dog" / ".." / "cat")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no annotated photos"):
        folder_supports(tmp_path / "empty")


def test_a_folder_s_masks_may_have_any_picture_s_ending(tmp_path):
    pixels, mask = scene()
    (tmp_path / "cat").mkdir()
    for name in ("a.jpg", "b.png", "c.png"):
        Image.fromarray(pixels).save(tmp_path / "cat" / name)
    for name in ("a_mask.tif", "b_mask.bmp", "c.gif", "d_mask.png"):
        Image.fromarray(mask).save(tmp_path / "cat" / name)
    (tmp_path / "cat" / "c.gif").rename(tmp_path / "cat" / "c_label.gif")
    with pytest.raises(DataError, match=r"d_mask\.png is the mask of a photo that is not there"):
        folder_supports(tmp_path)
    (tmp_path / "cat" / "d_mask.png").unlink()
    photos, masks = folder_supports(tmp_path)["cat"]
    assert [path.name for path in photos] == ["a.jpg", "b.png", "c.png"]
    assert [path.name for path in masks] == ["a_mask.tif", "b_mask.bmp", "c_label.gif"]


@pytest.mark.slow
def test_marks_become_the_object_s_mask():
    pixels, truth = scene(size=(300, 200), box=(60, 50, 180, 150))
    picture = Image.fromarray(pixels)
    strokes = Image.new("RGBA", (300, 200))
    pen = ImageDraw.Draw(strokes)
    pen.line([(80, 80), (160, 120)], fill=(255, 0, 0), width=4)
    red = strokes_in(Image.alpha_composite(Image.new("RGBA", strokes.size, "white"), strokes).convert("RGB"))
    assert set(np.unique(red)) == {0, 1}
    for marks in (Marks(scribble=red), Marks(points=[(100, 100)]), Marks([(50, 40, 190, 160)], points=[(100, 100)])):
        assert iou(mask_from_marks(picture, marks) > 0, truth) > 0.95
    blue = red.copy()
    blue[:, 120] = 2
    mask = mask_from_marks(picture, Marks(scribble=blue))
    assert mask[100, 110]
    assert not mask[:, 120].any()  # what was marked stays


def test_strokes_painted_on_a_copy_of_the_photo_are_those_alone_whatever_is_red_in_it(tmp_path):
    pixels = np.full((120, 160, 3), (90, 120, 90), np.uint8)
    pixels[70:110, 100:150] = 220, 20, 20  # an apple is no stroke
    photo = Image.fromarray(pixels)
    photo.save(tmp_path / "a.png")
    ImageDraw.Draw(photo).line([(20, 30), (60, 30)], fill=(255, 0, 0), width=6)
    for name, how in (("copy.png", {}), ("copy.jpg", {"quality": 80})):
        photo.save(tmp_path / name, **how)
        with Image.open(tmp_path / name) as copy, Image.open(tmp_path / "a.png") as original:
            strokes = strokes_in(copy, original)
        assert strokes[28:32, 25:55].all(), name
        assert not strokes[60:].any(), name
    red = Image.new("RGB", photo.size, "white")  # on a sheet of their own, strokes may cross what is red
    ImageDraw.Draw(red).line([(110, 90), (140, 90)], fill=(220, 20, 20), width=6)
    assert strokes_in(red, Image.fromarray(pixels))[90, 112:138].all()


def test_what_grows_along_the_border_is_told_with_its_photo(tmp_path):
    Image.new("RGB", (120, 80), "green").save(tmp_path / "a.png")
    support = MarkedPhoto(tmp_path / "a.png", point=[(60, 40)], background=[(5, 5)])
    with pytest.warns(DataWarning, match=r"a\.png: what grew from the marks takes .* of the photo's border"):
        assert support.mask_or_file().meaning == "grown from 1 point, 1 point beside it"


def test_what_leaves_its_box_nearly_free_is_told(tmp_path):
    striped = np.zeros((80, 120, 3), np.uint8)
    striped[:, ::12] = 255
    Image.fromarray(striped).save(tmp_path / "a.png")
    support = MarkedPhoto(tmp_path / "a.png", box=[(10, 10, 110, 70)], point=[(42, 40)])
    with pytest.warns(DataWarning, match=r"a\.png: what grew from the marks takes \d+ % of the box around it; if the"):
        support.mask_or_file()


def test_a_box_alone_is_its_ellipse():
    mask = mask_from_marks(Image.new("RGB", (100, 80)), Marks([(10, 20, 50, 60)]))
    rows, columns = np.nonzero(mask)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (10, 49, 20, 59)
    assert abs(mask.sum() - np.pi * 20 * 20) < 30


@pytest.mark.parametrize(
    ("marks", "error", "message"),
    [
        (Marks([(30, 10, 20, 20)]), UsageError, "box 30,10,20,20 marks nothing"),
        (Marks(points=[(200, 3)]), UsageError, "point 200,3 is outside the photo of 40 x 30"),
        (Marks(scribble=np.zeros((3, 3), np.uint8)), DataError, "scribble is 3 x 3 but its photo is 40 x 30"),
        (Marks(scribble=np.zeros((30, 40), np.uint8)), DataError, "touch no pixel of the object"),
    ],
)
def test_marks_that_mark_nothing_are_refused(marks, error, message):
    with pytest.raises(error, match=message):
        mask_from_marks(Image.new("RGB", (40, 30)), marks)


def test_an_error_in_marks_names_the_photo(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    found = grouped([("support", str(tmp_path / "a.jpg")), ("point", "99,3")])
    with pytest.raises(UsageError, match=r"a\.jpg: point 99,3 is outside"):
        supports_of(found.photos)


@pytest.mark.slow
def test_walks_are_scikit_image_s():
    color = pytest.importorskip("skimage.color")
    segmentation = pytest.importorskip("skimage.segmentation")
    photo, labels = Scenes(subset="test", level="mixed", images=60, size=160).load(3)
    seeds = np.zeros(labels.shape, np.int32)
    seeds[0] = seeds[-1] = 2
    row, column = np.argwhere(labels > 0)[len(np.argwhere(labels > 0)) // 2]
    seeds[row - 2 : row + 3, column - 2 : column + 3] = 1
    lab = color.rgb2lab(np.asarray(photo)) / 100
    np.testing.assert_allclose(_lab(Image.fromarray(np.asarray(photo))), lab, atol=1e-4)
    theirs = segmentation.random_walker(
        lab, seeds, beta=130, mode="cg_j", channel_axis=-1, return_full_prob=True, prob_tol=1.0
    )[0]
    found = _met_first(lab, seeds, beta=130)
    np.testing.assert_allclose(found, theirs, atol=0.02)
    assert ((found > 0.5) == (theirs > 0.5)).mean() > 0.999
