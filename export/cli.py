"""vla-export: checkpoint -> bundle.

Heavy imports (torch) are inside functions, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.arguments import number
from .signals import EndedBySignal, held, unwinding

if TYPE_CHECKING:
    from rich.console import Console

    from .pipeline import Request, Result


class ExitCode(IntEnum):
    """Documented in docs/export.md."""

    DONE = 0
    FAILED = 1
    """Precision or parity: the graph would not do what the checkpoint does."""
    USAGE = 2
    """The command line, the checkpoint or the output folder cannot be used."""
    INTERNAL = 5
    INTERRUPTED = 130


EPILOG = """\
exit codes: 0 done; 1 precision or parity failed, no bundle written; 2 usage, or the checkpoint, the
recorded observations or the output folder cannot be used; 5 internal error; 129/130/143 by signal.

examples:
  vla-export --fp16 model.pt          the checkpoint model.pt here -> ./model.vla
  vla-export --fp16 demo              the demo policy that comes with Holdfast -> ./demo.vla
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(
        prog="vla-export",
        description="Turns a checkpoint into a verified bundle (NAME.vla/) that vla-run drives an arm with.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument(
        "checkpoint", nargs="?",
        help="a checkpoint's file or folder, or `demo` for the one that comes with Holdfast",
    )  # fmt: skip
    out.add_argument("--families", action="store_true", help="list the families of checkpoints, and end")
    precision = out.add_mutually_exclusive_group()
    precision.add_argument(
        "--fp32", dest="precision", action="store_const", const="fp32", help="full precision (the default)"
    )
    precision.add_argument(
        "--fp16", dest="precision", action="store_const", const="fp16",
        help="mixed precision: fp16 but for what may overflow or needs the digits",
    )  # fmt: skip
    out.add_argument("--output", type=Path, metavar="DIR", help="the bundle's folder (default: ./NAME.vla)")
    out.add_argument("--force", action="store_true", help="replace the bundle if it exists")
    out.add_argument("--name", help="the bundle's name (default: from --output or the checkpoint)")
    out.add_argument(
        "--task",
        metavar="TEXT",
        help="the task that vla-run does when it is given none (default: the source's own)",
    )
    out.add_argument(
        "--observations", type=Path, metavar="FILE", help="recorded observations to judge parity by (.npz)"
    )
    known = out.add_argument_group("what a checkpoint does not say (docs/export.md)")
    known.add_argument(
        "--contract", type=Path, metavar="FILE", help="a YAML: robot type, names, units, order, rate"
    )
    known.add_argument(
        "--dataset", type=Path, metavar="DIR", help="the LeRobot dataset that it was trained on"
    )
    known.add_argument(
        "--golden",
        type=Path,
        metavar="FILE",
        help="inputs and actions of the original (no family takes it yet)",
    )
    known.add_argument("--tokenizer", type=Path, metavar="PATH", help="a tokenizer.json, or its folder")
    known.add_argument("--numerics", metavar="NAME", help="the original to follow, where they differ")
    known.add_argument("--unnorm-key", metavar="KEY", help="which statistics un-normalise (OpenVLA)")
    known.add_argument("--robot-type", metavar="NAME", help="the robot that it was trained on")
    known.add_argument("--module", metavar="PACKAGE:CLASS", help="class of a bare state dict (not taken yet)")
    known.add_argument("--trust-pickle", action="store_true", help="load a pickle (not taken yet)")
    out.add_argument(
        "--max-error", type=number(0, 1, unit="rad", low_excluded=True), metavar="RAD",
        help="largest error of a joint target, in place of the limit of the precision",
    )  # fmt: skip
    out.add_argument("--no-latency", action="store_true", help="do not measure latency")
    out.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
    out.set_defaults(precision="fp32")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs vla-export and returns its exit code."""
    command = parser()
    options = command.parse_args(arguments)
    if not options.checkpoint and not options.families:
        command.error("no checkpoint: give a file or a folder, `demo`, or --families")
    try:
        # Unwinding removes what has been written so far.
        with unwinding():
            return _run(options, _notes())
    except KeyboardInterrupt:
        return _fail(options, _notes(), ExitCode.INTERRUPTED, "interrupted; no bundle has been written")
    except EndedBySignal as error:
        text = f"ended by {error.name}; no bundle has been written"
        return _fail(options, _notes(), error.exit_code, text)
    except Exception as error:  # noqa: BLE001 (the outermost frame: a bug must not look like exit code 1)
        _notes().print_exception()
        return _fail(options, _notes(), ExitCode.INTERNAL, f"internal error: {type(error).__name__}: {error}")


def _notes() -> Console:
    """Where progress and messages go."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def _run(options: argparse.Namespace, notes: Console) -> int:
    with held(), notes.status("loading torch"):
        try:
            import onnxruntime  # noqa: F401
            import torch
        except ImportError as error:
            text = (
                f"{error.name} is not installed; install Holdfast with the extra `export`: holdfast[export]"
            )
            return _fail(options, notes, ExitCode.USAGE, text)
        from rich.console import Console

        from ..runtime.bundle.errors import BundleError
        from .errors import ExportError, SourceError
        from .pipeline import ParityFailed, Request
        from .show import as_json, next_command, show_families, show_parity, show_result
        from .sources.registry import families
        from .sources.types import ReadOptions

    if options.families:
        found = families()
        print(json.dumps(found, indent=1)) if options.json else show_families(found, Console(highlight=False))
        return ExitCode.DONE
    torch.set_num_threads(1)
    request = Request(
        checkpoint=options.checkpoint,
        precision=options.precision,
        output=options.output,
        name=options.name,
        task=options.task,
        options=ReadOptions(
            observations=options.observations,
            golden=options.golden,
            dataset=options.dataset,
            contract=options.contract,
            tokenizer=options.tokenizer,
            numerics=options.numerics,
            unnorm_key=options.unnorm_key,
            robot_type=options.robot_type,
            trust_pickle=options.trust_pickle,
            module=options.module,
        ),
        max_error_rad=options.max_error,
        replace=options.force,
        measure_latency=not options.no_latency,
    )
    try:
        result = _with_progress(request, notes)
        _remember(result.bundle, notes)
    except ParityFailed as error:
        if not options.json:
            show_parity(error.report, notes)
        return _fail(options, notes, ExitCode.FAILED, str(error), parity=error.report.model_dump())
    except (SourceError, BundleError) as error:
        return _fail(options, notes, ExitCode.USAGE, str(error))
    except ExportError as error:
        return _fail(options, notes, ExitCode.FAILED, str(error))
    if options.json:
        print(json.dumps(as_json(result), indent=1))
    else:
        console = Console(highlight=False)
        show_result(result, console)
        task = f", by default to {result.task.default!r}" if result.task.default else ""
        console.print(f"The bundle {result.bundle} is ready{task}. Next:", markup=False, soft_wrap=True)
        console.print(f"  {next_command(result)}", markup=False, soft_wrap=True)
    return ExitCode.DONE


