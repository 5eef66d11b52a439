"""The command `fewseg web`: a page that works in the browser alone. It works without torch."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from fewseg.cli.printing import say
from fewseg.errors import UsageError


def web(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder to write the page into: new, empty, or a page.")
    ],
    model: Annotated[str, typer.Option(help="lite, or a folder that `fewseg export MODEL --onnx` wrote.")] = "lite",
    runtime: Annotated[
        Path | None,
        typer.Option(help="The folder dist of onnxruntime-web [fetched once with npm, checked, and kept in a cache]."),
    ] = None,
    webgpu: Annotated[
        bool,
        typer.Option("--webgpu", help="Also write what graphics processors need, 27 MB: untried, none was at hand."),
    ] = False,
    serve: Annotated[bool, typer.Option("--serve", help="Serve it on this machine until Ctrl-C.")] = False,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="With --serve [the first free one from 8020].")
    ] = None,
    browser: Annotated[bool, typer.Option(help="With --serve: open it in a browser.")] = True,
) -> None:
    """Write a page that teaches and finds in the browser: no server computes, and no photo leaves the machine.

    See it: `fewseg web DIR --serve`. Publish it: copy DIR to any static host with https. It sets the headers that
    threads need itself, and works without a network once it has been opened.

    It runs the graphs of a shipped or exported model with onnxruntime-web 1.30.0, on all cores; with --webgpu on a
    graphics processor, where its answers prove right. Those files are not in fewseg: npm fetches them once
    (`npm pack onnxruntime-web@1.30.0`; the extra `web` brings an npm), or give them with --runtime.
    """
    from fewseg.web.loopback import open_server
    from fewseg.web.site import write_page

    if port is not None and not serve:
        raise UsageError(f"--port {port} is for --serve; add it, or leave the port out")
    size = write_page(folder, model=model, runtime=runtime, webgpu=webgpu)
    say(f"page: {folder / 'index.html'}  ({size / 1e6:.0f} MB; {model})")
    if not serve:
        say(f"see it: fewseg web {folder} --serve; or copy the folder to a static host")
        return
    with open_server(folder, port) as server:
        url = f"http://127.0.0.1:{server.server_port}/"
        say(f"served: {url}  (Ctrl-C ends it)")
        if browser:
            webbrowser.open(url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
