"""How chunks are executed under latency: every strategy on a moving and a still target, in stepped time.

Stepped time: the control core of vla-run on a clock that waits for nothing, so the figures do not depend on
this machine. A chunk arrives its delay after its picture was taken, and inference is back to back."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ..runtime.arguments import seed_number, whole_number
from ..runtime.control.strategies import STRATEGIES
from .intervals import difference, wilson
from .motion import Trace, command_jumps, jerk, target_jumps

FIRST_SEED = 3_000_000
"""Far from the seeds of the demonstrations."""
NAIVE = "naive"
"""The baseline, no strategy of the product: the newest chunk from its first action on, whenever it comes."""
NAMES = (*STRATEGIES, NAIVE)
REFERENCE = "newest"
"""What the others are compared with."""
DELAYS = (0, 2, 4, 8)
"""In steps of the chunk."""
EXIT_USAGE, EXIT_DIFFERENT = 2, 1
KINDS = ("position", "velocity", "acceleration")


@dataclass(frozen=True, slots=True)
class Scene:
    """What is to be done."""

    task: str
    turning: bool
    meaning: str


SCENES = {
    "carousel": Scene("touch", True, "touch a cube that goes round the arm"),
    "static": Scene("pick", False, "pick up a cube that lies still"),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One condition."""

    scene: str
    delay_ms: int
    """Age of an observation when its chunk arrives."""
    strategy: str
    at_start_pose: bool = False
    """The arm begins exactly at the start pose instead of somewhere near it."""


@dataclass(frozen=True, slots=True)
class Jump:
    """The jumps at all boundaries of a cell."""

    mean: float
    p95: float


@dataclass(frozen=True, slots=True)
class Result:
    """Many attempts under one condition."""

    scene: str
    delay_ms: int
    strategy: str
    attempts: int
    successes: int
    low: float
    """Ends of Wilson's 95 % interval of the success rate."""
    high: float
    wrong: int
    """Attempts in which another cube was touched (carousel) or lifted (static)."""
    seconds: float
    """Mean simulated time to success; NaN without one."""
    jerk_rad_s3: float
    """RMS over ticks and arm joints of the commanded jerk, mean over the attempts."""
    jerk_error_rad_s3: float
    """Half the width of its 95 % interval."""
    max_jerk_rad_s3: float
    target_jumps: dict[str, Jump]
    """Where a chunk takes effect (`motion.target_jumps`); rad, rad/s, rad/s^2."""
    command_jumps: dict[str, Jump]
    """The same of the commanded motion (`motion.command_jumps`)."""
    age_ms: float
    """p50 over the ticks that followed a chunk: age of the newest observation behind the command."""
    waiting: float
    """Share of the ticks after the first chunk's start in which none was there to follow."""
    clamped: float
    """Mean ticks per attempt in which a target was clamped."""
    stops: int
    """Attempts that ended in a protective stop."""
    each: list[tuple[int, bool, float, float]] = field(default_factory=list, repr=False)
    """Per attempt: seed, success, simulated time (s), RMS jerk (rad/s^3)."""


