"""What asks the `server` of a module: a client and a concept that it has taught, or a page in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from chromium import opened_chromium
from fewseg.data.sets.scenes import Scenes
from served import Server, served, taught
from served_page import OWL, QUERIES, SUPPORT, opened


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("served")) as one:
        yield one


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as one:
        yield one


@pytest.fixture(scope="module")
def concept(client: httpx.Client) -> str:
    return taught(client)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    source = Scenes(subset="test", level="simple", images=100, size=320)
    for number in (SUPPORT, *QUERIES):
        image, labels = source.load(number)
        image.save(folder / f"{number}.png")
        Image.fromarray((labels == OWL).astype(np.uint8)).save(folder / f"{number}-mask.png")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from opened_chromium()


@pytest.fixture(params=[{}], ids=[""])
def view(request: Any, browser: Any, server: Server) -> Iterator[Any]:
    with opened(browser, server, **request.param) as view:
        yield view
