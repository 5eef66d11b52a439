"""Who may ask: the host and the page that a request names, tokens, and the headers that every answer has.

A browser can be led by any page to ask any address, this machine's too. So the Host must be a name that this server was
told (another page's domain may be made to lead here), and what changes something must come from this server's own page,
or from no page. Sessions are cookies that scripts cannot read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fewseg.errors import UsageError
from fewseg.server.refused import Refused
from fewseg.server.uploads import drain
from fewseg.server.visitors import Visitor, Visitors

LOOPBACK = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_CLOSED = ("/v1/", "/config.json", "/setup", "/predict", "/webhook")
"""Where paths begin that need the token, or a session that was begun with it."""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fewseg</title>
<link rel="icon" href="/icon.svg">
<link rel="stylesheet" href="/page.css">
</head>
<body>
<header><h1>fewseg</h1></header>
<main><section><p>{text}</p>{way_in}</section></main>
</body>
</html>
"""
_WAY_IN = """
<form id="enter" class="row">
<label for="token">Or give the token:</label> <input id="token" type="password" autocomplete="off" required>
<button class="primary">Enter</button>
</form>
<p class="alert" id="told" role="alert"></p>
<script type="module" src="/enter.js"></script>
"""
"""For the browser alone knows what stands behind # in its address."""


