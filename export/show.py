"""What vla-export shows: the final table for people, the same as JSON for programs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from ..runtime.bundle.schema import ParityReport
from .parity import MIN_COSINE
from .pipeline import Result

MEGA = 1e6


def as_json(result: Result) -> dict[str, Any]:
    """Documented in docs/export.md; keys are only ever added."""
    return {
        "ok": True,
        "bundle": str(result.bundle.resolve()),
        "name": result.name,
        "checkpoint": str(result.checkpoint),
        "family": result.family,
        "recognised": result.recognised,
        "evidence": result.evidence.model_dump(),
        "bytes": result.sizes,
        "latency": {name: asdict(latency) for name, latency in result.latency.items()},
        "parity": result.parity.model_dump(),
        "precision": result.precision.model_dump(),
    }


def next_command(result: Result) -> str:
    """A vla-run that drives an arm with the bundle, to copy and adapt: devices are guesses."""
    cameras = result.cameras
    names = [""] if len(cameras) == 1 else [f"{name}=" for name in cameras]
    words = ["vla-run", str(result.bundle)]
    for index, name in enumerate(names):
        words += ["--camera", f"{name}/dev/video{2 * index}"]
    words += ["--arm", "serial:/dev/ttyUSB0"]
    if result.task.default is None:
        words += ["--task", result.task.examples[0]]
    return shlex.join(words)


def show_result(result: Result, console: Console) -> None:
    """Sizes, latencies, errors, and which nodes stayed in fp32."""
    sizes = _table("Size", "", "bytes", "MB")
    for name, size in result.sizes.items():
        sizes.add_row(name, f"{size:,}", f"{size / MEGA:.2f}")
    console.print(sizes, "")
    if result.latency:
        times = _table("Latency on this CPU, one thread", "", "p50 ms", "p99 ms", "runs")
        for name, latency in result.latency.items():
            times.add_row(name, f"{latency.p50_ms:.2f}", f"{latency.p99_ms:.2f}", str(latency.runs))
        console.print(times, "")
    show_parity(result.parity, console)
    evidence = result.evidence
    if evidence.kind == "synthetic":
        console.print(
            f"Evidence: synthetic samples only ({evidence.text}). The graphs equal our reading of the "
            "checkpoint; that the reading is right, --golden or --dataset would show.",
            soft_wrap=True,
        )
    else:
        console.print(
            f"Evidence: {evidence.kind}, {evidence.samples} samples ({evidence.text})", soft_wrap=True
        )
    report = result.precision
    if report.kept_fp32:
        weights = ", ".join(f"{kind} {size / MEGA:.2f} MB" for kind, size in report.bytes_per_dtype.items())
        reasons: dict[str, int] = {}
        for reason in report.kept_fp32.values():
            reasons[reason] = reasons.get(reason, 0) + 1
        kept = _table(f"Kept in fp32: {len(report.kept_fp32)} nodes (weights: {weights})", "why", "nodes")
        for reason, count in sorted(reasons.items(), key=lambda row: -row[1]):
            kept.add_row(reason, str(count))
        console.print(kept, "")


def show_families(families: Mapping[str, str], console: Console) -> None:
    """What vla-export reads."""
    table = _table("Families of checkpoints", "family", "what it reads")
    for name, meaning in families.items():
        table.add_row(name, meaning)
    console.print(table)


def show_parity(parity: ParityReport, console: Console) -> None:
    """The error of every action element in robot units, passed or not."""
    title = f"Error against {parity.reference}, {parity.samples} recorded observations"
    errors = _table(title, "action element", "unit", "max", "mean", "limit", "")
    for row in parity.rows:
        verdict = "[green]ok[/]" if row.max_abs <= row.limit else "[red]FAILED[/]"
        numbers = (f"{row.max_abs:.2e}", f"{row.mean_abs:.2e}", f"{row.limit:.2e}")
        errors.add_row(row.element, row.unit, *numbers, verdict)
    console.print(errors, "")
    console.print(
        f"Normalised output, worst sample: cosine {parity.cosine:.6f} (at least {MIN_COSINE}), "
        f"relative L2 {parity.relative_l2:.2e}, max {parity.max_abs:.2e}",
        soft_wrap=True,
    )
    if len(parity.components) > 1:
        parts = _table("Each graph against its part of the checkpoint", "graph", "relative L2", "max")
        for part in parity.components:
            parts.add_row(part.graph, f"{part.relative_l2:.2e}", f"{part.max_abs:.2e}")
        console.print("", parts, "")


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table
