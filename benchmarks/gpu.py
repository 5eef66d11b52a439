"""What a GPU makes of the networks: episodes a second, training steps, a whole evaluation, beside the card's limits.

    python -m benchmarks.gpu                      one table in Markdown, in under five minutes on an H100
    python -m benchmarks.gpu --out results.json   keep the numbers, row by row
    python -m benchmarks.gpu --quick              tiny sizes, on a CPU too: shows that it works

Ways: `plain` is the model as its file has it, `view` what fewseg runs. A row that could not be measured says why. The
floor of a row is the larger of two times: its multiplications and additions over the card's measured matrix product of
that precision, and its bytes over the measured copy. Bytes are every operation's inputs and outputs, as if none stayed
in a cache. `products ms` is what a row's matrix products and convolutions take alone, one after the other in their own
shapes: what no other way of doing the rest gets below.
"""

from __future__ import annotations

import argparse
import atexit
import copy
import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from benchmarks.__main__ import commit
from benchmarks.inputs import make_episode, make_model, write_data_set
from benchmarks.measure import Run
from fewseg.data.sets.folder import Folder
from fewseg.episode import Episode
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import evaluate, versions
from fewseg.models.fast import accelerate
from fewseg.training.graphs import GraphedObjective
from fewseg.training.objectives import EpisodeObjective

Row = dict[str, Any]
HEAD = ("what", "precision", "way", "batch", "shots", "per second", "ms", "TFLOP/s", "of the peak", "products ms",
        "floor ms", "GB", "note")  # fmt: skip
MINUTES = 4.6
"""After so many, what is left is not measured."""


@dataclass(frozen=True)
class Inference:
    """Whole episodes that lie on the device."""

    method: str = "hdmnet"
    backbone: str = "resnet50-ds"
    side: int = 473
    batch: int = 1
    shots: int = 1
    precision: str = "bf16"
    way: str = "view"

    @property
    def what(self) -> str:
        return f"{self.method}, {self.backbone}, {self.side} px"

    def prepare(self, device: torch.device) -> tuple[Run, int]:
        model, episode = model_for(self, device), make_episode(self.side, shots=self.shots, share=0.15).to(device)
        episode = Episode(**{n: t.expand(self.batch, *t.shape[1:]).contiguous() for n, t in episode.as_dict().items()})
        steps = "CUDA graphs" in self.way

        def run() -> Tensor:
            if steps:
                torch.compiler.cudagraph_mark_step_begin()
            with torch.inference_mode(), precision_of(self.precision, device):
                return model(episode).logits

        return (captured(run) if self.way.endswith("in one graph") else run), self.batch


@dataclass(frozen=True)
class Training:
    """Steps of AdamW from images, or from features that are kept on the device or in the processor's memory."""

    method: str = "hdmnet"
    backbone: str = "resnet50-ds"
    side: int = 473
    batch: int = 4
    shots: int = 1
    precision: str = "bf16"
    way: str = "images"

    @property
    def what(self) -> str:
        return f"training {self.method}, {self.backbone}, {self.side} px"

    def prepare(self, device: torch.device) -> tuple[Run, int]:
        model = model_for(replace(self, way="plain"), device)
        plain = EpisodeObjective(model).train()
        objective = GraphedObjective(plain, sys.stderr.write).train() if self.way.endswith("recorded") else plain
        batch = make_episode(self.side, shots=self.shots, share=0.15, batch=self.batch).to(device).as_dict()
        kept: dict[str, Any] = {}
        if self.way != "images":
            where = torch.device("cpu") if self.way == "features in memory" else device
            with torch.no_grad():
                query = objective.model.extract_query(batch["query_image"])
                support = objective.model.extract_support(batch["support_images"], batch["support_masks"])
            kept = {"query": to(query, where), "support": to(support, where)}
        optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=1e-5, fused=True)  # as `create_optimizer`

        def run() -> Tensor:
            features = {part: to(value, device) for part, value in kept.items()}
            with precision_of(self.precision, device):
                losses = objective(batch, **features)["losses"]
                loss = torch.stack(list(losses.values())).sum()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.detach()

        return run, self.batch


Case = Inference | Training


def to(features: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: f.to(device) for name, f in features.items()}


