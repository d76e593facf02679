"""The picture of a recording around its moment: pictures, joints, ages. Needs matplotlib (extra `plot`).

Drawn without a display. Time runs in seconds from the moment that the account is about.
"""

from __future__ import annotations

import os
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ..messages import Phase
from .account import Account
from .facts import unit
from .observed import FrameRecord
from .story import moment
from .words import time_of_day

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEFORE_S = 6.0
AFTER_S = 3.0
_DPI = 110
_WIDTH_IN = 13.0
_JOINT_IN, _AGES_IN, _FRAMES_IN = 1.25, 1.9, 1.5
_THUMBNAILS = 6
_MEASURED, _COMMANDED, _TARGET, _LIMIT, _MOMENT = "#d95f02", "#1f4e9c", "#999999", "#c00000", "#c00000"
_PHASE_COLOURS = {
    Phase.RETURN: ("#eef3fb", "moving to a pose"),
    Phase.RUN: ("#eef8ee", "following chunks"),
    Phase.STOPPING: ("#fbe3e3", "braking"),
    Phase.STOPPED: ("#efefef", "stopped"),
    Phase.RELEASED: ("#fff6dd", "released"),
}


class NoMatplotlib(ImportError):
    """The message says what to install."""


def draw(account: Account, path: Path) -> None:
    """Writes the picture as a PNG, for its owner alone: there are pictures of the workspace in it.

    Raises `NoMatplotlib`, `OSError`.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NoMatplotlib("the plot needs matplotlib: pip install 'holdfast[plot]'") from error
    joints = account.recording.config.joint_names
    cameras = _thumbnails(account)
    heights = [_FRAMES_IN] * len(cameras) + [_JOINT_IN] * len(joints) + [_AGES_IN]
    figure = Figure(figsize=(_WIDTH_IN, sum(heights) + 1.2), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    figure.suptitle(_title(account), fontsize=12)
    for row, frames in enumerate(cameras):
        _draw_frames(account, figure, grid[row, 0], frames)
    first: Any = None
    for i in range(len(joints)):
        axes = figure.add_subplot(grid[len(cameras) + i, 0], sharex=first)
        first = first or axes
        _draw_joint(account, axes, i)
        if i == 0:
            _legend(account, axes)
    ages = figure.add_subplot(grid[len(heights) - 1, 0], sharex=first)
    _draw_ages(account, ages)
    ages.set_xlabel(f"seconds from {moment(account)}, {time_of_day(account.recording.run, account.at_ns)}")
    ages.set_xlim(*_span(account))
    for axes in figure.axes:
        if axes is not ages and axes.get_shared_x_axes().joined(axes, ages):
            axes.tick_params(labelbottom=False)
    _save(figure, path, Path(account.recording.path))


def _save(figure: Figure, path: Path, source: Path) -> None:
    """A reader never sees half of it, and what `path` links to stays as it is."""
    if path.exists() and source.exists() and path.samefile(source):
        raise OSError(f"{path} is the recording itself: give it the ending .flight")
    fd, temporary = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
    try:
        with open(fd, "wb") as file:
            figure.savefig(file, format="png")
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _title(account: Account) -> str:
    stop = account.stop
    if stop is not None:
        return f"Protective stop {stop.code}\n" + textwrap.shorten(stop.text, 130, placeholder=" ...")
    if account.control_died:
        return f"Control ended without a stop: {account.control_died}"
    return f"Up to {moment(account)}" if account.stops else "No protective stop"


def _told(account: Account) -> str:
    dry = "what the core was told (dry run: the arm was not moved)"
    return dry if account.recording.dry_run else "measured"


def _span(account: Account) -> tuple[float, float]:
    """What is shown, in seconds from the moment, as far as there are ticks."""
    ticks = account.recording.ticks
    first, last = _seconds(account, ticks[0].now_ns), _seconds(account, ticks[-1].now_ns)
    end = min(AFTER_S, max(last, 0.0))
    return max(-BEFORE_S, first), end + 0.02 * (end + BEFORE_S)


def _seconds(account: Account, at_ns: int) -> float:
    return (at_ns - account.at_ns) / 1e9


def _draw_joint(account: Account, axes: Axes, joint: int) -> None:
    recording = account.recording
    rows = [t for t in recording.ticks if -BEFORE_S <= _seconds(account, t.now_ns) <= AFTER_S]
    nothing = float("nan")
    times = [_seconds(account, t.now_ns) for t in rows]

    def line(pick: Callable[[Any], Sequence[float] | None], **style: Any) -> list[float]:
        values = [v[joint] if (v := pick(tick)) is not None else nothing for tick in rows]
        axes.plot(times, values, **style)
        return [v for v in values if np.isfinite(v)]

    _shade(account, axes)
    line(lambda t: t.output.target, color=_TARGET, lw=1.0, ls=(0, (4, 2)), label="target")
    seen = line(lambda t: t.output.setpoint, color=_COMMANDED, lw=1.6, label="commanded")
    samples = [t for t in rows if t.joint is not None]
    measured = [t.joint.position[joint] for t in samples if t.joint]
    at = [_seconds(account, t.joint.stamp_ns) for t in samples if t.joint]
    axes.plot(at, measured, color=_MEASURED, lw=1.2, marker=".", ms=1.5)
    _limits(account, axes, joint, [*seen, *measured])
    axes.axvline(0.0, color=_MOMENT, lw=1.4)
    for start in _chunk_starts(account):
        axes.axvline(start, ymin=0.0, ymax=0.07, color="black", lw=0.8)
    name = recording.config.joint_names[joint]
    axes.set_ylabel(f"{name}\n[{unit(recording, joint)}]", rotation=0, ha="right", va="center", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="y", nbins=4)
    axes.grid(True, color="#dddddd", lw=0.5)


def _limits(account: Account, axes: Axes, joint: int, values: list[float]) -> None:
    """The limits as lines where the joint is near them, always as numbers."""
    config = account.recording.config
    low, high = config.low[joint], config.high[joint]
    least = 0.015 * (high - low)
    bottom, top = (min(values), max(values)) if values else (low, high)
    margin = max(0.12 * (top - bottom), least)
    axes.set_ylim(bottom - margin, top + margin)
    for value in (low, high):
        if bottom - margin <= value <= top + margin:
            axes.axhline(value, color=_LIMIT, lw=1.2, ls="--")
    axes.text(
        1.005, 0.5, f"limits\n{high:.3g}\n{low:.3g}", transform=axes.transAxes, fontsize=7, va="center",
        color=_LIMIT,
    )  # fmt: skip


def _shade(account: Account, axes: Axes) -> None:
    for phase, begin, end in _phases(account):
        colour, _ = _PHASE_COLOURS.get(phase, ("white", ""))
        axes.axvspan(begin, end, color=colour, lw=0, zorder=0)


def _phases(account: Account) -> Iterator[tuple[Phase, float, float]]:
    ticks = account.recording.ticks
    begin = 0
    for i in range(1, len(ticks) + 1):
        if i == len(ticks) or ticks[i].phase != ticks[begin].phase:
            last = ticks[min(i, len(ticks) - 1)].now_ns
            yield ticks[begin].phase, _seconds(account, ticks[begin].now_ns), _seconds(account, last)
            begin = i


def _legend(account: Account, axes: Axes) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    low, high = _span(account)
    shown = {phase for phase, begin, end in _phases(account) if end >= low and begin <= high}
    handles: list[Any] = [
        Line2D([], [], color=_COMMANDED, lw=1.6, label="commanded"),
        Line2D([], [], color=_MEASURED, lw=1.2, label=_told(account)),
        Line2D([], [], color=_TARGET, lw=1.0, ls=(0, (4, 2)), label="target"),
        Line2D([], [], color=_LIMIT, lw=1.2, ls="--", label="limit"),
        Line2D([], [], color="black", lw=0, marker="|", label="a chunk starts"),
        *(Patch(color=c, label=text) for phase, (c, text) in _PHASE_COLOURS.items() if phase in shown),
    ]
    axes.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=len(handles), fontsize=8,
        frameon=False, handlelength=1.6, columnspacing=1.2,
    )  # fmt: skip


def _chunk_starts(account: Account) -> list[float]:
    starts = [t.now_ns for t in account.recording.ticks if t.output.new_chunk_id]
    return [s for start in starts if -BEFORE_S <= (s := _seconds(account, start)) <= AFTER_S]


def _draw_ages(account: Account, axes: Axes) -> None:
    """Ages in ms, each against its limit (dashed, in its colour)."""
    recording = account.recording
    config = recording.config
    steps = [s for s in account.result.steps if -BEFORE_S <= _seconds(account, s.tick.now_ns) <= AFTER_S]
    _shade(account, axes)

    def curve(
        label: str, colour: str, points: list[tuple[int, float]], limit_ms: float | None, style: str
    ) -> None:
        if not points:
            return
        at = [_seconds(account, at_ns) for at_ns, _ in points]
        axes.plot(at, [max(0.1, ms) for _, ms in points], style, color=colour, label=label, lw=1.2, ms=4)
        if limit_ms:
            axes.axhline(limit_ms, color=colour, lw=1.0, ls="--")

    joint, newest = [], None
    for tick in recording.ticks:
        newest = tick.joint or newest
        if newest is not None and -BEFORE_S <= _seconds(account, tick.now_ns) <= AFTER_S:
            joint.append((tick.now_ns, (tick.now_ns - newest.stamp_ns) / 1e6))
    limit = config.joint_state_max_age_ns / 1e6
    curve(f"joint state (limit {limit:.0f} ms)", _COMMANDED, joint, limit, "-")
    behind = [
        (s.tick.now_ns, (s.tick.now_ns - s.after.execution.observation_ns) / 1e6)
        for s in steps
        if s.after.execution is not None
    ]
    curve("observation of the newest chunk begun", "#7570b3", behind, None, "-")
    arrivals = [
        (
            s.tick.now_ns,
            (s.tick.now_ns - s.tick.inbox.chunk.observation_ns) / 1e6,
            s.before.chunk_age_limit_ns,
        )
        for s in steps
        if s.tick.inbox.chunk is not None and s.before.phase == Phase.RUN
    ]
    limit = arrivals[-1][2] / 1e6 if arrivals else None
    text = f" (limit {limit:.0f} ms)" if limit else ""
    curve(f"chunk on arrival{text}", "#7570b3", [(at, ms) for at, ms, _ in arrivals], limit, ".")
    pictures = [
        (i.start_ns, (i.start_ns - i.observation_ns) / 1e6)
        for i in recording.inferences
        if -BEFORE_S <= _seconds(account, i.start_ns) <= AFTER_S
    ]
    inferences = account.evidence.inferences
    limit = inferences.picture_limit_ms if inferences is not None else None
    text = f" (limit {limit:.0f} ms)" if limit else ""
    curve(f"picture at the start of inference{text}", "#1b9e77", pictures, limit, ".")
    late = [(t.now_ns, t.late_ns / 1e6) for t in recording.ticks if t.late_ns > 500_000]
    late = [(at, ms) for at, ms in late if -BEFORE_S <= _seconds(account, at) <= AFTER_S]
    curve("wake-up later than 0.5 ms", "black", late, None, "x")
    axes.axvline(0.0, color=_MOMENT, lw=1.4)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel("age\n[ms]", rotation=0, ha="right", va="center", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(True, color="#dddddd", lw=0.5)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=5, fontsize=8, frameon=False)


def _thumbnails(account: Account) -> list[list[FrameRecord]]:
    """Per camera the newest pictures up to the moment."""
    by_camera: dict[str, list[FrameRecord]] = {}
    for frame in account.recording.frames:
        if frame.arrival_ns <= account.at_ns and frame.jpeg:
            by_camera.setdefault(frame.camera, []).append(frame)
    return [frames[-_THUMBNAILS:] for _, frames in sorted(by_camera.items())]


def _draw_frames(account: Account, figure: Any, place: Any, frames: list[FrameRecord]) -> None:
    inner = place.subgridspec(1, _THUMBNAILS)
    for column, frame in enumerate(frames):
        axes = figure.add_subplot(inner[0, column])
        axes.set_axis_off()
        axes.set_title(f"{frame.camera} {_seconds(account, frame.stamp_ns):+.3f} s", fontsize=8)
        picture = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)
        if picture is not None:
            axes.imshow(picture[:, :, ::-1], interpolation="nearest")
