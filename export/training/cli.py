"""vla-train: demonstrations and training of the demo policy."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

EXIT_USAGE = 2


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="vla-train",
        description="Makes demonstrations on the simulated arm and trains the demo policy on them.",
    )
    verbs = top.add_subparsers(dest="verb", required=True)
    demos = verbs.add_parser("demos", help="record demonstrations of the scripted expert")
    demos.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    demos.add_argument("--episodes", type=_count, default=1200, metavar="N")
    demos.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the first episode")
    demos.add_argument("--processes", type=_count, default=2, metavar="P")
    fit = verbs.add_parser("fit", help="train from scratch")
    fit.add_argument("--data", type=Path, required=True, metavar="FILE.npz")
    fit.add_argument("--out", type=Path, default=Path("model.pt"), metavar="FILE.pt")
    fit.add_argument(
        "--observations", type=Path, metavar="FILE.npz", help="also write recorded observations for export"
    )
    length = fit.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=_positive, default=10.0, metavar="M", help="wall time (10)")
    length.add_argument("--steps", type=_count, metavar="N", help="optimiser steps; reproducible")
    fit.add_argument("--seed", type=int, default=0, metavar="S")
    fit.add_argument("--threads", type=_count, default=2, metavar="T")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit codes: 0 done, 2 usage or unusable input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(words)
    try:
        return _demos(options) if options.verb == "demos" else _fit(options, words)
    except ImportError as error:
        print(f"vla-train: {error}; install Holdfast with its extras: pip install holdfast[export,sim]",
              file=sys.stderr)  # fmt: skip
        return EXIT_USAGE


def _demos(options: argparse.Namespace) -> int:
    from .demonstrations import collect, save_demonstrations

    if not _writable(options.out):
        return EXIT_USAGE
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
    import torch

    from ...drivers.robots.schema import load_robot
    from .demonstrations import DemonstrationError, load_demonstrations
    from .fit import HELD_OUT, Budget, Progress, fit
    from .observations import save_observations

    if not all(_writable(path) for path in (options.out, options.observations) if path):
        return EXIT_USAGE
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
    if path.parent.is_dir():
        return True
    print(f"vla-train: the folder {path.parent} of {path} does not exist; make it first", file=sys.stderr)
    return False


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


if __name__ == "__main__":
    sys.exit(main())