def model_for(case: Case, device: torch.device) -> Any:
    """The case's network, a copy: what is compiled or laid out for one row is not the next one's."""
    model = copy.deepcopy(made(case.method, case.backbone, case.shots, case.side)).to(device)
    if case.way.startswith("view"):
        model = accelerate(model)
    if "channels last" in case.way:
        model.to(memory_format=torch.channels_last)  # convolutions follow their weights
    if "compiled" in case.way:
        model.backbone.compile(dynamic=False)
    if "CUDA graphs" in case.way:
        model.backbone.compile(dynamic=False, mode="reduce-overhead")
    return model


@lru_cache(maxsize=4)
def made(method: str, backbone: str, shots: int, side: int) -> Any:
    return make_model(backbone, shots=shots, side=side, method=method)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def precision_of(name: str, device: torch.device) -> AbstractContextManager[Any]:
    """fp32, tf32 or bf16; the first two are the process's state while a row is measured."""
    return torch.autocast(device.type, torch.bfloat16) if name == "bf16" else nullcontext()


def captured(run: Callable[[], Tensor]) -> Run:
    """A run as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()

    def replay() -> Tensor:
        graph.replay()
        return found

    return replay


# Measuring


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(run: Run, device: torch.device, *, quick: bool) -> list[float]:
    """Seconds of every repeat, after a warm-up; on a GPU by its own clock."""
    if device.type != "cuda":
        run()
        start = time.perf_counter()
        run()
        return [time.perf_counter() - start]
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    found: list[float] = []
    while len(found) < (2 if quick else 3) or (sum(found) < 0.6 and len(found) < 50):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / 1000)
    return found


PRODUCTS = ("convolution", "mm.", "_dot_product_", "baddbmm")
"""Names of the operations that multiply matrices."""


class Shape(NamedTuple):
    """A tensor without its values."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


class Traffic(TorchDispatchMode):
    """Bytes of the inputs and outputs of all operations that compute."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        made = [t for t in tree_leaves(found) if isinstance(t, Tensor)]
        held = {t.untyped_storage().data_ptr() for t in given}
        is_view = all(t.untyped_storage().data_ptr() in held for t in made) and not func._schema.is_mutable
        if not is_view and "empty" not in func.__name__:
            self.bytes += sum(t.numel() * t.element_size() for t in (*given, *made))
        return found


class Products(TorchDispatchMode):
    """Every matrix product and convolution, as often as it is met; its tensors by shape, strides and type."""

    def __init__(self) -> None:
        super().__init__()
        self.met: Counter[tuple[Any, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(part in func.__name__ for part in PRODUCTS):
            self.met[func, tuple(map(described, args))] += 1
            return func(*args, **kwargs)
        with self:  # inference mode hands over operations that are made of others
            parts = func.decompose(*args, **kwargs)
        return func(*args, **kwargs) if parts is NotImplemented else parts

    def seconds(self, device: torch.device, *, quick: bool) -> float:
        """What all take alone, on random numbers."""
        total = 0.0
        for (func, args), times in self.met.items():
            given = [like(arg, device) for arg in args]
            total += times * statistics.median(timed(partial(func, *given), device, quick=True))
            del given
        return total


def described(arg: Any) -> Any:
    if isinstance(arg, Tensor):
        return Shape(tuple(arg.shape), arg.stride(), arg.dtype)
    return tuple(arg) if isinstance(arg, list) else arg


def like(arg: Any, device: torch.device) -> Any:
    if isinstance(arg, Shape):
        held = [1 if stride == 0 else length for length, stride in zip(arg.size, arg.strides, strict=True)]  # expanded
        return torch.empty_strided(held, arg.strides, dtype=arg.dtype, device=device).normal_().expand(arg.size)
    return list(arg) if isinstance(arg, tuple) else arg


def fused_flops(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """Of a convolution with its sum and ReLU, which torch's counter does not know."""
    return conv_flop_count(x, weight, out_shape)


FUSED = {torch.ops.aten.cudnn_convolution_relu: fused_flops, torch.ops.aten.cudnn_convolution_add_relu: fused_flops}


@lru_cache
def work_of(case: Inference, device: torch.device) -> tuple[float, float]:
    """FLOPs and bytes of one episode."""
    run, _ = case.prepare(device)
    traffic, counter = Traffic(), FlopCounterMode(display=False, custom_mapping=FUSED)
    with traffic, counter:
        run()
    return float(counter.get_total_flops()), float(traffic.bytes)


