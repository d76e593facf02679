"""The picture of a campaign: when the faults of a class were noticed, when the arm stood, and the bound."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOTS_PER_INCH = 110
ROW_INCHES = 0.24
LEAST_MS = 1.0


def draw(summary: Mapping[str, Any], path: Path) -> None:
    """Writes the figure. Raises `OSError`, and `ImportError` without matplotlib (extra `plot`)."""
    from matplotlib.figure import Figure

    rows = [row for row in summary["classes"] if row["detect_ms"] or row["standstill_ms"]]
    figure = Figure(figsize=(9, 1.6 + ROW_INCHES * len(rows)), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    for at, row in enumerate(rows):
        _line(axes, at - 0.14, row["detect_ms"], "C0")
        _line(axes, at + 0.14, row["standstill_ms"], "C1")
        if row["bound_ms"]:
            axes.plot([row["bound_ms"]] * 2, [at - 0.4, at + 0.4], color="C3", linewidth=1.5)
    axes.set_xscale("log")
    axes.set_xlim(left=LEAST_MS)
    axes.set_yticks(range(len(rows)), [f"{row['name']} ({row['trials']})" for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.set_xlabel("ms after the fault: p50, p99 (line), max (ring)")
    for colour, label in (("C0", "noticed"), ("C1", "at rest"), ("C3", "bound of noticing")):
        axes.plot([], [], color=colour, label=label)
    axes.legend(loc="lower right", fontsize=8)
    axes.set_title(
        f"{summary['escapes']} escapes in {summary['trials']} trials; upper 95 % bound of the rate in the "
        f"worst class {100 * summary['escape_rate_upper_95_worst_class']:.2g} %",
        fontsize=10,
    )
    figure.savefig(path)


def _line(axes: Any, at: float, values: Mapping[str, float] | None, colour: str) -> None:
    if not values:
        return
    low, high, most = (max(LEAST_MS, values[key]) for key in ("p50", "p99", "max"))
    axes.plot([low, high], [at, at], color=colour, linewidth=2)
    axes.plot([low], [at], "o", color=colour, markersize=4)
    axes.plot([most], [at], "o", color=colour, markersize=5, fillstyle="none")
