"""The fault campaign: breaks the whole system at random moments, in every way it knows, and watches the arm.

vla-run as it is, on the simulated arm and camera; a table of classes of faults, each with what must come of
it and by when (`--list`); an independent observer on the wire. Every trial is a line of trials.jsonl in the
folder of `--output`: a campaign that was ended in any way goes on where it was.

Exit codes: 0 no escape, no failure, no stop where none should be, every fault noticed in time; 1 not so, or
not all trials could be made, or a class had to be left out without `--allow-missing`; 2 unusable input,
or a file of another configuration."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.arguments import number, seed_number, whole_number

if TYPE_CHECKING:
    from .classes import FaultClass
    from .journal import Journal

FOLDER = Path("runs/faults")
SECONDS = {False: 1.8, True: 8.0}
"""About what a trial takes, by whether it ends the run, for the estimate."""
MOST_VOID = 6
"""A trial that was void so often is given up; so many in a row of each worker end the campaign."""
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Order:
    """A trial to be made."""

    name: str
    number: int
    tries: int = 0

    def seed(self, seed: int) -> int:
        """Another one for each try, the same in every campaign of this seed."""
        return random.Random(f"{seed} {self.name} {self.number} {self.tries}").randrange(1 << 32)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trials",
        type=whole_number(1, 1_000_000),
        metavar="N",
        help="of each class (default, the nightly size: 300, and 60 of those that need a restart)",
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="CLASS", help="only this class; repeatable"
    )
    parser.add_argument("--seed", type=seed_number, default=0, help="of moments and variants (default 0)")
    parser.add_argument(
        "--workers",
        type=whole_number(1, 64),
        metavar="N",
        help="systems at the same time, each on a core of its own (default: one per core, at most 2)",
    )
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="DIR", help=f"default {FOLDER}")
    parser.add_argument(
        "--soak", type=number(1, unit="s"), metavar="S", help="no faults: count the stops of a clean run"
    )
    parser.add_argument(
        "--soak-virtual", action="store_true", help="the soak in stepped time: an hour takes minutes"
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="classes that cannot be tried on this machine are no error (they are listed all the same)",
    )
    parser.add_argument("--list", action="store_true", help="print the table of classes and their bounds")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def main(args: argparse.Namespace) -> int:
    from ..demo_run import DemoError, claimed
    from .classes import BY_NAME, CLASSES
    from .listing import listing
    from .rig import left_out
    from .system import HarnessError
    from .workers import WorkerDied

    unknown = [name for name in args.only if name not in BY_NAME]
    if unknown:
        print(f"vla-bench faults: no class is called {unknown[0]!r}; --list shows them", file=sys.stderr)
        return 2
    if args.list:
        print("\n".join(listing()))
        return 0
    chosen = [row for row in CLASSES if not args.only or row.name in args.only]
    missing = {row.name: why for row in chosen if (why := left_out(row.system))}
    for name, why in missing.items():
        print(f"vla-bench faults: {name} is left out: {why}", file=sys.stderr)
    chosen = [row for row in chosen if row.name not in missing]
    try:
        with claimed(args.output.absolute()) as folder:
            return _run(args, chosen, missing, folder)
    except DemoError as error:
        print(f"vla-bench faults: {error}", file=sys.stderr)
        return error.exit_code
    except (HarnessError, WorkerDied) as error:
        print(f"vla-bench faults: {error}", file=sys.stderr)
        return 1


def _run(
    args: argparse.Namespace, chosen: Sequence[FaultClass], missing: dict[str, str], folder: Path
) -> int:
    from ...runtime.report import environment
    from .identity import configuration_hash
    from .journal import Journal, JournalError
    from .soak import soak
    from .summary import passed, soak_line
    from .sweep import write_sweep_bundle

    with _workshop(folder) as temporary:
        bundle = write_sweep_bundle(temporary / "sweep.vla")
        configuration = configuration_hash(bundle)
        if args.soak is not None:
            document = soak(bundle, args.soak, args.soak_virtual, args.seed, temporary, configuration)
            (folder / "soak.json").write_text(json.dumps(document, indent=2) + "\n")
            print(json.dumps(document, indent=2) if args.json else soak_line(document))
            return 0 if not document["false_stops"] else 1
        try:
            journal = Journal.open(folder / "trials.jsonl", configuration, args.seed, environment())
        except (JournalError, OSError) as error:
            print(f"vla-bench faults: {error}", file=sys.stderr)
            return 2
        try:
            whole = _make(args, chosen, bundle, temporary, journal)
        finally:
            journal.close()
    summary = _summary(folder, journal, missing)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    _show(summary, folder, args.json)
    return 0 if whole and passed(summary) and (args.allow_missing or not missing) else 1


@contextlib.contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """Where the systems live, in memory: one place for each folder of results, which is claimed. What a
    killed campaign has left there goes first."""
    name = f"holdfast-faults-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    path = (SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())) / name
    _clear(path)
    path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        _clear(path)


def _clear(path: Path) -> None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        where = line.split()[1]
        if where.startswith(f"{path}/"):
            subprocess.run(["umount", "-l", where], check=False, capture_output=True)
    shutil.rmtree(path, ignore_errors=True)


def _summary(folder: Path, journal: Journal, missing: dict[str, str]) -> dict[str, Any]:
    from .summary import summarise

    soak = None
    path = folder / "soak.json"
    if path.exists():
        soak = json.loads(path.read_text())
        if soak.get("configuration") != journal.header["configuration"]:
            print(f"vla-bench faults: {path} is of another configuration, left out", file=sys.stderr)
            soak = None
    return summarise(journal.rows, journal.header, soak, left_out=missing)


def _show(summary: dict[str, Any], folder: Path, as_json: bool) -> None:
    from .picture import draw
    from .summary import table

    lines = table(summary)
    (folder / "summary.md").write_text("\n".join(lines) + "\n")
    try:
        draw(summary, folder / "faults.png")
    except ImportError:
        print("no picture: matplotlib is not installed (extra `plot`)", file=sys.stderr)
    print(json.dumps(summary, indent=2) if as_json else "\n".join(lines))
    for row in summary["classes"]:
        for example in row["examples"]:
            text = "; ".join(example["escapes"])
            print(f"ESCAPE {row['name']} {example['number']}: {text}", file=sys.stderr)
        for example in row["failed"]:
            print(f"FAILURE {row['name']} {example['number']}: {example['failure']}", file=sys.stderr)
        for example in row["void_escapes"]:
            text = "; ".join(example["escapes"])
            print(f"void {row['name']} {example['number']}: {example['void']}: {text}", file=sys.stderr)
        if row["too_many_void"]:
            print(f"VOID {row['name']}: {row['void']} times: {row['voids']}", file=sys.stderr)


def orders(
    chosen: Sequence[FaultClass], trials: int | None, seed: int, done: set[tuple[str, int]]
) -> list[Order]:
    """What is left to do: shuffled, but runs that are started in another way one after another."""
    from .classes import NIGHTLY

    left = [
        (row.system, Order(row.name, number))
        for row in chosen
        for number in range(trials or NIGHTLY[row.restart])
        if (row.name, number) not in done
    ]
    random.Random(seed).shuffle(left)
    # The usual system first; the sort keeps the order within a system.
    left.sort(key=lambda pair: (pair[0] != "usual", pair[0]))
    return [order for _, order in left]


def estimate_s(left: Sequence[Order], workers: int) -> float:
    from .classes import BY_NAME

    return sum(SECONDS[BY_NAME[order.name].restart] for order in left) / workers


def _make(
    args: argparse.Namespace, chosen: Sequence[FaultClass], bundle: Path, temporary: Path, journal: Journal
) -> bool:
    """Makes the trials that are missing; whether all could be made."""
    from .summary import counts
    from .workers import Workers

    done = {(row["class"], row["number"]) for row in journal.rows if counts(row)}
    left = orders(chosen, args.trials, args.seed, done)
    cores = sorted(os.sched_getaffinity(0))
    workers = args.workers or min(2, len(cores))
    if workers > len(cores):
        print(
            f"note: {workers} workers on {len(cores)} cores: two control processes on one core delay each "
            "other by whole ticks, which is a stop of its own",
            file=sys.stderr,
        )
    minutes = estimate_s(left, workers) / 60
    print(
        f"{len(left)} trials of {len(chosen)} classes to make ({len(done)} are there), about {minutes:.0f} "
        f"min with {workers} workers; {journal.path}",
        file=sys.stderr,
        flush=True,
    )
    queue = deque(left)
    given_up = in_a_row = 0
    with Workers(workers, cores, bundle, temporary) as crew, _progress(len(left)) as advance:
        for order, row in crew.work(queue, args.seed):
            journal.add({**row, "tries": order.tries})
            in_a_row = in_a_row + 1 if row["void"] else 0
            if in_a_row >= MOST_VOID * workers:
                print(f"one void trial after another, the last: {row['void']}", file=sys.stderr, flush=True)
                return False
            if counts(row):
                advance(row)
            elif order.tries + 1 < MOST_VOID:
                queue.append(Order(order.name, order.number, order.tries + 1))
            else:
                given_up += 1
                print(f"given up: {order.name} {order.number}: {row['void']}", file=sys.stderr, flush=True)
    return not given_up


class _progress:
    """A bar where somebody watches, a line now and then elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total

    def __enter__(self) -> Callable[[dict[str, Any]], None]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from .summary import escapes_of

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[escapes]} escapes"),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar.__enter__()
        task = self._bar.add_task("trials", total=self._total, escapes=0)
        count = escapes = 0

        def advance(row: dict[str, Any]) -> None:
            nonlocal count, escapes
            count += 1
            found = escapes_of(row)
            escapes += bool(found)
            self._bar.update(task, advance=1, escapes=escapes)
            for word, text in (("ESCAPE", "; ".join(found)), ("FAILURE", row["failure"])):
                if text:
                    console.print(f"{word} {row['class']} {row['number']}: {text}", highlight=False)
            if not console.is_terminal and (count % 100 == 0 or count == self._total):
                print(f"{count} of {self._total}, {escapes} escapes", file=sys.stderr, flush=True)

        return advance

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(None, None, None)