def _with_progress(request: Request, notes: Console) -> Result:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from .pipeline import STAGES, export

    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=notes) as progress:
        bar = progress.add_task("", total=len(STAGES))

        def announce(stage: str) -> None:
            progress.update(bar, description=STAGES[stage], completed=list(STAGES).index(stage))

        def say(text: str) -> None:
            notes.print(text, markup=False, soft_wrap=True)

        result = export(request, announce, say)
        progress.update(bar, description="done", completed=len(STAGES))
    return result


def _remember(bundle: Path, notes: Console) -> None:
    """Notes it for vla-run. The bundle is good without that, so a failure is said and not fatal."""
    from ..runtime.bundle.errors import BundleError
    from ..runtime.bundle.last import remember_bundle

    try:
        remember_bundle(bundle)
    except BundleError as error:
        notes.print(f"[yellow]note:[/] {error}", markup=True, soft_wrap=True)


def _fail(options: argparse.Namespace, notes: Console, code: int, text: str, **more: object) -> int:
    from rich.markup import escape

    notes.print(f"[red]vla-export:[/] {escape(text)}", soft_wrap=True)
    if options.json:
        print(json.dumps({"ok": False, "exit_code": int(code), "error": text, **more}, indent=1))
    return code


if __name__ == "__main__":
    sys.exit(main())
