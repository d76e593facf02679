"""Closed-loop task success of a policy on the simulated arm, in stepped time, with checks for leaks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.arguments import seed_number, whole_number
from .intervals import wilson

if TYPE_CHECKING:
    from .stepped_policy import Check

FIRST_SEED = 1_000_000
"""Far from the seeds of the demonstrations."""
TASKS = ("touch", "pick")
EXIT_USAGE = 2


@dataclass(frozen=True, slots=True)
class Result:
    """Many attempts at one task under one condition."""

    task: str
    delay: str
    check: str
    attempts: int
    successes: int
    low: float
    """Ends of Wilson's 95 % interval of the success rate."""
    high: float
    wrong: int
    """Attempts in which another cube was touched (touch) or lifted (pick)."""
    obeyed: int
    """Attempts in which the cube that the instruction named was touched first."""
    seconds: float
    """Mean simulated time to success."""
    jerk_rad_s3: float
    clamped: float
    """Mean ticks per attempt in which a target was clamped."""
    stops: int
    """Attempts that ended in a protective stop."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One row to be measured."""

    task: str
    delay: str = "mixed"
    check: Check = "none"


STANDARD = tuple(Condition(task, delay) for delay in ("0", "60", "150", "mixed") for task in TASKS)
LEAKS = tuple(Condition(task, "mixed", check) for check in ("blank", "stale", "other_name") for task in TASKS)


def evaluate(path: Path, condition: Condition, seeds: Sequence[int]) -> Result:
    """Attempts at the episodes of `seeds`; `path` is a checkpoint or a bundle."""
    from .closed_loop import DELAYS_MS, SimulatedLoop
    from .policies import load_policy

    loop = SimulatedLoop(load_policy(path))
    attempts = [
        loop.attempt(
            seed,
            condition.task,
            delay_ms=DELAYS_MS[condition.delay],
            check=condition.check,
            # A wrong instruction is judged by what is touched first, and the rest of the attempt is idle.
            judge=lambda v: v.success or (condition.check == "other_name" and bool(v.touched)),
        )
        for seed in seeds
    ]
    successes = [a for a in attempts if a.verdict.success]
    low, high = wilson(len(successes), len(attempts))
    n = max(1, len(attempts))
    return Result(
        condition.task,
        condition.delay,
        condition.check,
        len(attempts),
        len(successes),
        low,
        high,
        sum(a.verdict.wrong_object for a in attempts),
        sum(a.verdict.touched[:1] == (a.named,) for a in attempts),
        sum(a.verdict.time_s for a in successes) / max(1, len(successes)),
        sum(a.jerk_rad_s3 for a in attempts) / n,
        sum(a.clamped for a in attempts) / n,
        sum(bool(a.stop) for a in attempts),
    )


def evaluate_all(
    path: Path,
    conditions: Sequence[Condition],
    attempts: int,
    processes: int,
    seed: int = FIRST_SEED,
    progress: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """One result per condition, over the same seeds, in `processes` processes; `progress` after each."""
    from ..export.workers import mapped

    measure = partial(evaluate, path, seeds=range(seed, seed + attempts))
    results = []
    with mapped(measure, conditions, min(processes, len(conditions))) as measured:
        for result in measured:
            results.append(result)
            progress(result)
    return results


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table."""
    rows = [
        "| task | picture's age ms | check | success | 95 % interval | wrong object | named one first "
        "| time s | jerk rad/s3 | clamped ticks | stops |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {r.task} | {r.delay} | {r.check} | {r.successes}/{r.attempts} | {r.low:.0%} to {r.high:.0%} "
        f"| {r.wrong} | {r.obeyed} | {r.seconds:.2f} | {r.jerk_rad_s3:.0f} | {r.clamped:.1f} | {r.stops} |"
        for r in results
    ]
    return "\n".join(rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", type=Path, help="a checkpoint (model.pt) or a bundle (NAME.vla)")
    parser.add_argument(
        "-n", "--attempts", type=whole_number(1, 100_000), default=50, help="attempts per row (50)"
    )
    parser.add_argument("--seed", type=seed_number, default=FIRST_SEED, help="seed of the first episode")
    parser.add_argument("--delay", choices=("0", "60", "150", "mixed"), help="only this age of the picture")
    parser.add_argument("--leaks", action="store_true", help="also take information away")
    parser.add_argument("--processes", type=whole_number(1, 256), default=2)
    parser.add_argument("--json", action="store_true")


def main(args: argparse.Namespace) -> int:
    """Prints the table. Exit codes: 0 measured, 2 unusable input."""
    if not args.policy.exists():
        print(f"vla-bench task: {args.policy} does not exist; give a checkpoint or a bundle", file=sys.stderr)
        return EXIT_USAGE
    conditions = [c for c in STANDARD if args.delay in (None, c.delay)]
    conditions += LEAKS if args.leaks else ()
    from .policies import PolicyError, load_policy

    try:
        load_policy(args.policy)
    except PolicyError as error:
        print(f"vla-bench task: {error}", file=sys.stderr)
        return EXIT_USAGE
    results = evaluate_all(args.policy, conditions, args.attempts, args.processes, args.seed, _show)
    if args.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    else:
        print(table(results))
    return 0


def _show(result: Result) -> None:
    text = f"{result.task}, picture's age {result.delay} ms, {result.check}: "
    print(f"{text}{result.successes}/{result.attempts}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(prog="python -m holdfast.benchmarks.task", description=__doc__)
    add_arguments(_parser)
    sys.exit(main(_parser.parse_args()))
