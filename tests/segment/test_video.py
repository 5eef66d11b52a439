"""Videos are segmented frame by frame."""

from __future__ import annotations

import os
import re
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from fewseg.concept import Concept
from fewseg.data.decoding import AS_IT_IS
from fewseg.data.images import read_image, read_labels
from fewseg.data.video import frames, named_frame, to_image
from fewseg.errors import DataError, UsageError, install_line
from fewseg.predictor import FewShotPredictor, Result
from fewseg.runtime.engine import Answer
from fewseg.segment import plan, segment_folder
from fewseg.segment.origin import origin
from fewseg.segment.steady import Steady
from fewseg.storage.saved import save_model
from helpers import ColorSegmenter, iou, scene, tiny_model
from segment.small_work import given, make_work
from segment.test_run import files, photo


@pytest.fixture(scope="module")
def place_of_support(tmp_path_factory):
    return make_work(tmp_path_factory.mktemp("support"), [])


@pytest.fixture
def predictor():
    predictor = FewShotPredictor(ColorSegmenter())
    predictor.set_support(*scene())
    return predictor


def clip(path, count=5, title=None):
    """A video of a box that moves to the right by 8 pixels a frame; returns where it is."""
    truths = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        if title:
            container.metadata["title"] = title
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.bit_rate = 4_000_000
        for i in range(count):
            pixels, mask = scene(size=(96, 64), box=(8 + 8 * i, 16, 40 + 8 * i, 48))
            truths.append(mask)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return truths


def test_every_nth_frame_gets_its_mask(predictor, tmp_path):
    (tmp_path / "in").mkdir()
    truths = clip(tmp_path / "in/clip.mp4")
    photo(tmp_path / "in/clip.png")
    summary = segment_folder(predictor, tmp_path / "in", tmp_path / "out", overlay=False, every=2)
    frames = [f"clip_mp4/frame_{n:06d}.png" for n in (0, 2, 4)]
    assert files(tmp_path / "out") == [*frames, "clip_png.png"]
    for n, name in zip((0, 2, 4), frames, strict=True):
        assert iou(read_labels(tmp_path / "out" / name) > 0, truths[n]) > 0.85
    assert len(summary.written) == 4
    again = segment_folder(predictor, tmp_path / "in", tmp_path / "out", overlay=False, every=2, resume=True)
    assert (again.skipped, again.written) == (4, ())


