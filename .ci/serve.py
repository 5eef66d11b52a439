"""What `pip install 'fewseg[serve]'` is worth, on any system: a server that teaches and finds a drawn object.

Run it with the Python that fewseg was installed into: `python .ci/serve.py`.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import urllib.request
import uuid
from http.cookiejar import CookieJar

import numpy as np
from PIL import Image

PORT = "8059"
URL = f"http://127.0.0.1:{PORT}"


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def form(parts: list[tuple[str, str, bytes]]) -> tuple[bytes, dict[str, str]]:
    """A multipart body of (name, file name or none, content), and its header."""
    mark, lines = uuid.uuid4().hex, []
    for name, file, content in parts:
        named = f'; filename="{file}"' if file else ""
        head = f'--{mark}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
        lines.append(head.encode() + content + b"\r\n")
    return b"".join(lines) + f"--{mark}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={mark}"}


def main() -> None:
    inside = np.zeros((240, 320), bool)
    inside[50:150, 60:170] = True
    grain = np.random.default_rng(0).integers(-12, 13, (240, 320, 1))
    pixels = (np.where(inside[..., None], (200, 40, 40), (120, 125, 115)) + grain).clip(0, 255).astype(np.uint8)
    server = subprocess.Popen([sys.executable, "-m", "fewseg", "serve", "--no-browser", "--port", PORT])
    opened = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def asked(path: str, parts: list[tuple[str, str, bytes]]) -> tuple[str, list[dict]]:
        body, headers = form(parts)
        with opened.open(urllib.request.Request(URL + path, body, headers), timeout=60) as answer:
            job = json.load(answer)
        with opened.open(URL + job["events"], timeout=60) as lines:
            return job["url"], [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]

    try:
        for _ in range(60):
            try:
                urllib.request.urlopen(f"{URL}/v1/status", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        marked = [("photo", "a.png", png(pixels)), ("mask", "a-mask.png", png(inside.astype(np.uint8) * np.uint8(255)))]
        _, told = asked("/v1/concepts", [("name", "", b"box"), *marked])
        concept = next(event["concept"] for event in told if "concept" in event)
        job, _ = asked(
            "/v1/segment", [("concept", "", concept.encode()), ("photo", "b.png", png(pixels[:, ::-1].copy()))]
        )
        with opened.open(f"{URL}{job}/photos/0/mask.png?presence=0", timeout=60) as answer:
            found = np.asarray(Image.open(io.BytesIO(answer.read()))) > 0
        iou = (found & inside[:, ::-1]).sum() / (found | inside[:, ::-1]).sum()
        print(f"served: IoU {100 * iou:.0f}")
        if iou < 0.4:
            raise SystemExit(f"an IoU of {iou:.2f} with the object")
    finally:
        server.terminate()
        code = server.wait(20)
    if code and os.name != "nt":  # there a process that is ended tells nothing
        raise SystemExit(f"the server ended with {code}")


if __name__ == "__main__":
    main()
