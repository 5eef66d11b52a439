"""The command `fewseg app`: a model on a page in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from fewseg.cli.options import Device, Model
from fewseg.cli.printing import say


def page(
    model: Model = "lite",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets the whole network in.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="[the first free one from 7860]")] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    device: Device = "auto",
) -> None:
    """Serve a page on this machine: mark objects in photos with the mouse, see and download masks of others.

    `fewseg app --model RUN`. Needs the extra `app` (`pip install 'fewseg[app]'`); works without a network.
    """
    from fewseg.server.serve import serve
    from fewseg.storage.opening import open_target

    opened = open_target(model, [], device=device)
    served = serve(opened.model, host=host, port=port, browser=browser, wait=False)
    say(f"page: {served.local_url}  (Ctrl-C ends it)")
    served.block_thread()
