"""Whether stepped time tells the truth: some cells of `vla-bench strategies` again, with real processes.

vla-sim turns its carousel, vla-run drives the arm with a bundle whose inference is padded with real work, and
the simulator's ground truth judges. Stepped time then gets the same episodes, and as its delay what was
measured: the median age of an observation when its chunk was first used.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..drivers.simulated.errors import SimulatorError
from ..drivers.simulated.judge import TIMEOUT_S
from ..drivers.simulated.launch import Simulator, start_simulator
from ..drivers.simulated.scene import COLOURS
from ..drivers.simulated.truth import Truth, TruthClient
from ..drivers.simulated.world import CAROUSEL_RAD_S
from ..runtime.bundle.errors import BundleError
from ..runtime.exit_codes import ExitCode
from ..runtime.report import environment
from .demo_attempts import Attempt, EventFile, Outcome, Referee
from .demo_run import (
    PAUSE_S,
    SLACK_S,
    START_S,
    DemoError,
    DemoOptions,
    DemoRefused,
    claimed,
    follow,
    log_tail,
    vla_run,
    vla_run_command,
)
from .intervals import difference, share_text
from .padded_bundle import pad_bundle
from .strategies import SCENES, Cell, evaluate

FOLDER = Path("runs/strategies")
STEPPED_ATTEMPTS = 100
"""At least so many in the stepped cells."""
CELLS = (
    Cell("carousel", 200, "newest", at_start_pose=True),
    Cell("carousel", 200, "fusion", at_start_pose=True),
    Cell("carousel", 100, "sequential", at_start_pose=True),
)
"""About these delays. Where success is neither sure nor hopeless, so that a difference would show."""
OTHER_MS = 35.0
"""What comes to the inference until a chunk's first use: rendering, stream and decoding of the picture,
waiting for it (half a frame's period on average), waiting for control's tick."""


@dataclass(frozen=True, slots=True)
class Spot:
    """One cell in both times."""

    cell: Cell
    live: tuple[int, int]
    """Successes and attempts."""
    stepped: tuple[int, int]
    age_ms: float
    """p50 of the age of a chunk's observation at its first use, in real time."""
    missed: float
    """Share of the control slots that were missed in real time."""
    stops: int
    """Attempts that a protective stop cut short, and that were made again."""

    @property
    def interval(self) -> tuple[float, float]:
        """Newcombe's 95 % interval of the difference of the two shares."""
        return difference(self.live, self.stepped)

    @property
    def agrees(self) -> bool:
        low, high = self.interval
        return low <= 0 <= high


class Carousel:
    """What the referee sees of the simulator: cubes go round from the moment on that a task is judged."""

    def __init__(self, truth: TruthClient) -> None:
        self._truth = truth
        self._turning = False

    def reset(self, seed: int, task: str | None = None, colour: str | None = None) -> str:
        self._turning = False
        return self._truth.reset(seed, task, colour)

    def verdict(self) -> Truth:
        if not self._turning:
            self._truth.turn_carousel(CAROUSEL_RAD_S)
            self._turning = True
        return self._truth.verdict()


def spot_check(bundle: Path, attempts: int, seed: int, as_json: bool) -> int:
    """Runs the cells and prints both times side by side; the exit codes of `strategies.main`."""
    folder = FOLDER.absolute()
    try:
        with claimed(folder):
            spots = [spot(bundle, cell, attempts, seed, folder) for cell in CELLS]
    except (DemoError, BundleError) as error:
        print(f"vla-bench strategies: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, DemoError) else 2
    if as_json:
        rows = [{**asdict(s), "interval": s.interval, "agrees": s.agrees} for s in spots]
        print(json.dumps({"cells": rows, "seed": seed, "environment": environment()}, indent=1))
    else:
        print(*table(spots), sep="\n")
    return 0 if all(s.agrees for s in spots) else 1


def spot(bundle: Path, cell: Cell, attempts: int, seed: int, folder: Path) -> Spot:
    """One cell in real time, then in stepped time. Raises `DemoError`, `BundleError`."""
    name = f"{cell.strategy}-{cell.delay_ms}"
    padding_ms = cell.delay_ms - OTHER_MS
    padded = pad_bundle(bundle, folder / f"{name}.vla", padding_ms, padding_ms, replace=True)
    successes, runs = live(padded, cell, range(seed, seed + attempts), folder / name)
    report = max(runs, key=lambda run: run["duration_s"])
    age_ms = report["stages"]["chunk_age"]["p50_ms"]
    # Chunks are taken up at ticks, which are 10 ms apart.
    cell = replace(cell, delay_ms=10 * round(age_ms / 10))
    stepped = evaluate(bundle, cell, range(seed, seed + max(attempts, STEPPED_ATTEMPTS)))
    return Spot(
        cell,
        (successes, attempts),
        (stepped.successes, stepped.attempts),
        age_ms,
        report["deadlines"]["missed_fraction"],
        len(runs) - 1,
    )


def live(bundle: Path, cell: Cell, seeds: Sequence[int], folder: Path) -> tuple[int, list[dict[str, Any]]]:
    """Attempts at the episodes of `seeds`: how many succeeded, and the reports of the runs that they took.

    An attempt cut short by a protective stop is made again in a new run: on a busy machine the policy process
    may be kept from computing, which says nothing about a strategy. More than one in ten is too many. Raises
    `DemoError`.
    """
    successes, runs, most_runs = 0, [], 1 + len(seeds) // 10
    while seeds:
        outcomes, report = run(bundle, cell, seeds, folder)
        runs.append(report)
        void = sum(bool(outcome.void) for outcome in outcomes)
        stopped = report["exit_code"] == ExitCode.PROTECTIVE_STOP
        if void or not (stopped or len(outcomes) == len(seeds)):
            text = f"{len(outcomes)} of {len(seeds)} attempts were made, {void} of them void"
            raise DemoError(f"{folder.name}: {text}:\n{log_tail(folder)}")
        made = outcomes[:-1] if stopped else outcomes
        successes += sum(outcome.success for outcome in made)
        seeds = seeds[len(made) :]
        if len(runs) > most_runs:
            raise DemoError(f"{folder.name}: one stop after another:\n{log_tail(folder)}")
    return successes, runs


def run(bundle: Path, cell: Cell, seeds: Sequence[int], folder: Path) -> tuple[list[Outcome], dict[str, Any]]:
    """One run of vla-run, to its end or a protective stop: what came of the attempts, and its report. Raises
    `DemoError`."""
    folder.mkdir(exist_ok=True)
    events, written = folder / "events.jsonl", folder / "report.json"
    for path in (events, written):
        path.unlink(missing_ok=True)
    task = SCENES[cell.scene].task
    options = DemoOptions(folder, len(seeds), seeds[0], TIMEOUT_S[task])
    most_s = START_S + (options.duration_s + PAUSE_S + SLACK_S) * len(seeds)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="holdfast-strategies-") as sim_folder,
            start_simulator(Path(sim_folder), seed=seeds[0]) as simulator,
        ):
            scene = Carousel(simulator.truth)
            drawn = [_draw(scene, seed, task) for seed in seeds]
            command = _command(bundle, cell, options, simulator, drawn)
            with vla_run(command, folder / "vla-run.log", folder) as process:
                referee = Referee(drawn, scene, lambda: process.send_signal(signal.SIGUSR1), _say(cell))
                follow(process, referee, EventFile(events), most_s)
    except SimulatorError as error:
        raise DemoRefused(str(error)) from error
    if process.returncode not in (ExitCode.FINISHED, ExitCode.PROTECTIVE_STOP) or not written.exists():
        raise DemoError(f"vla-run ended with exit code {process.returncode}:\n{log_tail(folder)}")
    return [referee.outcomes[index] for index in sorted(referee.outcomes)], json.loads(written.read_text())