def unsteady(path):
    """A video of 0.1 s, then 0.9 s, then 0.4 s a frame, 95 pixels wide."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, at in enumerate((0, 100, 1000, 1400)):
            frame = av.VideoFrame.from_ndarray(scene(size=(96, 64), box=(8 + 8 * i, 16, 40 + 8 * i, 48))[0], "rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def times(path):
    with av.open(str(path)) as container:
        return [round(float(frame.pts * frame.time_base), 3) for frame in container.decode(video=0)]


def test_overlays_become_a_video_of_the_same_times(predictor, tmp_path):
    unsteady(tmp_path / "clip.mp4")
    options = {"formats": ["png"], "every": 1}
    segment_folder(predictor, tmp_path / "clip.mp4", tmp_path / "out", **options)
    shown = tmp_path / "out/clip_overlay.mp4"
    assert times(shown) == times(tmp_path / "clip.mp4") == [0, 0.1, 1, 1.4]
    plain, tinted = (np.asarray(read_image(f"{path}@1.1s"), int) for path in (tmp_path / "clip.mp4", shown))
    assert plain.shape == tinted.shape
    ground = (slice(50, 64), slice(0, 8))
    assert np.abs(plain - tinted)[ground].mean() < 8
    assert np.abs(plain - tinted)[16:48, 24:56].mean() > 8  # the box at 1 s
    os.utime(shown, ns=(1, 1))
    segment_folder(predictor, tmp_path / "clip.mp4", tmp_path / "out", **options, resume=True)
    assert shown.stat().st_mtime_ns == 1  # it was not written again
    with pytest.raises(UsageError, match="a LabelMe file names a picture"):
        segment_folder(predictor, tmp_path / "clip.mp4", tmp_path / "other", formats=["labelme"])


def test_a_frame_of_a_video_is_a_support_by_its_time(tmp_path):
    unsteady(tmp_path / "clip.mp4")
    for seconds, left in (("0", 8), ("0.1s", 16), ("0.99", 16), ("1.39s", 24), ("1.4", 32)):
        pixels = np.asarray(read_image(tmp_path / f"clip.mp4@{seconds}"), int)
        box = pixels[32] @ (1, -1, 0) > 60
        assert abs(int(np.flatnonzero(box)[0]) - left) <= 2, seconds
    for _, frame in frames(tmp_path / "clip.mp4"):
        shown = read_image(named_frame(tmp_path / "clip.mp4", frame))
        assert np.array_equal(shown, to_image(frame)), frame.time
    with pytest.raises(DataError, match=r"is a video: name a frame of it by its time, as in clip\.mp4@2\.5s"):
        read_image(tmp_path / "clip.mp4")
    with pytest.raises(DataError, match="is over before 9 s; it ends at"):
        read_image(tmp_path / "clip.mp4@9s")
    with pytest.raises(DataError, match="there is no such file"):
        read_image(tmp_path / "other.mp4@1s")
    mask = np.zeros((64, 96), bool)
    mask[16:48, 16:48] = True
    predictor = FewShotPredictor(ColorSegmenter())
    predictor.set_support(f"{tmp_path}/clip.mp4@0.5s", mask)
    assert predictor.predict(tmp_path / "clip.mp4@1.4s")[32].any()
    made = origin(predictor)
    predictor.set_support(f"{tmp_path}/clip.mp4@1.4s", mask)
    assert origin(predictor) != made, "another frame makes other masks, which --resume tells of"


def test_a_broken_video_is_listed_and_the_photos_are_done(predictor, tmp_path):
    photo(tmp_path / "in/a.png")
    (tmp_path / "in/b.mp4").write_bytes(b"no video at all")
    summary = segment_folder(predictor, tmp_path / "in", tmp_path / "out", overlay=False)
    assert files(tmp_path / "out") == ["a.png"]
    assert [path.name for path, _ in summary.failed] == ["b.mp4"]
    assert "cannot be decoded" in summary.failed[0][1]


@pytest.mark.parametrize("kind", ["mp4", "avi", "mkv"])
def test_a_video_that_is_cut_off_is_told_and_its_frames_are_done(kind, place_of_support, tmp_path, fewseg):
    with av.open(
        str(tmp_path / f"whole.{kind}"), "w", options={"movflags": "faststart"} if kind == "mp4" else {}
    ) as to:
        stream = to.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for i in range(20):
            pixels = np.random.default_rng(i).integers(0, 255, (64, 96, 3), dtype=np.uint8)
            to.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        to.mux(stream.encode())
    whole = (tmp_path / f"whole.{kind}").read_bytes()
    (tmp_path / f"clip.{kind}").write_bytes(whole[: len(whole) // 2])
    words = (*given(place_of_support), "--no-steady", "--no-overlay", "--every", 2)
    cut = fewseg("segment", tmp_path / f"clip.{kind}", *words, "--out", tmp_path / "out")
    assert cut.code == 1
    assert "is cut off" in (tmp_path / "out/failures.csv").read_text()
    assert 0 < len(files(tmp_path / "out/clip")) < 10
    assert fewseg("segment", tmp_path / f"whole.{kind}", *words, "--out", tmp_path / "out").code == 0


def test_a_title_in_another_encoding_and_a_name_like_a_protocol_are_no_trouble(predictor, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    clip(tmp_path / "in/12:30.mp4", count=1, title="cafXX")
    plain = (tmp_path / "in/12:30.mp4").read_bytes()
    (tmp_path / "in/12:30.mp4").write_bytes(plain.replace(b"cafXX", b"caf\xe9\xe9"))
    monkeypatch.chdir(tmp_path / "in")
    summary = segment_folder(predictor, "12:30.mp4", tmp_path / "out", overlay=False)
    assert files(tmp_path / "out") == ["12:30/frame_000000.png"]
    assert summary.failed == ()


def test_what_a_killed_run_left_of_a_video_s_frames_is_removed(predictor, tmp_path):
    clip(tmp_path / "clip.mp4", count=1)
    left, mine = (tmp_path / "out/clip" / name for name in (".frame_000007.png.0123abcd.tmp", ".x.png.0123abcd.tmp"))
    left.parent.mkdir(parents=True)
    left.touch()
    mine.touch()
    segment_folder(predictor, tmp_path / "clip.mp4", tmp_path / "out", overlay=False, resume=True)
    assert files(tmp_path / "out") == ["clip/.x.png.0123abcd.tmp", "clip/frame_000000.png"]


def test_without_the_library_a_video_is_refused_with_what_to_install(predictor, tmp_path, monkeypatch):
    (tmp_path / "b.mp4").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=re.escape(install_line("video"))):
        segment_folder(predictor, tmp_path / "b.mp4", tmp_path / "out")


def test_a_video_s_folder_is_no_other_photo_s(tmp_path):
    for name in ("clip.mp4", "clip/frame_000000.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    jobs = plan([tmp_path], tmp_path / "out")
    assert {job.stem for job in jobs} == {"clip_2", "clip/frame_000000"}
    assert np.sum([job.is_video for job in jobs]) == 1


class Told:
    """A predictor that says what it was given for each frame; its engine says of a support what its mask marks."""

    names, pictures, methods, image_size = None, AS_IT_IS, ("lite",), 32

    def __init__(self, *told: tuple[float, float | None]) -> None:
        self.told = iter(told)
        self.engine = self

    def predict_each(self, image, *, query):
        """The left half is undecided, the right half sure to be the object."""
        undecided, presence = next(self.told)
        proba = np.full((32, 32), 0.9, np.float32)
        proba[:, :16] = undecided
        return {"object": Result(proba > 0.5, proba, (), presence)}

    def encode_query(self, image):
        return image

    def as_support(self, query, mask):
        return None

    def encode_support(self, supports):
        return supports[0][1]

    def match(self, query, support, *, size, method):
        return Answer((support == 1).astype(np.float32), (), None)


def left_half(told, *frames):
    steady = Steady(Told(*told))
    grey = (np.full((32, 32, 3), level, np.uint8) for level in frames)
    return [bool(steady.predict_each(frame)["object"].mask[0, 0]) for frame in grey]


def test_the_frame_before_decides_where_the_supports_are_undecided_and_nowhere_else():
    sure, undecided, absent = (0.8, None), (0.45, None), (0.05, None)
    assert left_half([sure, undecided, undecided], 90, 95, 90) == [True, True, False]  # it was not sure any more
    assert left_half([undecided, undecided], 90, 90) == [False, False]
    assert left_half([sure, absent], 90, 90) == [True, False]  # it marks nothing alone
    assert left_half([sure, undecided], 90, 200) == [True, False]  # a cut
    assert left_half([(0.8, 0.1), undecided], 90, 90) == [True, False]  # the class was not there
    assert left_half([(0.8, 0.9), undecided], 90, 90) == [True, True]


@pytest.mark.slow
def test_frames_by_themselves_are_photos_and_overlays_a_video_of_their_times(tmp_path, fewseg, monkeypatch):
    monkeypatch.setattr("fewseg.segment.steady.SURE", 0.5)  # the toy model never is
    unsteady(tmp_path / "clip.mp4")
    for number, frame in frames(tmp_path / "clip.mp4"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        frame.to_image().save(tmp_path / f"photos/frame_{number:06d}.png")
    save_model(tiny_model("dense"), tmp_path / "tiny")
    photo, mask = scene(size=(96, 64), box=(8, 16, 40, 48))
    for name, pixels in (("s.png", photo), ("m.png", mask)):
        Image.fromarray(pixels).save(tmp_path / name)
    words = ("--support", tmp_path / "s.png", "--mask", tmp_path / "m.png", "--model", tmp_path / "tiny")
    for queries, out, more in (
        ("photos", "photos_out", ("--no-overlay",)),
        ("clip.mp4", "alone", ("--no-steady", "--no-overlay")),
        ("clip.mp4", "out", ()),
    ):
        done = fewseg("segment", tmp_path / queries, *words, "--out", tmp_path / out, *more)
        assert done.code == 0, done.err
    assert times(tmp_path / "out/clip_overlay.mp4") == times(tmp_path / "clip.mp4")
    names = [f"frame_{number:06d}.png" for number in range(4)]
    alone, photos, steady = (
        [Image.open(tmp_path / out / name).tobytes() for name in names]
        for out in ("alone/clip", "photos_out", "out/clip")
    )
    assert alone == photos
    assert steady[0] == alone[0]
    assert steady != alone


@pytest.mark.slow
def test_what_to_look_at_first_in_a_video_is_told_by_its_frames(tmp_path, fewseg):
    unsteady(tmp_path / "clip.mp4")
    words = [word for at in (0.0, 0.3) for word in ("--support", f"{tmp_path}/clip.mp4@{at}s", "--box", "8,8,40,40")]
    done = fewseg("teach", "--class", "thing", *words, "--out", tmp_path / "thing.concept")
    assert done.code == 0, done.err
    found = "segment", "--concept", tmp_path / "thing.concept", "--review", "--out", tmp_path / "out"
    done = fewseg(*found, tmp_path / "clip.mp4")
    assert done.code == 0, done.err
    assert "the greatest doubt is in clip/frame_0000" in " ".join((done.out + done.err).split())
    Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), ((16, 16), (32, 32)))).save(
        tmp_path / "out/clip/frame_000002.png"
    )
    copy = tmp_path / "copy.concept"
    taught = fewseg("teach", "--concept", tmp_path / "thing.concept", "--correct", tmp_path / "out", "--out", copy)
    assert taught.code == 0, taught.err
    assert "1 corrected mask; 3 as written" in taught.out
    corrected = Concept.load(copy).supports[-1]
    assert corrected.name == "clip.mp4@1.0s", "the third frame's time"
    assert corrected.mask.mean() == pytest.approx(1 / 6, abs=0.02)
    (tmp_path / "out/clip.mp4").write_bytes((tmp_path / "clip.mp4").read_bytes())  # beside its own overlays
    chosen = fewseg("next", "--concept", tmp_path / "thing.concept", tmp_path / "out", "--every", 2)
    assert chosen.code == 0, chosen.err
    assert "clip.mp4@0.0s is in the concept already" in " ".join(chosen.out.split())
    assert "clip.mp4@1.0s" in "".join(chosen.out.split()), "which --support takes"
    assert "2 masks and overlays" not in chosen.out
    assert "overlay.mp4@" not in chosen.out