def evaluate(path: Path, cell: Cell, seeds: Sequence[int]) -> Result:
    """Attempts at the episodes of `seeds`; `path` is a checkpoint or a bundle.

    An attempt ends with success, a wrong cube, a protective stop or the task's time-out.
    """
    from ..drivers.simulated.world import CAROUSEL_RAD_S
    from .closed_loop import SimulatedLoop
    from .policies import load_policy

    policy = load_policy(path)
    if cell.strategy == NAIVE:
        loop = SimulatedLoop(policy, strategy=REFERENCE, schedule="from_arrival")
    else:
        loop = SimulatedLoop(policy, strategy=cell.strategy)
    scene = SCENES[cell.scene]
    attempts = [
        loop.attempt(
            seed,
            scene.task,
            delay_ms=(cell.delay_ms, cell.delay_ms),
            judge=lambda verdict: verdict.success or verdict.wrong_object,
            carousel_rad_s=CAROUSEL_RAD_S if scene.turning else 0.0,
            at_start_pose=cell.at_start_pose,
        )
        for seed in seeds
    ]
    traces = [attempt.trace for attempt in attempts]
    jerks = [jerk(trace) for trace in traces]
    rms = np.sqrt([np.square(values).mean() for values in jerks])
    successes = [attempt.verdict.time_s for attempt in attempts if attempt.verdict.success]
    low, high = wilson(len(successes), len(attempts))
    ages = np.concatenate([trace.age_s for trace in traces])
    followed = ~np.isnan(ages)
    waiting = sum(int(trace.waiting.sum()) for trace in traces)
    return Result(
        scene=cell.scene,
        delay_ms=cell.delay_ms,
        strategy=cell.strategy,
        attempts=len(attempts),
        successes=len(successes),
        low=low,
        high=high,
        wrong=sum(attempt.verdict.wrong_object for attempt in attempts),
        seconds=float(np.mean(successes)) if successes else math.nan,
        jerk_rad_s3=float(rms.mean()),
        jerk_error_rad_s3=1.96 * float(rms.std()) / math.sqrt(len(rms)),
        max_jerk_rad_s3=float(max(np.abs(values).max() for values in jerks)),
        target_jumps=_jumps(target_jumps, traces),
        command_jumps=_jumps(command_jumps, traces),
        age_ms=1e3 * float(np.median(ages[followed])) if followed.any() else math.nan,
        waiting=waiting / max(1, waiting + int(followed.sum())),
        clamped=sum(attempt.clamped for attempt in attempts) / len(attempts),
        stops=sum(bool(attempt.stop) for attempt in attempts),
        each=[
            (seed, attempt.verdict.success, round(attempt.verdict.time_s, 3), round(float(value), 2))
            for seed, attempt, value in zip(seeds, attempts, rms, strict=True)
        ],
    )


def _jumps(measure: Callable[[Trace], np.ndarray], traces: list[Trace]) -> dict[str, Jump]:
    jumps = np.concatenate([measure(trace) for trace in traces])
    if not len(jumps):
        return dict.fromkeys(KINDS, Jump(math.nan, math.nan))
    columns = zip(jumps.mean(axis=0), np.percentile(jumps, 95, axis=0), strict=True)
    return {kind: Jump(float(mean), float(p95)) for kind, (mean, p95) in zip(KINDS, columns, strict=True)}


