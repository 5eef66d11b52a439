"""Results as tables: on the terminal, and as Markdown for the documentation."""

from __future__ import annotations

from typing import Any

HEAD = ("case", "plain s", "fewseg s", "ratio", "asked", "plain MB", "fewseg MB", "ratio", "asked", "plain GFLOP",
        "fewseg GFLOP", "difference")  # fmt: skip


def markdown(results: dict[str, Any]) -> str:
    """The results of `python -m benchmarks --out FILE` as Markdown."""
    rows = [HEAD, tuple("---" for _ in HEAD), *(_row(case) for case in results["cases"])]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{describe(results)}\n\n{table}"


def describe(results: dict[str, Any]) -> str:
    """The command, the machine and its measured limits."""
    m = results["machine"]
    return (
        f"`{results['command']}`, {results['date']}, commit {results['commit']}; {m['processor']}, {m['cores']} cores, "
        f"{m['threads']} threads, {m['capability']}, torch {m['versions']['torch']}; measured: "
        f"{m['matmul_gflops']:.0f} GFLOP/s in matrix products, {m['copy_gb_per_s']:.0f} GB/s in copies."
    )


def _row(case: dict[str, Any]) -> tuple[str, ...]:
    plain, ours = case["plain"], case["fewseg"]
    return (
        f"{case['what']} ({case['case']})",
        f"{plain['median_s']:.2f}",
        f"{ours['median_s']:.2f}",
        f"{case['time_ratio']:.2f}",
        _target(case["time_target"]),
        _number(plain.get("peak_mb")),
        _number(ours.get("peak_mb")),
        "" if case.get("memory_ratio") is None else f"{case['memory_ratio']:.2f}",
        _target(case["memory_target"]),
        _number(plain["gflop"]),
        _number(ours["gflop"]),
        f"{case['difference']:.0e}",
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _target(value: float | None) -> str:
    return "" if value is None else f"<= {value:.2f}"
