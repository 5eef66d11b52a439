"""`fewseg serve` for minutes: `python -m benchmarks.soak server [--minutes 10] [--visitors 8] [--rate 20]`

First visitors teach, search, take masks away and forget, over and over, while the server's memory is looked at every
few seconds: it must stay below the bound, and be flat after the first third. Then photos of 0.3 megapixels come at a
rate that is too much: all who are accepted must be served, and all others be told when to come again. Linux only.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from fewseg.data.sets.scenes import Scenes

CLASS, SUPPORT = 5, 17
MOST_MB, DRIFT_MB = 1200, 60


def main() -> None:
    options = parse(sys.argv[1:])
    with tempfile.TemporaryDirectory() as name:
        server = Server(Path(name))
        problems = stay(server, options.visitors, 60 * options.minutes) + hurry(server, options.rate, options.seconds)
        server.process.send_signal(signal.SIGTERM)
        if code := server.process.wait(20):
            problems.append(f"the server ended with {code}")
        if left := [str(file) for file in Path(name).rglob("*") if file.is_file() and file.name != ".lock"]:
            problems.append(f"files are left: {left[:3]}")
    for problem in problems:
        print(problem)
    sys.exit(bool(problems))


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument("--rate", type=float, default=20, help="photos a second")
    parser.add_argument("--seconds", type=float, default=30, help="for so long")
    return parser.parse_args(words)


class Server:
    """A server of its own, and its memory."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "fewseg", "serve", "--no-browser", "--folder", str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.url = self.process.stdout.readline().split()[1]

    @property
    def memory(self) -> float:
        """Resident, in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def drawn(number: int, size: int) -> tuple[bytes, bytes]:
    """A scene with the object, and its mask, as files."""
    image, labels = Scenes(subset="test", level="simple", images=100, size=size).load(number)
    photo, mask = io.BytesIO(), io.BytesIO()
    image.save(photo, "JPEG", quality=92)
    Image.fromarray((labels == CLASS).astype(np.uint8) * np.uint8(255)).save(mask, "PNG")
    return photo.getvalue(), mask.getvalue()


def events(client: httpx.Client, answer: httpx.Response) -> list[dict]:
    answer.raise_for_status()
    with client.stream("GET", answer.json()["events"]) as lines:
        return [json.loads(line[6:]) for line in lines.iter_lines() if line.startswith("data: ")]


def taught(client: httpx.Client, photo: bytes, mask: bytes) -> str:
    files = [("photo", ("a.jpg", photo)), ("mask", ("a.png", mask))]
    told = events(client, client.post("/v1/concepts", data={"name": "owl"}, files=files))
    return next(event["concept"] for event in told if "concept" in event)


def ask(client: httpx.Client, concept: str, photos: list[bytes]) -> httpx.Response:
    files = [("photo", (f"{number}.jpg", photo)) for number, photo in enumerate(photos)]
    return client.post("/v1/segment", data={"concept": concept}, files=files)


def stay(server: Server, visitors: int, seconds: float) -> list[str]:
    """Visitors who do everything, and stay; what is wrong."""
    support, queries = drawn(SUPPORT, 480), [drawn(number, size)[0] for number, size in ((43, 480), (66, 2000))]
    end, wrong, rounds = time.monotonic() + seconds, list[str](), Counter[str]()

    def visit(number: int) -> None:
        while time.monotonic() < end:
            try:
                with httpx.Client(base_url=server.url, timeout=120) as client:
                    concept = taught(client, *support)
                    for _ in range(3):
                        job = ask(client, concept, queries)
                        if len([event for event in events(client, job) if "classes" in event]) < len(queries):
                            wrong.append(f"visitor {number}: a photo was not searched")
                        client.get(f"{job.json()['url']}/masks.zip?format=png&format=coco").raise_for_status()
                        client.get(f"/v1/concepts/{concept}/file").raise_for_status()
                        rounds["photos"] += len(queries)
                    client.delete("/v1/session").raise_for_status()
            except httpx.HTTPError as error:
                wrong.append(f"visitor {number}: {type(error).__name__} {error}")

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(visitors)]
    for thread in threads:
        thread.start()
    held = []
    while time.monotonic() < end:
        time.sleep(min(3.0, seconds / 20))
        held.append(server.memory)
    for thread in threads:
        thread.join()
    third = len(held) // 3
    early, late = max(held[third : 2 * third]), max(held[2 * third :])
    course = ", ".join(f"{mb:.0f}" for mb in held[:: max(1, len(held) // 12)])
    print(f"{rounds['photos']} photos for {visitors} visitors; MB: {course}")
    if max(held) > MOST_MB:
        wrong.append(f"{max(held):.0f} MB were held; {MOST_MB} are allowed")
    if late - early > DRIFT_MB:
        wrong.append(f"memory grows: {early:.0f} MB in the second third, {late:.0f} in the last")
    return wrong[:10]


def hurry(server: Server, rate: float, seconds: float) -> list[str]:
    """Photos of 0.3 megapixels at a rate; what is wrong."""
    support, query = drawn(SUPPORT, 480), drawn(43, 640)[0]
    codes, wrong, waits = Counter[int](), list[str](), list[float]()
    with httpx.Client(base_url=server.url, timeout=120) as client:
        concept = taught(client, *support)

        def one() -> None:
            began = time.monotonic()
            answer = ask(client, concept, [query])
            codes[answer.status_code] += 1
            if answer.status_code == 202:
                if "classes" not in events(client, answer)[0]:
                    wrong.append("one who was accepted was not served")
                client.delete(answer.json()["url"])
                waits.append(time.monotonic() - began)
            elif answer.status_code != 429 or not 1 <= int(answer.headers.get("retry-after", 0)) <= 120:
                wrong.append(f"refused with {answer.status_code}, and no time to come again")

        threads = []
        for number in range(round(rate * seconds)):
            threads.append(threading.Thread(target=one))
            threads[-1].start()
            time.sleep(1 / rate)
            if number % 50 == 0:
                threads = [thread for thread in threads if thread.is_alive()]
        for thread in threads:
            thread.join()
    waits.sort()
    middle = f"{waits[len(waits) // 2]:.1f} s in the middle, {waits[-1]:.1f} s at most" if waits else "none"
    print(f"{rate:g} a second for {seconds:g} s: {dict(codes)}; served after {middle}; {server.memory:.0f} MB")
    if not codes[202]:
        wrong.append("nobody was accepted")
    return wrong[:10]