def evaluate_all(
    path: Path,
    cells: Sequence[Cell],
    attempts: int,
    processes: int,
    seed: int = FIRST_SEED,
    progress: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """One result per cell, over the same seeds, in `processes` processes; `progress` after each."""
    from ..export.workers import mapped

    measure = partial(evaluate, path, seeds=range(seed, seed + attempts))
    results = []
    with mapped(measure, cells, min(processes, len(cells))) as measured:
        for result in measured:
            results.append(result)
            progress(result)
    return results


def tables(results: Sequence[Result]) -> str:
    """The results as Markdown: per scene what came of it, and what happens where chunks begin."""
    lines: list[str] = []
    for scene, what in SCENES.items():
        rows = [result for result in results if result.scene == scene]
        if not rows:
            continue
        lines += [f"### {scene}: {what.meaning}", "", *outcome_table(rows), ""]
        lines += ["Jumps where a chunk takes effect, mean / p95:", "", *jump_table(rows), ""]
    return "\n".join(lines).rstrip()


def outcome_table(rows: Sequence[Result]) -> list[str]:
    lines = [
        "| delay ms | strategy | success | 95 % interval | against newest | time s | RMS jerk rad/s3 "
        "| against newest | max jerk | age p50 ms | waits | stops |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        reference = next((o for o in rows if o.delay_ms == r.delay_ms and o.strategy == REFERENCE), None)
        success, less = _against(r, reference)
        lines.append(
            f"| {r.delay_ms} | {r.strategy} | {r.successes}/{r.attempts} | {r.low:.0%} to {r.high:.0%} "
            f"| {success} | {_number(r.seconds, 2)} | {r.jerk_rad_s3:.0f} ± {r.jerk_error_rad_s3:.0f} "
            f"| {less} | {r.max_jerk_rad_s3:.0f} | {_number(r.age_ms, 0)} | {r.waiting:.0%} | {r.stops} |"
        )
    return lines


def jump_table(rows: Sequence[Result]) -> list[str]:
    lines = [
        "| delay ms | strategy | target rad | target rad/s | target rad/s2 "
        "| command mrad | command rad/s | command rad/s2 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        asked = [_pair(r.target_jumps[kind], digits) for kind, digits in zip(KINDS, (4, 2, 0), strict=True)]
        position = r.command_jumps["position"]
        done = [_pair(Jump(1e3 * position.mean, 1e3 * position.p95), 2)]
        done += [_pair(r.command_jumps[kind], digits) for kind, digits in zip(KINDS[1:], (3, 2), strict=True)]
        lines.append(f"| {r.delay_ms} | {r.strategy} | {' | '.join(asked + done)} |")
    return lines


def _against(result: Result, reference: Result | None) -> tuple[str, str]:
    """Difference of the success rates with Newcombe's interval (percentage points), ratio of the jerks."""
    if reference is None or reference is result:
        return "", ""
    low, high = difference((result.successes, result.attempts), (reference.successes, reference.attempts))
    apart = result.successes / result.attempts - reference.successes / reference.attempts
    points = f"{100 * apart:+.0f} ({100 * low:+.0f} to {100 * high:+.0f})"
    return points, f"{result.jerk_rad_s3 / reference.jerk_rad_s3:.2f}"


def _pair(jump: Jump, digits: int) -> str:
    return f"{jump.mean:.{digits}f} / {jump.p95:.{digits}f}"


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", type=Path, help="a checkpoint (model.pt) or a bundle (NAME.vla)")
    parser.add_argument(
        "-n", "--attempts", type=whole_number(1, 100_000), default=20, help="attempts per cell (20)"
    )
    parser.add_argument("--seed", type=seed_number, default=FIRST_SEED, help="seed of the first episode")
    parser.add_argument("--strategy", choices=NAMES, action="append", help="only this one; repeatable")
    parser.add_argument("--scene", choices=tuple(SCENES), action="append", help="only this one; repeatable")
    parser.add_argument(
        "--delay",
        type=whole_number(0, 9),
        action="append",
        metavar="STEPS",
        help=f"only this age of a chunk on arrival; repeatable ({', '.join(map(str, DELAYS))})",
    )
    parser.add_argument("--processes", type=whole_number(1, 256), default=2)
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="also draw it (extra `plot`)")
    parser.add_argument(
        "--real-time",
        action="store_true",
        help="instead: three cells with vla-sim and vla-run, beside stepped time (needs a bundle)",
    )
    parser.add_argument("--json", action="store_true")


def main(args: argparse.Namespace) -> int:
    """Prints the tables. Exit codes: 0 measured (--real-time: and it agrees), 1 --real-time differs or could
    not be carried out, 2 unusable input, 3 the simulated arm cannot be started."""
    from .policies import PolicyError, load_policy

    try:
        if not args.policy.exists():
            raise PolicyError(f"{args.policy} does not exist; give a checkpoint or a bundle")
        step_ms = round(load_policy(args.policy).dt_s * 1e3)
    except PolicyError as error:
        print(f"vla-bench strategies: {error}", file=sys.stderr)
        return EXIT_USAGE
    if args.real_time:
        from .strategies_live import spot_check

        return spot_check(args.policy, args.attempts, args.seed, args.json)
    if args.plot and (reason := _why_no_plot(args.plot)):
        # Before the measurement, which takes minutes.
        print(f"vla-bench strategies: {reason}", file=sys.stderr)
        return EXIT_USAGE
    cells = [
        Cell(scene, delay * step_ms, strategy)
        for scene in args.scene or SCENES
        for delay in args.delay or DELAYS
        for strategy in args.strategy or NAMES
    ]
    results = evaluate_all(args.policy, cells, args.attempts, args.processes, args.seed, _show)
    if args.plot:
        from .strategies_plot import draw

        draw(results, args.plot)
    if args.json:
        from ..runtime.report import environment

        document = {
            "policy": str(args.policy),
            "seed": args.seed,
            "environment": environment(),
            "cells": [asdict(result) for result in results],
        }
        print(json.dumps(document, indent=1))
    else:
        print(tables(results))
    return 0


def _why_no_plot(path: Path) -> str:
    """Why no plot could be written to `path`; empty if it can."""
    if importlib.util.find_spec("matplotlib") is None:
        return "--plot needs matplotlib; install the extra: pip install 'holdfast[plot]'"
    if not path.parent.is_dir():
        return f"the plot cannot be written: {path.parent} is no folder"
    return ""


def _show(r: Result) -> None:
    text = f"{r.scene}, {r.delay_ms} ms, {r.strategy}: {r.successes}/{r.attempts}"
    print(f"{text}, RMS jerk {r.jerk_rad_s3:.0f} rad/s3", file=sys.stderr, flush=True)


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(prog="python -m holdfast.benchmarks.strategies", description=__doc__)
    add_arguments(_parser)
    sys.exit(main(_parser.parse_args()))
