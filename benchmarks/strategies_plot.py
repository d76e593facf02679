"""The plot of `vla-bench strategies`: success, time, jerk and jumps over the delay, one line per strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .strategies import NAMES, SCENES, Result

DOTS_PER_INCH = 90
COLOURS = {name: f"C{index}" for index, name in enumerate(NAMES)}
"""Of matplotlib's cycle."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One quantity of a result."""

    label: str
    value: Callable[[Result], float]
    error: Callable[[Result], tuple[float, float]] | None = None
    """How far the interval goes down and up."""


PANELS = (
    Panel(
        "success",
        lambda r: r.successes / r.attempts,
        lambda r: (r.successes / r.attempts - r.low, r.high - r.successes / r.attempts),
    ),
    Panel("time to success (s)", lambda r: r.seconds),
    Panel("RMS jerk (rad/s³)", lambda r: r.jerk_rad_s3, lambda r: (r.jerk_error_rad_s3, r.jerk_error_rad_s3)),
    Panel("target's jump at a chunk (rad)", lambda r: r.target_jumps["position"].mean),
)


def draw(results: Sequence[Result], path: Path) -> None:
    """Writes the figure; one row per scene. Raises `OSError`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scenes = [scene for scene in SCENES if any(r.scene == scene for r in results)]
    figure = Figure(figsize=(3.4 * len(PANELS), 2.9 * len(scenes) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(scenes), len(PANELS), squeeze=False)
    for scene, axes in zip(scenes, grid, strict=True):
        for panel, axis in zip(PANELS, axes, strict=True):
            _panel(axis, panel, [r for r in results if r.scene == scene])
            axis.set_title(scene if panel is PANELS[0] else "", loc="left", fontweight="bold")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _panel(axis: Any, panel: Panel, results: Sequence[Result]) -> None:
    names = [name for name in NAMES if any(r.strategy == name for r in results)]
    for index, name in enumerate(names):
        rows = sorted((r for r in results if r.strategy == name), key=lambda r: r.delay_ms)
        # Side by side, so that error bars do not hide each other.
        x = [r.delay_ms + 5 * (index - (len(names) - 1) / 2) for r in rows]
        errors = list(zip(*map(panel.error, rows), strict=True)) if panel.error else None
        axis.errorbar(
            x,
            [panel.value(r) for r in rows],
            yerr=errors,
            label=name,
            color=COLOURS[name],
            marker="o",
            markersize=3,
            linewidth=1.2,
            elinewidth=0.7,
        )
    axis.set_xlabel("delay (ms)")
    axis.set_ylabel(panel.label)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
