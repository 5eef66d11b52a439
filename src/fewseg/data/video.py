"""Videos through PyAV (the extra `video`): frame by frame, one frame by its time, and written with other pixels."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from fewseg.errors import DataError, UsageError, first_line, install_line
from fewseg.files import replacing
from fewseg.progress import Silent

if TYPE_CHECKING:
    from av import VideoFrame

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".mts"})
"""File name endings (lower case) that are read as videos."""


_MOMENT = re.compile(r"(?P<video>.+)@(?P<seconds>\d+(\.\d+)?)s?")


def frames(path: Path, *, every: int = 1) -> Iterator[tuple[int, VideoFrame]]:
    """Every `every`-th frame of a video with its number (0, `every`, 2 `every`, ...), one at a time.

    UsageError where PyAV is not installed; DataError where the file cannot be decoded, or, after the frames that there
    are, where it ends before it says.
    """
    with _opened(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        count, frame = 0, None
        for count, frame in enumerate(container.decode(video=0), start=1):
            if (count - 1) % every == 0:
                yield count - 1, frame
        if frame is None:
            raise DataError(f"{path} holds no frame that can be decoded; copy it again")
        if cut := _cut_off(container, count, frame):
            raise DataError(f"{path} is cut off: {cut}; copy it again")


def frames_so_far(
    path: Path, failed: list[tuple[Any, str]], *, every: int, progress: Silent
) -> Iterator[tuple[int, VideoFrame]]:
    """`frames`, which `progress` tells; what breaks the video off is told in `failed`, the frames before are there."""
    try:
        for number, frame in frames(path, every=every):
            progress.note(f"frame {number} of {path.name}")
            yield number, frame
    except DataError as error:
        failed.append((path, str(error)))


def _cut_off(container: Any, count: int, last: VideoFrame) -> str | None:
    """What is there of what the file says it holds, where that is clearly less: FFmpeg ends without a word then."""
    promised = container.streams.video[0].frames
    if promised:
        return f"{count} of {promised} frames are there" if count < 0.98 * promised - 2 else None
    # other formats tell of seconds alone, which may be those of the sound, or of a last frame that is long shown
    if len(container.streams) == 1 and container.duration and last.pts is not None and last.time_base:
        end, whole = float(last.pts * last.time_base), container.duration / 1e6
        return f"{end:.1f} of {whole:.1f} s are there" if end < 0.9 * whole - 2 else None
    return None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import av
        from av.error import FFmpegError
    except ImportError as error:
        raise UsageError(f"{path} is a video, which needs PyAV; install it with: {install_line('video')}") from error
    try:
        # "file:", since FFmpeg would take 12:30.mp4 for a protocol; titles may be in any encoding
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            if not container.streams.video:
                raise DataError(f"{path} holds no video stream")
            yield container
    except (FFmpegError, ValueError, MemoryError) as error:
        if isinstance(error, DataError | UsageError):
            raise
        raise DataError(f"{path} cannot be decoded ({first_line(error)}); convert it to MP4 (H.264)") from error


def moment(path: str | Path) -> tuple[Path, Fraction] | None:
    """The video and the seconds of a path such as `clip.mp4@12.5s`; None of any other."""
    match = _MOMENT.fullmatch(str(path))
    if match is None or Path(match["video"]).suffix.lower() not in VIDEO_SUFFIXES or Path(path).exists():
        return None
    return Path(match["video"]), Fraction(match["seconds"])


def named_frame(video: Path, frame: VideoFrame) -> Path:
    """A frame by the time from which it is shown, as `moment` reads it: milliseconds, none before that time."""
    return Path(f"{video}@{math.ceil(round(1000 * (frame.time or 0), 3)) / 1000}s")


def frame_of(video: Path, number: int) -> Path:
    """The name of a frame by its number, from 0 on; DataError where the video has no such frame."""
    for found, frame in frames(video, every=number or 1):
        if found == number:
            return named_frame(video, frame)
    raise DataError(f"{video} is over before its frame {number}")


def frame_at(video: Path, seconds: Fraction) -> Image.Image:
    """The frame that is shown at a time of a video; DataError where it is over by then."""
    if not video.is_file():
        raise DataError(f"{video}: there is no such file")
    with _opened(video) as container:
        stream = container.streams.video[0]
        container.seek(max(0, int(seconds / stream.time_base)), stream=stream)
        shown: Any = None
        for frame in container.decode(video=0):
            if frame.pts is not None and frame.pts * frame.time_base > seconds:
                return to_image(shown or frame)
            shown = frame
        end = (shown.pts + (shown.duration or 0)) * shown.time_base if shown and shown.pts is not None else 0
        if seconds > end:
            raise DataError(f"{video} is over before {float(seconds):g} s; it ends at {float(end):.2f} s")
        return to_image(shown)


def write_video(source: Path, target: Path, drawn: Callable[[int], Image.Image | None], *, every: int = 1) -> None:
    """A video of the `every`-th frames of another, at their times, with what is `drawn` of each by its number; where
    nothing is, the frame itself. MP4 (H.264) without sound; what reaches beyond a frame, or beyond even sides, is cut.
    """
    import av

    with replacing(target) as temporary, av.open(temporary, "w", format="mp4") as container:
        stream: Any = None
        for number, frame in frames(source, every=every):
            own = to_image(frame)
            image = drawn(number) or own
            if stream is None:
                stream = container.add_stream("libx264", options={"crf": "20", "preset": "veryfast"})
                stream.width, stream.height = (side - side % 2 for side in own.size)
                stream.pix_fmt, stream.codec_context.time_base = "yuv420p", frame.time_base
            picture = av.VideoFrame.from_image(image.crop((0, 0, stream.width, stream.height)))
            picture.pts, picture.time_base = frame.pts, frame.time_base
            container.mux(stream.encode(picture))
        if stream is not None:
            container.mux(stream.encode())


def to_image(frame: VideoFrame) -> Image.Image:
    """A frame as upright RGB (phones store how they were held); DataError where it cannot be converted."""
    try:
        image = frame.to_image()
    except (ValueError, OSError, MemoryError) as error:  # FFmpeg's errors are of these kinds too
        raise DataError(f"a frame of {frame.format.name} pixels cannot be read ({first_line(error)})") from error
    turn = -round(frame.rotation or 0) % 360
    return image.rotate(-turn, expand=True) if turn else image