def _draw(scene: Carousel, seed: int, task: str) -> Attempt:
    """The episode of a seed, as stepped time has it."""
    instruction = scene.reset(seed, task)
    colour = next(colour for colour in COLOURS if colour in instruction)
    return Attempt(seed, task, colour, instruction)


def _command(
    bundle: Path, cell: Cell, options: DemoOptions, simulator: Simulator, drawn: list[Attempt]
) -> list[str]:
    command = vla_run_command(bundle, options, simulator.arm_url, simulator.camera_url)
    command += ["--strategy", cell.strategy]
    return command + [word for attempt in drawn for word in ("--task", attempt.instruction)]


def _say(cell: Cell) -> Callable[[int, Outcome], None]:
    def say(index: int, outcome: Outcome) -> None:
        text = f"{cell.strategy}, {cell.delay_ms} ms, attempt {index + 1}: "
        print(f"{text}{'ok' if outcome.success else 'not done'}", file=sys.stderr, flush=True)

    return say


def table(spots: list[Spot]) -> list[str]:
    """Both times side by side, as Markdown."""
    lines = [
        "| scene | strategy | age at first use, real / stepped ms | real time | stepped time "
        "| difference, 95 % interval | agrees | stops |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for s in spots:
        low, high = s.interval
        apart = s.live[0] / s.live[1] - s.stepped[0] / s.stepped[1]
        lines.append(
            f"| {s.cell.scene} | {s.cell.strategy} | {s.age_ms:.0f} / {s.cell.delay_ms} "
            f"| {share_text(*s.live)} | {share_text(*s.stepped)} "
            f"| {100 * apart:+.0f} ({100 * low:+.0f} to {100 * high:+.0f}) | {'yes' if s.agrees else 'NO'} "
            f"| {s.stops} |"
        )
    return lines
