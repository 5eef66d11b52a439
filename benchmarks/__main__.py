"""Speed and memory of fewseg against a plain implementation of the same network, with the same weights and inputs.

    python -m benchmarks                          the table of docs/performance.md
    python -m benchmarks episode-5 cost-side      some cases
    python -m benchmarks --out results.json       keep the results; --table results.json prints them as Markdown

`python -m benchmarks.coco_index` and `python -m benchmarks.memory` measure the index of a COCO-sized file and what
keeping freed memory is worth.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.cases import WAYS, Case, cases, curve_cases, main_cases
from benchmarks.measure import alternate, counted, difference, machine, median_ratio, peak_above, peak_in_fresh_process
from benchmarks.table import markdown


def main() -> None:
    options = parse()
    if options.table:
        print(markdown(json.loads(options.table.read_text())))
        return
    chosen = cases(options.cases)
    if options.only_peak_of:
        case = picked(chosen[options.point], quick=options.quick)
        print(json.dumps({"peak_mb": peak_above(case.prepare(options.only_peak_of))}))
        return
    results: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(),
        "cases": [],
    }
    seen: dict[str, int] = {}
    for case in chosen:
        point = seen[case.name] = seen.get(case.name, -1) + 1
        print(f"{case.name}: {case.what}", file=sys.stderr, flush=True)
        results["cases"].append(measured(case, point, options))
        if options.out:
            options.out.write_text(json.dumps(results, indent=2))
    print(markdown(results))


def measured(case: Case, point: int, options: argparse.Namespace) -> dict[str, Any]:
    """Both ways of a case: seconds by turns, peak memory, counted operations, and how far apart their results are."""
    small = picked(case, quick=options.quick)
    rounds = options.rounds or small.rounds
    peaks = {} if options.no_memory or not case.measures_memory else {
        way: peak_in_fresh_process(case.name, way, point=point, quick=options.quick) for way in WAYS
    }  # fmt: skip
    runs = {way: small.prepare(way) for way in WAYS}
    # torch's counter takes no autocast apart; counting also warms up
    exact = {} if small.is_long else {way: run for way, run in runs.items() if way == "plain" or small.is_exact}
    operations = {way: counted(run) for way, run in exact.items()}
    if not small.is_exact:
        runs["fewseg"]()
    seconds, outputs = alternate(runs, rounds)
    ways = {
        way: {"seconds": s, "median_s": statistics.median(s), "gflop": operations.get(way), "peak_mb": peaks.get(way)}
        for way, s in seconds.items()
    }
    return {
        "case": case.name,
        "what": case.what,
        "parameters": small.parameters(),
        **ways,
        "time_ratio": median_ratio(seconds["fewseg"], seconds["plain"]),
        "time_target": case.time_target,
        "memory_ratio": peaks["fewseg"] / peaks["plain"] if peaks else None,
        "memory_target": case.memory_target,
        "difference": difference(outputs["fewseg"], outputs["plain"]),
    }


def picked(case: Case, *, quick: bool) -> Case:
    return case.small() if quick else case


def commit() -> str:
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=root, check=False
        )
    except OSError:  # no git
        return "unknown"
    return done.stdout.strip() or "unknown"


def parse() -> argparse.Namespace:
    names = ", ".join(dict.fromkeys(case.name for case in [*main_cases(), *curve_cases()]))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{names}; without any: those of the table")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file, case by case")
    parser.add_argument("--table", type=Path, metavar="JSON", help="only print a results file as Markdown")
    parser.add_argument("--rounds", type=int, help="rounds of alternating runs")
    parser.add_argument("--quick", action="store_true", help="a small network and picture: shows that it works")
    parser.add_argument("--no-memory", action="store_true", help="leave out the fresh processes that measure memory")
    parser.add_argument("--only-peak-of", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--point", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