class Guard:
    """Middleware before everything else."""

    def __init__(
        self, app: ASGIApp, *, visitors: Visitors, hosts: Sequence[str], token: str | None, cookie: str
    ) -> None:
        self._app, self._visitors, self._token, self._cookie = app, visitors, token, cookie
        self._hosts = {host.lower() for host in (*LOOPBACK, *hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name, proof = self._told(scope)
        entry = Entry(self._visitors, self._visitors.known(name))
        admitted = entry.known is not None or (self._token is not None and _same(proof, self._proof(name)))
        scope.setdefault("state", {})["entry"] = entry

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store" if scope["path"].startswith(_CLOSED) else "no-cache")
                if entry.new is not None:
                    headers.append("Set-Cookie", self._set_cookie(entry.new, scope))
            await send(message)

        try:
            self._check(scope, admitted=admitted)
            app = self._app
        except Refused as error:
            app = await refusal(Request(scope, receive), error)
        await app(scope, receive, answer)

    def _told(self, scope: Scope) -> tuple[str, str]:
        """The visitor's name in the cookie, and the proof that it was begun with the token."""
        cookies = SimpleCookie()
        try:
            cookies.load(Headers(scope=scope).get("cookie", ""))
        except CookieError:
            return "", ""
        name, _, proof = cookies[self._cookie].value.partition(".") if self._cookie in cookies else ("", "", "")
        return name, proof

    def _proof(self, name: str) -> str:
        """What only this token makes of a name: an open page goes on after half an hour's rest, or a restart."""
        return hmac.new((self._token or "").encode(), name.encode(), hashlib.sha256).hexdigest()

    def _check(self, scope: Scope, *, admitted: bool) -> None:
        """Refused where the request may not go on."""
        headers = Headers(scope=scope)
        self._check_host(headers.get("host", ""), scope)
        if scope["method"] not in ("GET", "HEAD"):
            _check_origin(headers)
        if self._token is None:
            return
        bearer, path = _bearer(headers.get("authorization", "")), scope["path"]
        if not _same(bearer, self._token) and not admitted and (path == "/" or path.startswith(_CLOSED)):
            said = "this server wants its token"
            if bearer:
                said = "the token that was given is not this server's"
            elif "token" in QueryParams(scope["query_string"]):
                said = "a token behind ? would stand in logs, so none is read there"
            raise Refused(
                401,
                f"{said}: open the address with its token, as `fewseg serve` printed it (http://.../#token=...; ask "
                "whoever started it), or send the header Authorization: Bearer TOKEN",
            )

    def _check_host(self, host: str, scope: Scope) -> None:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        own = (scope.get("server") or ("",))[0]
        # the address of this machine that was connected to: no name leads a browser astray there
        if name.lower() not in self._hosts and name != own:
            raise Refused(
                421,
                f"this server does not answer for {name[:100]!r}; start it with --allow-host {name[:100] or 'NAME'}",
            )

    def _set_cookie(self, visitor: Visitor, scope: Scope) -> str:
        # what a proxy says counts for this alone: who says it in its place loses no more than the own cookie
        https = "https" in (scope["scheme"], Headers(scope=scope).get("x-forwarded-proto"))
        secure = "; Secure" if https else ""
        proof = "" if self._token is None else f".{self._proof(visitor.name)}"
        return f"{self._cookie}={visitor.name}{proof}; Path=/; HttpOnly; SameSite=Lax{secure}"


def host_name(given: str) -> str:
    """The name of `--allow-host NAME`, without a port; UsageError where it is none that a browser could send."""
    with suppress(ValueError):
        return str(ip_address(given.strip("[]")))
    name = re.sub(r":\d+$", "", given)
    if re.fullmatch(r"[a-z\d_][\w.-]*", name, re.ASCII | re.IGNORECASE):
        return name
    within = re.match(r"\w+://([\w.-]+)", given, re.ASCII)
    example = within[1] if within else "photos.example.org"
    raise UsageError(f"--allow-host {given}: give a host's name alone, as it stands in the address: {example}")


class Entry:
    """The visitor of a request: known, or made when first needed."""

    def __init__(self, visitors: Visitors, known: Visitor | None) -> None:
        self._visitors, self.known = visitors, known
        self.new: Visitor | None = None

    def visitor(self) -> Visitor:
        """The visitor; Refused where there are too many."""
        if self.known is None:
            self.known = self.new = self._visitors.enter()
        return self.known

    def here(self) -> None:
        """The visitor still waits for something."""
        if self.known is not None:
            self._visitors.known(self.known.name)

    def forget(self) -> None:
        """The visitor leaves, with everything."""
        if self.known is not None:
            self._visitors.forget(self.known)


def visitor_of(request: Request) -> Visitor:
    """The visitor of a request, a new one if need be."""
    return request.state.entry.visitor()


async def refusal(request: Request, error: Refused) -> Response:
    """The answer to a request that is refused; what it still sends is read for a while, but of one that is too slow."""
    if error.status != 408:
        await drain(request)
    headers: dict[str, Any] = {"Connection": "close"}  # a body may be left unread
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if "text/html" in request.headers.get("accept", ""):  # a browser that was led to an address, and no script
        text = re.sub("`(.+?)`", r"<code>\1</code>", escape(error.text))
        return HTMLResponse(_PAGE.format(text=text, way_in=_WAY_IN * (error.status == 401)), error.status, headers)
    return JSONResponse({"error": error.text}, error.status, headers)


def _bearer(header: str) -> str:
    """The token of a header; Label Studio can send it only as the password of a user of any name."""
    kind, _, told = header.partition(" ")
    if kind.lower() != "basic":
        return header.removeprefix("Bearer ")
    try:
        return base64.b64decode(told, validate=True).decode("utf-8").partition(":")[2]
    except ValueError:
        return ""


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())


def _check_origin(headers: Headers) -> None:
    """Refused where another page asks."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    host, allowed = headers.get("host", ""), "only this server's own page, or a program, may"
    by = "another page" if origin is None else f"a page of {origin[:200]}"
    if origin is not None and urlsplit(origin).netloc != host:
        proxy = (
            "a proxy between them must pass Host on as it came, port and all (nginx: proxy_set_header Host $http_host)"
        )
        raise Refused(403, f"this was asked of {host[:200]} (Host) by {by} (Origin); {allowed}; {proxy}")
    if site not in ("same-origin", "none"):
        raise Refused(403, f"this was asked by {by} (Sec-Fetch-Site: {site[:20]}); {allowed}")
