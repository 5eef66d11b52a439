"""Public data sets, fetched from their own hosts: resumed after a break, checked, unpacked in their directory only."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import shutil
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

from fewseg.data.sets.chest_xray import ChestXray
from fewseg.data.sets.deepglobe import DeepGlobe
from fewseg.data.sets.isaid5i import Isaid5i
from fewseg.data.sets.isic2018 import Isic2018
from fewseg.data.sets.pascal_part import PascalPart
from fewseg.data.sets.suim import Suim
from fewseg.errors import DataError, UsageError, check_choice
from fewseg.files import replacing
from fewseg.progress import Silent

_PIECE = 2**20
_LONGEST = 16 * _PIECE
"""Bytes that are read of a tar file at once."""
_MOST_MEMBERS = 200_000
"""Of a tar file; the largest archive here has 118,000 pictures."""
_TRIES = 5
"""Connections in a row that bring nothing new before giving up."""
_PAUSE = 2.0
"""Seconds before a broken connection is opened again."""


@dataclass(frozen=True)
class Archive:
    """One file to fetch and unpack."""

    url: str
    size: int
    """Bytes to fetch, for the check of free space."""
    unpacked: int
    md5: str | None = None
    sha256: str | None = None
    """For a host that publishes this one."""
    into: str = "."
    """Where to unpack it below the data set's directory."""

    @property
    def file(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[-1]


_VOC = "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
_SBD = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz"
_COCO = "http://images.cocodataset.org"  # its certificate is not for this name; the checksums stand in for it
_COCO_LABELS = f"{_COCO}/annotations/annotations_trainval2014.zip"
_LVIS = "https://dl.fbaipublicfiles.com/LVIS"
_PACO = "https://dl.fbaipublicfiles.com/paco/annotations/paco_lvis_v1.zip"
_PACO_SHA256 = "02ac4edb22c251e07853e6231d69aec3fad0a180f03de2f8c880650322debc80"
ARCHIVES: Mapping[str, tuple[Archive, ...]] = {
    "voc2012": (Archive(_VOC, 1_999_639_040, 2_000_000_000, "6cd6e144f989b92b3379bac3b3de84fd"),),
    "sbd": (Archive(_SBD, 1_419_539_633, 1_600_000_000, "82b4d87ceb2ed10f6038a1cba92111cb", into="SBD"),),
    "coco2014": (
        Archive(_COCO_LABELS, 252_872_794, 900_000_000, "0a379cfc70b0e71301e0f377548639bd"),
        Archive(f"{_COCO}/zips/val2014.zip", 6_645_013_297, 6_700_000_000, "a3d79f5ed8d289b7a7554ce06a5782b3"),
        Archive(f"{_COCO}/zips/train2014.zip", 13_510_573_713, 13_600_000_000, "0da8c0bd3d6becc4dcb32757491aca88"),
    ),
    "coco2017": (
        Archive(f"{_COCO}/zips/val2017.zip", 815_585_330, 830_000_000, "442b8da7639aecaf257c1dceb8ba8c80"),
        Archive(f"{_COCO}/zips/train2017.zip", 19_336_861_798, 19_500_000_000, "cced6f7f71b7629ddf16f17bbcfab6b2"),
    ),
    "lvis": (
        Archive(f"{_LVIS}/lvis_v1_val.json.zip", 64_000_000, 201_235_232, "87734a7f895990b9552075d7ce723e27"),
        Archive(f"{_LVIS}/lvis_v1_train.json.zip", 350_264_821, 1_200_000_000, "4410d837f71203af226950447ef9d422"),
    ),
    "paco": (Archive(_PACO, 135_000_000, 1_500_000_000, sha256=_PACO_SHA256),),
}
BY_HAND = {source.name: source for source in (ChestXray, DeepGlobe, Isaid5i, Isic2018, PascalPart, Suim)}
"""Data sets whose hosts ask for a login, or give no checksum: a person fetches them."""


def download(name: str, root: str | Path, *, progress: Silent | None = None) -> None:
    """Fetch and unpack a data set into `root`; what is done already is left alone, what was broken off goes on.

    Raises DataError for a full disk, a connection that stays broken, a wrong checksum or an unsafe archive.
    """
    if name == "fss1000":
        raise UsageError(
            "FSS-1000 has no stable host: fetch fewshot_data.zip by way of https://github.com/HKUSTCV/FSS-1000, unpack"
            f" it into {root} (CLASS/1.jpg, CLASS/1.png, ...), and put train.txt, val.txt and test.txt there,"
            " a class a line"
        )
    if source := BY_HAND.get(name):
        raise UsageError(f"{name} is not fetched from here. {source.fetched}; then have {source.holds} in {root}")
    check_choice("download", name, ARCHIVES)
    root = Path(root)
    (root / ".fewseg").mkdir(parents=True, exist_ok=True)
    open_ones = [archive for archive in ARCHIVES[name] if not _done(root, archive).exists()]
    check_space(root, open_ones)
    for archive in open_ones:
        fetched = root / archive.file
        if not fetched.exists():
            sums = {"md5": archive.md5, "sha256": archive.sha256}
            fetch(archive.url, fetched, **sums, size=archive.size, progress=progress)
        # what was published is known well enough: an archive that unpacks to twice as much is another one
        extract(fetched, root / archive.into, limit=2 * archive.unpacked, progress=progress)
        _done(root, archive).write_text(f"{archive.url} {archive.md5 or archive.sha256}\n")
        fetched.unlink()


def check_space(root: Path, archives: list[Archive]) -> None:
    """DataError if the disk cannot hold what is still to be fetched and unpacked."""
    files = [path for archive in archives for path in (root / archive.file, _part(root / archive.file))]
    needed = sum(archive.size + archive.unpacked for archive in archives) - sum(map(_size, files))
    free = shutil.disk_usage(root).free
    if needed > free:
        raise DataError(
            f"{root} has {free / 1e9:.1f} GB free, but {needed / 1e9:.1f} GB are needed to fetch and unpack"
            f" {', '.join(archive.file for archive in archives)}; free some space, or choose another --root"
        )


def fetch(
    url: str,
    target: Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    size: int = 0,
    progress: Silent | None = None,
) -> None:
    """Fetch a file of about `size` bytes; what an earlier call left in `target`.part is continued.

    The file appears at `target` only when it is whole and its checksum right; DataError otherwise.
    """
    part = _part(target)
    missing = max(0, size - _size(part))
    show = progress or Silent()
    for _ in show(_pieces(url, part), f"fetching {target.name} (MiB)", -(-missing // _PIECE)):
        pass
    for kind, right in (("md5", md5), ("sha256", sha256)):
        if right is not None and (found := _checksum(part, kind)) != right:
            part.unlink()
            raise DataError(f"{url}: what was fetched has the checksum {found}, not {right}; it was deleted, try again")
    part.replace(target)


def extract(archive: Path, directory: Path, *, limit: int | None = None, progress: Silent | None = None) -> None:
    """Unpack a .zip or .tar(.gz) file of `limit` bytes at most (None: as many as the disk has free).

    DataError, before anything is written, for a member that would land outside `directory`, that is a link or a device,
    or for more bytes than allowed; also where a member holds more than the archive says of it.
    """
    # not by tarfile's data filter: it takes links, and moves absolute paths inside, which are refused here; it does not
    # know zip files and is missing before Python 3.11.4
    try:
        with _open(archive) as package:
            allowed = _free(directory) if limit is None else limit
            members = _members(package, allowed)
            _check_members(archive, directory, members)
            if (total := sum(member.size for member in members)) > allowed:
                most = "the disk has" if limit is None else "this data set has at most"
                raise DataError(
                    f"{archive} ({_size(archive)} bytes) would unpack to {total} bytes or more, but {most} {allowed}; "
                    "nothing was unpacked"
                )
            for member in (progress or Silent())(members, f"unpacking {archive.name}", len(members)):
                path = directory / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as temporary, member.open() as source, open(temporary, "wb") as file:
                    _copy(source, file, member, archive)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, RuntimeError) as error:
        raise DataError(f"{archive} is damaged ({error}); delete it and fetch it again") from error


def _copy(source: IO[bytes], target: IO[bytes], member: _Member, archive: Path) -> None:
    """Copy a member, but no more than its entry promises: what it really unpacks to is known only now."""
    left = member.size
    while piece := source.read(_PIECE):
        left -= len(piece)
        if left < 0:
            raise DataError(f"{archive}: member {member.name!r} holds more than the {member.size} bytes it says")
        target.write(piece)


def _pieces(url: str, part: Path) -> Iterator[int]:
    """Appends to `part` until the file is whole, over as many connections as needed; yields the size of each piece."""
    failures, best = 0, _size(part)
    while True:
        try:
            with _connect(url, _size(part)) as response:
                resumed = response.status == http.client.PARTIAL_CONTENT
                length = response.headers.get("Content-Length")
                expected = int(length) + (_size(part) if resumed else 0) if length else None
                with open(part, "ab" if resumed else "wb") as file:
                    while piece := response.read(_PIECE):
                        file.write(piece)
                        yield len(piece)
            if expected is None or _size(part) >= expected:
                return
            reason = f"the connection ended after {_size(part)} of {expected} bytes"
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and _size(part):
                return  # nothing is left to fetch; the checksum tells whether it is the right file
            if error.code < 500:
                raise DataError(
                    f"{url}: the server answers {error.code} {error.reason}; has the file moved?"
                ) from error
            reason = f"the server answers {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            reason = f"{type(error).__name__}: {error}"
        failures = 0 if _size(part) > best else failures + 1
        best = max(best, _size(part))
        if failures == _TRIES:
            raise DataError(f"{url}: {reason}, {_TRIES} times in a row; start again later to go on from there")
        time.sleep(_PAUSE)


def _connect(url: str, offset: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "fewseg"} | ({"Range": f"bytes={offset}-"} if offset else {})
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30)  # nosec B310: addresses are the package's own


@contextmanager
def _open(archive: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as package:
            yield package
        return
    with open(archive, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        content = gzip.GzipFile(fileobj=file) if packed else file
        with tarfile.open(fileobj=cast(IO[bytes], _InPieces(content)), mode="r:") as package:
            yield package


class _InPieces:
    """A file of which no more than `_LONGEST` bytes are read at once: tarfile takes a header's word for its length."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.seek, self.tell, self.close = inner.seek, inner.tell, inner.close

    def read(self, size: int) -> bytes:
        if size > _LONGEST:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.inner.read(size)


class _Member(NamedTuple):
    """A file in an archive; links and devices have a name and a size but cannot be opened."""

    name: str
    size: int
    plain: bool
    open: Callable[[], IO[bytes]]


def _members(package: zipfile.ZipFile | tarfile.TarFile, allowed: int) -> list[_Member]:
    """All but the directories; of a tar file, which must be unpacked to be listed, no more than `allowed` bytes."""
    if isinstance(package, tarfile.TarFile):
        extract_file = cast(Callable[..., IO[bytes]], package.extractfile)  # None only for what is not plain
        listed: list[_Member] = []
        left = allowed
        for number, i in enumerate(package, 1):
            if number > _MOST_MEMBERS:
                raise tarfile.ReadError(f"more than {_MOST_MEMBERS} members")
            if not i.isdir():
                listed.append(_Member(i.name, i.size, i.isfile(), partial(extract_file, i)))
                left -= i.size
            if left < 0:
                break
        return listed
    files = [(info, stat.S_IFMT(info.external_attr >> 16)) for info in package.infolist() if not info.is_dir()]
    plain = (0, stat.S_IFREG)
    return [_Member(i.filename, i.file_size, kind in plain, partial(package.open, i)) for i, kind in files]


def _check_members(archive: Path, directory: Path, members: list[_Member]) -> None:
    root = directory.resolve()
    for member in members:
        path = PurePosixPath(member.name.replace("\\", "/"))
        outside = path.is_absolute() or ".." in path.parts or ":" in member.name.split("/", maxsplit=1)[0]
        # a link that lies in the directory already could lead out of it
        if outside or not (directory / member.name).resolve().is_relative_to(root):
            raise DataError(
                f"{archive}: member {member.name!r} would be written outside its directory; nothing was unpacked"
            )
        if not member.plain:
            raise DataError(f"{archive}: member {member.name!r} is a link or a device; such archives are not unpacked")


def _free(directory: Path) -> int:
    """Free bytes on the disk of a directory that may not be there yet."""
    root = directory.resolve()
    return shutil.disk_usage(next(path for path in (root, *root.parents) if path.exists())).free


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _done(root: Path, archive: Archive) -> Path:
    return root / ".fewseg" / f"{archive.file}.done"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _checksum(path: Path, kind: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
