"""What asks the `server` of a module: a client, and a concept that it has taught."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from served import Server, taught


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as one:
        yield one


@pytest.fixture(scope="module")
def concept(client: httpx.Client) -> str:
    return taught(client)
