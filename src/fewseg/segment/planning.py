"""Which pictures and videos there are to segment, each once, and the names of their outputs, which never collide."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fewseg.data import images
from fewseg.data.decoding import PictureRule
from fewseg.data.pairs import named_as_masks
from fewseg.data.text import Tally
from fewseg.data.video import VIDEO_SUFFIXES
from fewseg.errors import UsageError, refuse_address
from fewseg.segment.formats import INSTANCES, OVERLAY, OVERLAY_VIDEO, frame_stem
from fewseg.segment.remote import files_at, is_remote, read_at

SUFFIXES = images.SUFFIXES | VIDEO_SUFFIXES


@dataclass(frozen=True)
class Job:
    """A picture, a video or one of its frames to segment, and the names of what comes out, below the output folder."""

    query: Path
    """Of one that is read by fsspec, its address, for messages."""
    name: str
    """The picture's name in annotations.json: its path below the folder that was given."""
    stem: str
    """Path of the outputs without their endings; of a video, the folder of its frames' outputs."""
    address: str | None = None
    """Where fsspec reads it, unless it is a file."""

    @property
    def place(self) -> Path | str:
        """What it is called in tables and lists."""
        return self.address or self.query

    def read(self, rule: PictureRule) -> Image.Image:
        """The picture, as `read_image` reads it."""
        return images.read_image(self.query if self.address is None else read_at(self.address), rule)

    @property
    def is_video(self) -> bool:
        """Whether the query is read frame by frame."""
        return self.query.suffix.lower() in VIDEO_SUFFIXES


def plan(
    queries: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out_dir: Path,
    *,
    reserved: Iterable[str] = (),
    beside: str = "",
) -> list[Job]:
    """The pictures and videos to segment, each once: files as given, those of folders sorted.

    What lies in `out_dir` is left out of a folder's pictures, so that a run can be repeated. Files in folders that are
    no pictures by their names are left out with a DataWarning that counts them. No output gets a `reserved` stem, nor
    that of another with `beside` at its end. Addresses such as s3://bucket/photos are read by fsspec: see `remote`.
    """
    found: dict[Path, tuple[Path, Path, Path]] = {}
    addresses: dict[Path, str] = {}
    others = Tally("the folders to segment")
    given = [queries] if isinstance(queries, str | os.PathLike) else list(queries)
    for one in given:
        if is_remote(one):
            for relative, address in _remote(str(one), others).items():
                path = Path(address)
                found.setdefault(path, (path, Path(str(one)), Path(relative)))
                addresses[path] = address
            continue
        query = Path(one)
        root = query if query.is_dir() else query.parent
        for path in _files(query, out_dir, others):
            found.setdefault(path.resolve(), (path, root, path.relative_to(root)))
    others.warn()
    if not found:
        told = ", ".join(map(str, given)) or "what was given"
        raise UsageError(
            f"there are no pictures to segment in {told}; give picture or video files, or folders that hold some"
        )
    relatives = Counter(_key(relative) for _, _, relative in found.values())
    names = [r if relatives[_key(r)] == 1 else Path(root.resolve().name) / r for _, root, r in found.values()]
    stems = Counter(_key(name.with_suffix("")) for name in names)
    folders = {parent.as_posix().casefold() for name in names for parent in name.parents}
    repeated = Counter(map(_key, names))
    jobs: list[Job] = []
    taken = {stem.casefold() for stem in reserved}
    for (path, _, _), name in zip(found.values(), names, strict=True):
        bare = name.with_suffix("")
        stem = bare.as_posix() + (f"_{name.suffix[1:].lower()}" if stems[_key(bare)] > 1 else "")
        video = path.suffix.lower() in VIDEO_SUFFIXES
        stem = free_name(stem, taken | folders if video else taken, beside)  # a video's outputs are a folder
        taken |= {stem.casefold(), (stem + beside).casefold()}
        called = path.as_posix() if repeated[_key(name)] > 1 else name.as_posix()
        jobs.append(Job(path, called, stem, addresses.get(path)))
    return jobs


def _remote(address: str, others: Tally) -> dict[str, str]:
    """Photos at an address, by their paths below it; UsageError for a video, which is read from the disk alone."""
    found = {relative: place for relative, place in files_at(address).items() if not _hidden(Path(relative))}
    for relative in [name for name in found if Path(name).suffix.lower() not in images.SUFFIXES]:
        if Path(relative).suffix.lower() in VIDEO_SUFFIXES:
            raise UsageError(f"{found[relative]} is a video, which is read from the disk alone; copy it there first")
        others.add("files that are no pictures or videos by their names, left out", found.pop(relative))
    photos = (path.as_posix() for path in photos_among([Path(relative) for relative in found], others))
    return {relative: found[relative] for relative in photos}


def _files(query: Path, out_dir: Path, others: Tally) -> list[Path]:
    if query.exists() and not os.access(query, os.R_OK):
        raise UsageError(f"{query} is not readable; give yourself the permission, or another folder")
    if query.is_file():
        return [query]
    refuse_address(query)
    if not query.is_dir():
        raise UsageError(f"{query}: there is no such file or folder")
    out = out_dir.resolve()
    if query.resolve() == out:
        raise UsageError(
            f"{query} is both the folder of pictures and the output folder; give another one for the outputs"
        )
    shown = [path for path in files_in(query) if not path.resolve().is_relative_to(out)]
    for path in shown:
        if path.suffix.lower() not in SUFFIXES:
            others.add("files that are no pictures or videos by their names, left out", path)
    return photos_among([path for path in shown if path.suffix.lower() in SUFFIXES], others)


def files_in(folder: Path) -> list[Path]:
    """The files in a folder and its sub-folders, by name, but for hidden ones."""
    inside = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in inside if not _hidden(path.relative_to(folder))]


def _hidden(relative: Path) -> bool:
    """Whether a file is hidden below the folder that was given, by its own name or a sub-folder's."""
    return any(part.startswith(".") for part in relative.parts)


def photos_among(pictures: list[Path], others: Tally) -> list[Path]:
    """Pictures but for masks of photos beside them, and for masks, overlays and numbered objects that `segment` wrote
    among them; both are counted.

    A mask is told by its photo's name (`NAME_mask.png`) or by the overlay beside it: of a folder of masks alone
    nothing says that they are no pictures.
    """
    there = set(pictures)
    made: set[Path] = set()
    for overlay in (path for path in pictures if path.name.endswith(OVERLAY)):
        stem = overlay.name.removesuffix(OVERLAY)
        if (mask := overlay.with_name(f"{stem}.png")) in there:
            made |= {mask, overlay, overlay.with_name(f"{stem}{INSTANCES}.png")}
    for video in (path for path in pictures if path.name.endswith(OVERLAY_VIDEO)):
        if video.with_name(video.name.removesuffix(OVERLAY_VIDEO)) / f"{frame_stem(0)}.png" in there:
            made.add(video)
    masks = {*named_as_masks(pictures)} - made
    for path in pictures:
        if path in made:
            others.add("masks and overlays of an earlier run, left out", path)
        elif path in masks:
            others.add("masks of photos by their names, left out", path)
    return [path for path in pictures if path not in made | masks]


def _key(path: Path) -> str:
    return path.as_posix().casefold()


def free_name(stem: str, taken: set[str], beside: str = "") -> str:
    """The stem, or the first of stem_2, stem_3, ... that no other picture has (file systems may ignore case), neither
    as it is nor with `beside` at its end.
    """
    number, unique = 1, stem
    while {unique.casefold(), (unique + beside).casefold()} & taken:
        number += 1
        unique = f"{stem}_{number}"
    return unique
