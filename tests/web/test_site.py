"""The folder that `fewseg web` writes, its local server, and the types of its modules."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from fewseg.errors import UsageError, install_line
from fewseg.web import ort_web
from fewseg.web.loopback import open_server
from fewseg.web.ort_web import ort_files
from fewseg.web.site import PAGE, write_page
from helpers import Fewseg
from npm_packages import run_npm
from test_light import without_torch


@pytest.mark.slow
def test_the_page_is_written_without_torch_and_lists_all_that_it_needs(ort, tmp_path):
    done = without_torch("web", tmp_path / "page", "--runtime", ort)
    assert done.returncode == 0, done.stderr
    listed = json.loads((tmp_path / "page/files.js").read_text().removeprefix("self.FEWSEG = ").rstrip(";\n"))
    names = {name.partition("?")[0] for name in (*listed["page"], *listed["large"])} | {
        "index.html",
        "sw.js",
        "files.js",
    }
    written = {str(file.relative_to(tmp_path / "page")) for file in (tmp_path / "page").rglob("*") if file.is_file()}
    assert written == names - {"./"}
    imported = {name for file in PAGE.glob("*.js") for name in re.findall(r'from "\./(.+?)"', file.read_text())}
    assert imported <= written


@pytest.mark.slow
def test_a_page_is_written_anew_but_no_other_folder_is_touched(ort, tmp_path):
    write_page(tmp_path / "page", runtime=ort)
    first = (tmp_path / "page/files.js").read_text()
    write_page(tmp_path / "page", runtime=ort)
    assert (tmp_path / "page/files.js").read_text() == first
    # by an older version: what it listed goes, what somebody put there stays
    older = first.replace("ort/ort.wasm.min.js", "ort/ort.wasm.min.mjs").replace("./", "../not-ours.js")
    (tmp_path / "page/files.js").write_text(older)
    for name in ("page/ort/ort.wasm.min.mjs", "page/robots.txt", "not-ours.js"):
        (tmp_path / name).write_text("")
    write_page(tmp_path / "page", runtime=ort)
    assert not list((tmp_path / "page").rglob("*.mjs"))
    assert (tmp_path / "page/robots.txt").exists()
    assert (tmp_path / "not-ours.js").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/index.html").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        write_page(tmp_path / "mine", runtime=ort)
    assert (tmp_path / "mine/index.html").read_text() == "mine"


def test_a_model_without_graphs_and_a_wrong_runtime_are_refused(tmp_path):
    for model in ("dense", "lite@1"):
        with pytest.raises(UsageError, match=rf"{model} has no graphs.*choose lite, or the folder"):
            write_page(tmp_path / "page", model=model)
    with pytest.raises(UsageError, match=r"holds no ort\.wasm\.min\.mjs; give the folder dist of onnxruntime-web"):
        ort_files(tmp_path)
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/ort.wasm.min.mjs").write_text("other")
    with pytest.raises(UsageError, match="is missing or of another version"):
        ort_files(tmp_path)
    assert not (tmp_path / "page").exists()


def test_without_npm_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(ort_web.platformdirs, "user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(ort_web.shutil, "which", lambda name: None)
    monkeypatch.setattr(ort_web, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(UsageError, match=re.escape(install_line("web"))):
        ort_files()
    assert not list((tmp_path / "fewseg").glob("*"))


def test_the_local_server_sends_the_headers_and_lists_no_folder(tmp_path):
    (tmp_path / "ort").mkdir()
    (tmp_path / "ort/a.js").write_text("1")
    with open_server(tmp_path) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert server.server_address[0] == "127.0.0.1"
        url = f"http://127.0.0.1:{server.server_port}/"
        with urllib.request.urlopen(f"{url}ort/a.js", timeout=20) as answer:
            assert answer.headers["Content-Type"].startswith("text/javascript")
            assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}ort/", timeout=20)
        with pytest.raises(UsageError, match=f"port {server.server_port} cannot be listened on"):
            open_server(tmp_path, server.server_port)
        server.shutdown()


def test_a_port_is_for_serving(tmp_path, fewseg: Fewseg):
    result = fewseg("web", tmp_path / "page", "--port", "9000")
    assert result.code == 2
    assert "--port 9000 is for --serve" in result.err


def test_the_page_names_no_other_place():
    for file in PAGE.iterdir():
        places = re.findall(r"https?://[^\s\"'<]+", file.read_text())
        assert set(places) <= {"http://www.w3.org/2000/svg"}, file.name
        assert not re.search(r"style=|onclick=|<script>", file.read_text())


@pytest.mark.slow
def test_the_types_of_its_modules_hold():
    words = ["exec", "--yes", "--prefer-offline", "--package", "typescript@5.9.3", "--", "tsc", "--project", str(PAGE)]
    assert run_npm(words, Path.cwd()) == ""
