"""How late the control process wakes up while the policy computes, beside cyclictest in the same run.

It makes a short demo run (simulated arm, real processes) and shows its timing alone.

Exit codes: 0 measured, whatever the result; 1 the run failed; 2 unusable input; 3 the simulated arm cannot be
started."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..runtime.arguments import whole_number

FOLDER = Path("runs/jitter")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--attempts",
        type=whole_number(1, 10_000),
        default=6,
        metavar="N",
        help="tasks to run meanwhile (default 6)",
    )
    parser.add_argument("--bundle", type=Path, help="use this exported bundle instead of exporting one")
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="DIR", help=f"default {FOLDER}")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def main(args: argparse.Namespace) -> int:
    from .demo_report import document, timing_lines, timing_rows
    from .demo_run import DemoError, DemoOptions, claimed, export_demo, given_bundle, log_tail, run_demo

    folder = args.output.absolute()
    try:
        with claimed(folder):
            bundle = given_bundle(args.bundle) if args.bundle else export_demo(folder, quiet=args.json)
            options = DemoOptions(folder, args.attempts, port=0)
            result = run_demo(bundle, options, say=lambda text: None, on_outcome=lambda index, outcome: None)
    except DemoError as error:
        print(f"vla-bench jitter: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        whole = document(result, args.attempts)
        keys = ("timing", "cyclictest", "rates", "deadlines", "stages", "environment", "vla_run_exit_code")
        print(json.dumps({key: whole[key] for key in keys}, indent=2))
    else:
        print(*timing_lines(timing_rows(result.report, result.cyclictest)), sep="\n")
    if result.exit_code != 0:
        text = f"vla-run ended with exit code {result.exit_code}:\n{log_tail(folder)}"
        print(f"vla-bench jitter: {text}", file=sys.stderr)
        return 1
    return 0