def limits(device: torch.device, *, quick: bool) -> dict[str, float]:
    """What the card reaches: FLOP/s of a large matrix product by precision, and bytes/s of a copy, read and written."""
    side, length = (256, 2**16) if quick else (8192, 2**28)
    found = {}
    for precision in ("fp32", "tf32", "bf16"):
        a, b = (torch.randn(side, side, device=device) for _ in range(2))
        a, b = (m.bfloat16() if precision == "bf16" else m for m in (a, b))
        with tf32(precision == "tf32"):
            seconds = timed(lambda a=a, b=b: a @ b, device, quick=quick)
        found[precision] = 2 * side**3 / statistics.median(seconds)
    big = torch.randn(length, device=device)
    other = torch.empty_like(big)
    found["bytes"] = 2 * 4 * length / statistics.median(timed(lambda: other.copy_(big), device, quick=quick))
    return found


def measured(case: Case, device: torch.device, peaks: dict[str, float], *, quick: bool) -> Row:
    """A row, or why there is none."""
    row: Row = {"what": case.what} | {k: v for k, v in asdict(case).items() if k in HEAD}
    allows = {"fp32": partial(tf32, False), "tf32": partial(tf32, True)}.get(case.precision, nullcontext)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with allows():
        run, count = case.prepare(device)
        seconds = statistics.median(timed(run, device, quick=quick))
        row |= {"per second": count / seconds, "ms": 1000 * seconds}
        if device.type == "cuda":
            row["GB"] = torch.cuda.max_memory_allocated() / 1e9
        if isinstance(case, Inference):
            way = "plain" if case.way.startswith("plain") else "view"
            flops, moved = (count * w for w in work_of(replace(case, batch=1, way=way), device))
            floors = flops / peaks[case.precision], moved / peaks["bytes"]
            row |= {
                "TFLOP/s": flops / seconds / 1e12,
                "of the peak": flops / seconds / peaks[case.precision],
                "floor ms": 1000 * max(floors),
                "note": "arithmetic" if floors[0] > floors[1] else "bytes",
            }
            if case.way == "view" and (case.batch == 32 or case.precision != "bf16"):
                with (products := Products()):
                    run()
                row["products ms"] = 1000 * products.seconds(device, quick=quick)
    return row


