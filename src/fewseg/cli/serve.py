"""The command `fewseg serve`: page and API on this machine, or for a network. It works without torch."""

from __future__ import annotations

import re
import secrets
import sys
import webbrowser
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from fewseg.cli.options import Model
from fewseg.cli.printing import say
from fewseg.errors import UsageError, install_line

_SHORTEST = 16
ANY_WORDS = {"ignore_unknown_options": True, "allow_extra_args": True}
"""What a command takes that is no more."""
TOKEN = "FEWSEG_TOKEN"  # nosec B105: a name
STUDIO_TOKEN = "LABEL_STUDIO_API_KEY"  # nosec B105: a name


def serve(
    model: Model = "lite",
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets the network in, with a token.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="[the first free one from 8040]")] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar=TOKEN,
            help="What visitors must know, 16 letters or more "
            f"[with --host or --allow-host: a random one; or {TOKEN}].",
        ),
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="With --host or --allow-host: let everyone in.")] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A name by which browsers may know this server, such as a proxy's; with a token; may be repeated."
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Another limit: file_mb, megapixels, photos, ...; may be repeated."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where visitors' files lie while they are needed [the system's place for them].")
    ] = None,
    label_studio: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Be an ML backend of Label Studio, with the concepts in this folder, one for each label.",
        ),
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="With --label-studio: the folder of the photos that its tasks name.")
    ] = None,
    label_studio_url: Annotated[
        str | None, typer.Option(help="With --label-studio: its address; photos are fetched from there alone.")
    ] = None,
    label_studio_token: Annotated[
        str | None, typer.Option(envvar=STUDIO_TOKEN, help=f"Of an account there [or {STUDIO_TOKEN}].")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="cpu, cuda, coreml, directml or openvino.")] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Serve the page and the API: mark objects in photos, find them in others, take masks and concepts away.

    Needs the extra `serve`; works without a network. Photos are removed as soon as
    they were searched, all else of a visitor after half an hour without a click, and everything when it ends.

    With --label-studio it also predicts for Label Studio and learns what is annotated there.
    """
    try:
        from fewseg.server.guard import host_name
        from fewseg.server.run import is_loopback, opened
        from fewseg.server.run import serve as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "python_multipart", "h11", "anyio"):
            raise
        raise UsageError(f"this needs {error.name}; install it with: {install_line('serve')}") from error
    from fewseg.concept import Concept
    from fewseg.runtime.engine import model_in_words
    from fewseg.server.limits import Limits
    from fewseg.server.ml_backend import MlBackend, writable
    from fewseg.server.ml_photos import TaskPhotos
    from fewseg.storage.engines import open_engine

    limits = Limits().changed(limit or [])
    _check_token(token, no_token=no_token)
    secret = token is not None and not sys.stdout.isatty()  # what is no terminal is a log
    hosts = [host_name(one) for one in allow_host or ()]
    for_others = bool(hosts) or not is_loopback(host)
    if token is None and not no_token and for_others:
        token = secrets.token_urlsafe(24)
    if label_studio is None and (photos or label_studio_url):
        raise UsageError("--photos and --label-studio-url are for --label-studio DIR, the folder of concepts")
    backend = None
    if label_studio is not None:
        place = TaskPhotos(photos, label_studio_url, label_studio_token, limits)
        backend = partial(MlBackend, folder=writable(label_studio), photos=place, tell=say)
    engine = open_engine(model, provider=provider)
    address = opened(host, port, token)
    url = f"{address.url}#token={token}" if token else address.url
    shown = f"{address.url}#token=..." if secret else url

    def ready() -> None:
        say(f"page: {shown}  ({'with the token that was given; ' * secret}Ctrl-C ends it)")
        say(f"API:  {address.url}api.html  ({model_in_words(engine)}, {engine.runtime})")
        if hosts:
            say(f"for others: {' or '.join(hosts)} in place of {urlsplit(url).netloc}")
        elif not host.strip("0.:"):
            own = f"this one's{' IPv6' * (':' in host)} address in place of {address.shown_host}"
            say(f"from other machines: {own}; a name needs --allow-host NAME")
        if label_studio is not None:
            there = ", ".join(sorted(Concept.load(path).title for path in label_studio.glob("*.concept"))) or "none yet"
            say(f"ML backend for Label Studio: {address.url}  (concepts in {label_studio}: {there})")
        if not token and for_others:
            say("note: no token: whoever reaches this server may use it", err=True)
        if browser:
            webbrowser.open(url)

    run(engine, address, limits=limits, hosts=hosts, folder=folder, ready=ready, backend=backend)


def _check_token(token: str | None, *, no_token: bool) -> None:
    if token is not None and not re.fullmatch(rf"[\w.~-]{{{_SHORTEST},}}", token, re.ASCII):
        raise UsageError(
            f"a token has {_SHORTEST} or more plain letters, digits and -._~, as it stands in an address; leave it out "
            "for a random one"
        )
    if token is not None and no_token:
        raise UsageError("--token and --no-token: give one of them")


def formerly() -> None:
    """`fewseg app`, which it was called; for one release."""
    raise UsageError(f"`fewseg app` is `fewseg serve` now: {install_line('serve')}, then fewseg serve")
