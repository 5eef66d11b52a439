"""Videos frame by frame, through PyAV (the extra `video`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from fewseg.errors import DataError, UsageError, first_line

if TYPE_CHECKING:
    from av import VideoFrame

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".mts"})
"""File name endings (lower case) that are read as videos."""


def frames(path: Path, *, every: int = 1) -> Iterator[tuple[int, VideoFrame]]:
    """Every `every`-th frame of a video with its number (0, `every`, 2 `every`, ...), one at a time.

    UsageError where PyAV is not installed; DataError where the file cannot be decoded.
    """
    try:
        import av
        from av.error import FFmpegError
    except ImportError as error:
        raise UsageError(
            f"{path} is a video, which needs PyAV; install it with: pip install 'fewseg[video]'"
        ) from error
    try:
        # "file:", since FFmpeg would take 12:30.mp4 for a protocol; titles may be in any encoding
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            if not container.streams.video:
                raise DataError(f"{path} holds no video stream")
            container.streams.video[0].thread_type = "AUTO"
            for number, frame in enumerate(container.decode(video=0)):
                if number % every == 0:
                    yield number, frame
    except (FFmpegError, ValueError, MemoryError) as error:
        raise DataError(f"{path} cannot be decoded ({first_line(error)}); convert it to MP4 (H.264)") from error


def to_image(frame: VideoFrame) -> Image.Image:
    """A frame as upright RGB (phones store how they were held); DataError where it cannot be converted."""
    try:
        image = frame.to_image()
    except (ValueError, OSError, MemoryError) as error:  # FFmpeg's errors are of these kinds too
        raise DataError(f"a frame of {frame.format.name} pixels cannot be read ({first_line(error)})") from error
    turn = -round(frame.rotation or 0) % 360
    return image.rotate(-turn, expand=True) if turn else image