@lru_cache(maxsize=1)
def photos(*, quick: bool) -> Folder:
    """A folder of photos of COCO's size, which is there until the process ends."""
    root = Path(mkdtemp(prefix="fewseg-benchmark-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    size, images, drawn = ((96, 72), 8, 8) if quick else ((640, 480), 2000, 200)
    write_data_set(root, images=images, classes=5, shown=5, size=size, drawn=drawn)
    return Folder(subset="test", root=str(root), novel_classes=[f"thing {c}" for c in range(1, 6)])


def evaluated(device: torch.device, *, batch: int, precision: str, quick: bool) -> Row:
    """A whole evaluation of photos in a folder, decoded on workers; and how long the GPU had nothing to do."""
    backbone, side, episodes = ("lite0", 97, 4) if quick else ("resnet50-ds", 473, 1000 if batch >= 32 else 250)
    workers = 0 if quick else max(1, (os.cpu_count() or 2) - 2)
    row: Row = {"what": f"evaluation from disk, {backbone}, {side} px, {workers} workers, {episodes} episodes",
                "precision": precision, "way": "view", "batch": batch, "shots": 1}  # fmt: skip
    source = photos(quick=quick)
    model = copy.deepcopy(made("hdmnet", backbone, 1, side)).to(device)

    def run(count: int) -> float:
        benchmark = Benchmark.draw(source, source.fold(0), episodes=count, repeats=1)
        with tf32(precision == "tf32"), precision_of(precision, device):
            start = time.perf_counter()
            evaluate(model, benchmark, batch_size=batch, workers=workers)
            synchronise(device)
            return time.perf_counter() - start

    run(2 * batch if device.type == "cuda" else 4)
    seconds = run(episodes)
    row |= {"per second": episodes / seconds, "ms": 1000 * seconds / episodes}
    if device.type == "cuda":
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            wall = run(episodes // 5)
        busy = sum(event.self_device_time_total for event in seen.key_averages()) / 1e6
        row["note"] = f"the GPU waits {1 - busy / wall:.0%} of the time"
    return row


def cases(*, quick: bool) -> list[Case]:
    """What is measured, the most telling first: the last ones may find no time."""
    if quick:
        small = Inference(backbone="lite0", side=65, precision="fp32")
        return [small, replace(small, way="plain", precision="bf16"), Training(backbone="lite0", side=65, batch=2),
                Training(backbone="lite0", side=65, batch=2, way="features in memory"),
                replace(small, way="view in one graph")]  # fmt: skip
    one = Inference()
    rows: list[Case] = []
    for batch in (1, 8, 32):
        rows += [replace(one, batch=batch, way=way) for way in ("plain", "view")]
    rows += [replace(one, batch=batch, way="plain + channels last") for batch in (1, 32)]
    for precision in ("fp32", "tf32"):
        rows += [replace(one, batch=8, precision=precision, way=w) for w in ("plain", "plain + channels last", "view")]
    for batch in (1, 8, 32):
        rows += [replace(one, batch=batch, shots=5, way=way) for way in ("plain", "view")]
    for batch in (4, 16):
        kept = Training(batch=batch, way="features on the device")
        rows += [Training(batch=batch), kept, replace(kept, way="features on the device, recorded")]
    rows += [Training(), Training(way="features in memory"), Training(precision="fp32"), Training(precision="tf32")][1:]
    lite = Inference(method="lite", backbone="lite0", side=384)
    rows += [replace(lite, batch=batch, way=way) for batch in (1, 32) for way in ("plain", "view")]
    rows += [replace(one, side=633, batch=batch, way="view") for batch in (1, 8)]
    rows += [replace(one, side=633, batch=8, way="plain"), replace(one, side=633, batch=8, shots=5)]
    rows += [replace(one, batch=batch, way="view in one graph") for batch in (1, 32)]
    rows += [replace(lite, batch=1, way="view in one graph")]
    compiled = ("view, compiled back-end", "view, back-end with CUDA graphs")
    return rows + [replace(one, batch=batch, way=way) for batch in (32, 1) for way in compiled]


def guarded(row: Row, measure: Callable[[], Row]) -> Row:
    """What is measured, or the row with its error."""
    try:
        return measure()
    except Exception as error:  # out of memory, no compiler, what cannot be captured: each is a result
        lines = str(error).strip().splitlines()
        return row | {"note": f"failed: {type(error).__name__}: {lines[0][:160] if lines else ''}"}


def main() -> None:
    options = parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not options.quick:
        raise SystemExit("there is no CUDA device; --quick shows on a CPU that it works")
    started = time.perf_counter()
    peaks = limits(device, quick=options.quick)
    results: dict[str, Any] = {
        "command": "python -m benchmarks.gpu" + (" --quick" if options.quick else ""),
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu",
        "cores": os.cpu_count(),
        "versions": versions(),
        "limits": peaks,
        "rows": [],
    }
    print(describe(results), flush=True)
    print(f"\n{line(HEAD)}\n{line(tuple('---' for _ in HEAD))}", flush=True)

    def add(row: Row, measure: Callable[[], Row]) -> None:
        late = time.perf_counter() - started > 60 * options.minutes
        results["rows"].append(found := row | {"note": "not measured: no time left"} if late else guarded(row, measure))
        print(line(tuple(cell(found.get(name)) for name in HEAD)), flush=True)
        if options.out:
            results["seconds"] = time.perf_counter() - started
            options.out.write_text(json.dumps(results, indent=2))

    listed = cases(quick=options.quick)[options.skip :]
    for n, case in enumerate(listed):
        # neither first, while nothing is warm, nor where no time may be left
        if n == len(listed) // 3 and not options.skip:
            for batch, precision in ((32, "bf16"), (8, "bf16"), (1, "bf16"), (8, "tf32")):
                row = {"what": "evaluation from disk", "precision": precision, "batch": batch, "shots": 1}
                add(row, partial(evaluated, device, batch=batch, precision=precision, quick=options.quick))
        row = {"what": case.what} | {k: v for k, v in asdict(case).items() if k in HEAD}
        add(row, partial(measured, case, device, peaks, quick=options.quick))


def describe(results: dict[str, Any]) -> str:
    """The command, the card and its measured limits."""
    peaks = results["limits"]
    return (
        f"`{results['command']}`, {results['date']}, commit {results['commit']}; {results['device']}, torch "
        f"{results['versions']['torch']}; measured: {peaks['fp32'] / 1e12:.1f} (fp32), {peaks['tf32'] / 1e12:.0f} "
        f"(TF32), {peaks['bf16'] / 1e12:.0f} (bf16) TFLOP/s in matrix products, {peaks['bytes'] / 1e9:.0f} GB/s in "
        "copies."
    )


def line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return "" if value is None else str(value).replace("|", "/")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the results to this JSON file, row by row")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, on a CPU too: shows that it works")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"start no row after so many [{MINUTES}]")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many rows, and the whole evaluations")
    return parser.parse_args()


if __name__ == "__main__":
    main()
