"""vla-train: demonstrations and training of the demo policy."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ...runtime.arguments import number, seed_number, whole_number
from ..signals import EndedBySignal, held, unwinding

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="vla-train",
        description="Makes demonstrations on the simulated arm and trains the demo policy on them.",
    )
    verbs = top.add_subparsers(dest="verb", required=True)
    demos = verbs.add_parser("demos", help="record demonstrations of the scripted expert")
    demos.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    demos.add_argument("--episodes", type=whole_number(1, 1_000_000), default=1200, metavar="N")
    demos.add_argument("--seed", type=seed_number, default=0, metavar="S", help="seed of the first episode")
    demos.add_argument("--processes", type=whole_number(1, 256), default=2, metavar="P")
    fit = verbs.add_parser("fit", help="train from scratch")
    fit.add_argument("--data", type=Path, required=True, metavar="FILE.npz")
    fit.add_argument("--out", type=Path, default=Path("model.pt"), metavar="FILE.pt")
    fit.add_argument(
        "--observations", type=Path, metavar="FILE.npz", help="also write recorded observations for export"
    )
    length = fit.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes", type=number(0, 1e6, low_excluded=True), default=10.0, metavar="M", help="wall time (10)"
    )
    length.add_argument("--steps", type=whole_number(1), metavar="N", help="optimiser steps; reproducible")
    fit.add_argument("--seed", type=seed_number, default=0, metavar="S")
    fit.add_argument("--threads", type=whole_number(1, 256), default=2, metavar="T")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit codes: 0 done; 2 usage or unusable input; 129, 130, 143 by signal."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(words)
    try:
        with unwinding():
            return _demos(options) if options.verb == "demos" else _fit(options, words)
    except KeyboardInterrupt:
        print("vla-train: interrupted; nothing has been written", file=sys.stderr)
        return EXIT_INTERRUPTED
    except EndedBySignal as error:
        print(f"vla-train: ended by {error.name}; nothing has been written", file=sys.stderr)
        return error.exit_code
    except ImportError as error:
        print(f"vla-train: {error}; install Holdfast with its extras: pip install holdfast[export,sim]",
              file=sys.stderr)  # fmt: skip
        return EXIT_USAGE


def _demos(options: argparse.Namespace) -> int:
    if not _writable(options.out):
        return EXIT_USAGE
    with held():
        from .demonstrations import collect, save_demonstrations

    with _bar() as bar:
        task = bar.add_task("episodes", total=options.episodes, note="")
        demonstrations, success = collect(
            options.episodes,
            options.seed,
            options.processes,
            lambda done, _: bar.update(task, completed=done),
        )
    save_demonstrations(options.out, demonstrations)
    print(f"{options.out}: {len(demonstrations.image)} moments of {options.episodes} episodes")
    print(f"the expert succeeded in {success:.1%} under noise; sha256 {demonstrations.digest()}")
    return 0


def _fit(options: argparse.Namespace, words: Sequence[str]) -> int:
    if not all(_writable(path) for path in (options.out, options.observations) if path):
        return EXIT_USAGE
    with held():
        import torch

        from ...drivers.robots.schema import load_robot
        from .demonstrations import DemonstrationError, load_demonstrations
        from .fit import HELD_OUT, Budget, Progress, fit
        from .observations import save_observations

    try:
        demonstrations = load_demonstrations(options.data)
    except DemonstrationError as error:
        print(f"vla-train: {error}", file=sys.stderr)
        return EXIT_USAGE
    if options.observations:
        try:
            count = save_observations(options.observations, demonstrations, HELD_OUT)
        except ValueError as error:
            print(f"vla-train: {error}", file=sys.stderr)
            return EXIT_USAGE
        print(f"{options.observations}: {count} observations")
    with _bar() as bar:
        task = bar.add_task("training", total=1.0, note="")

        def show(at: Progress) -> None:
            note = f"step {at.step}  loss {at.loss:.4f}  target {at.target_loss:.4f}"
            bar.update(task, completed=at.fraction, note=note)

        checkpoint = fit(
            demonstrations,
            load_robot("sim_arm"),
            seed=options.seed,
            budget=Budget(None if options.steps else options.minutes, options.steps),
            threads=options.threads,
            command=shlex.join(["vla-train", *words]),
            progress=show,
        )
    partial = options.out.with_suffix(".partial")
    torch.save(checkpoint, partial)
    partial.replace(options.out)
    training = checkpoint["training"]
    errors = ", ".join(f"{value:.4f}" for value in training["held_out_error"])
    print(f"{options.out}: {training['steps']} steps; mean error on held-out episodes per joint: {errors}")
    return 0


def _bar():
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )


def _writable(path: Path) -> bool:
    """Whether a file can be made there: known before hours of work, not after. Says why not."""
    reason = "it is a folder; name a file" if path.is_dir() else _no_room(path.parent)
    if reason is not None:
        print(f"vla-train: {path} cannot be written: {reason}", file=sys.stderr)
    return reason is None


def _no_room(folder: Path) -> str | None:
    if not folder.is_dir():
        return f"the folder {folder} does not exist; make it first"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"no file can be made in {folder} ({error.strerror}); name another"


if __name__ == "__main__":
    sys.exit(main())
