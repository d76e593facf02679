"""The whole chain, as a person would use it: exports the shipped policy, starts the simulated arm, lets
vla-run drive it through many tasks, judges each by the simulator's ground truth, and shows which deadlines
held.

The deadlines are shown and not part of the verdict: they say as much about the machine as about Holdfast.

Exit codes: 0 all attempts made, enough of them successes (--min-success), and vla-run finished in order; 1
otherwise; 2 unusable input; 3 the simulated arm cannot be started; 129, 130, 143 ended by SIGHUP, Ctrl-C,
SIGTERM."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .demo_attempts import Outcome

from ..runtime.arguments import number, seed_number, whole_number

FOLDER = Path("runs/demo")
MISSED = """\
MISSED does not change the exit code: how punctual a machine is depends on what else it does, and the demo's
verdict is success. A protective stop does change it, through vla-run's own exit code."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--attempts", type=whole_number(1, 10_000), default=24, metavar="N", help="default 24"
    )
    parser.add_argument(
        "--seed", type=seed_number, default=1000, help="places the cubes and words the instructions"
    )
    parser.add_argument(
        "--duration", type=number(0.1, 3600), default=10.0, metavar="S", help="longest attempt (default 10)"
    )
    parser.add_argument(
        "--min-success", type=number(0, 1), default=0.8, metavar="SHARE", help="for exit code 0 (default 0.8)"
    )
    parser.add_argument("--bundle", type=Path, help="use this exported bundle instead of exporting one")
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="DIR", help=f"default {FOLDER}")
    parser.add_argument(
        "--port",
        type=whole_number(0, 65535),
        default=8090,
        help="of the camera stream (default 8090, else any)",
    )
    parser.add_argument(
        "--record", action="store_true", help="keep every byte on the motor bus: DIR/wire.log"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def main(args: argparse.Namespace) -> int:
    from .demo_report import attempt_lines, document, timing_lines, timing_rows
    from .demo_run import DemoError, DemoOptions, claimed, export_demo, given_bundle, log_tail, run_demo

    folder = args.output.absolute()
    options = DemoOptions(folder, args.attempts, args.seed, args.duration, args.port, args.record)
    try:
        with claimed(folder):
            bundle = given_bundle(args.bundle) if args.bundle else export_demo(folder, quiet=args.json)
            result = run_demo(bundle, options, say=_say, on_outcome=_progress(args.attempts))
    except DemoError as error:
        print(f"vla-bench demo: {error}", file=sys.stderr)
        return error.exit_code
    summary = document(result, args.attempts, args.min_success)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    if args.json:
        print(json.dumps(summary, indent=2))
    elif result.outcomes:
        print("\nattempts", *attempt_lines(result.outcomes), sep="\n")
        rows = timing_rows(result.report, result.cyclictest)
        print("\ndeadlines", *timing_lines(rows), sep="\n")
        if any(row.ok is False for row in rows):
            print(MISSED)
        print(f"\nall of it: {folder}/summary.json, report.json, events.jsonl, vla-run.log")
    if summary["passed"]:
        return 0
    _explain(result.exit_code, len(result.outcomes), args.attempts, log_tail(folder))
    return 1


def _explain(exit_code: int, made: int, asked: int, tail: str) -> None:
    print("vla-bench demo: failed", file=sys.stderr)
    if exit_code != 0 or made < asked:
        print(
            f"vla-run ended with exit code {exit_code} after {made} of {asked} attempts:\n{tail}",
            file=sys.stderr,
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _progress(total: int) -> Callable[[int, Outcome], None]:
    def show(index: int, outcome: Outcome) -> None:
        verdict = "ok" if outcome.success else "wrong object" if outcome.wrong_object else "not done"
        verdict = f"void: {outcome.void}" if outcome.void else verdict
        _say(
            f"[{index + 1:3}/{total}] {outcome.attempt.instruction:<28} {verdict:<14} {outcome.time_s:5.1f} s"
        )

    return show
