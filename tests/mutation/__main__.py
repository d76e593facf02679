"""`python -m tests.mutation`: makes mistakes in the safety code and says which ones no test notices.

Results are kept in runs/mutation.jsonl, so that a run which was broken off goes on where it was: until the
module changes, or its tests, or what those import from tests/. --fresh forgets them. Exit code 1: a mistake
that survivors.yaml does not explain survives, or one that it explains does not any more.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from ..house import ROOT
from .operators import Mutant, mutants
from .runner import Result, copied, digest, prepare, run, with_helpers
from .targets import TARGETS

KEPT = ROOT / "runs" / "mutation.jsonl"
SURVIVORS = Path(__file__).with_name("survivors.yaml")
Explained = dict[tuple[str, str], str]
"""(module, mistake) -> why it may survive."""
Digests = dict[str, tuple[str, str]]
"""Module -> of itself, of its tests with all that they import from tests/."""


def explained(path: Path = SURVIVORS) -> Explained:
    rows = yaml.safe_load(path.read_text()) or []
    return {(row["module"], row["mistake"]): row["why"] for row in rows}


def every_mutant(only: Iterable[str] = ()) -> list[Mutant]:
    """Of all modules, or of those whose file is called so."""
    wanted = [module for module in TARGETS if not only or Path(module).stem in only]
    return [mutant for module in wanted for mutant in mutants(module, (ROOT / module).read_text())]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="MODULE", help="e.g. gate; repeatable")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sample", type=int, metavar="N", help="N of the mistakes, drawn by --seed")
    parser.add_argument("--seed", default="", help="of the sample; by default the text of the modules")
    parser.add_argument("--seconds", type=float, help="end after so long, with what has been tried")
    parser.add_argument("--fresh", action="store_true", help="forget the results of before")
    parser.add_argument("--list", action="store_true", help="only say what would be changed")
    args = parser.parse_args()
    chosen = every_mutant(args.only)
    if args.list:
        for mutant in chosen:
            print(f"{mutant.module}:{mutant.line}: {mutant.key}")
        return 0
    total = len(chosen)
    if args.sample is not None:
        seed = args.seed or "".join((ROOT / module).read_text() for module in TARGETS)
        chosen = random.Random(seed).sample(chosen, min(args.sample, total))
    return _run(chosen, total, args)


def _run(chosen: list[Mutant], total: int, args: argparse.Namespace) -> int:
    start = time.monotonic()
    digests = {m: (digest([m]), digest(with_helpers(TARGETS[m]))) for m in {each.module for each in chosen}}
    if args.fresh:
        KEPT.unlink(missing_ok=True)
    outcomes = dict(_kept(chosen, digests))
    # Module by module: the tests of one are measured once.
    left = [mutant for mutant in chosen if mutant not in outcomes]
    known = explained()
    prepare()
    with copied() as root:
        for result in run(root, left, TARGETS, args.workers):
            outcomes[result.mutant] = result.outcome
            _keep(result, digests[result.mutant.module])
            if result.outcome == "survived" and (result.mutant.module, result.mutant.key) not in known:
                print(
                    f"SURVIVED {result.mutant.module}:{result.mutant.line}: {result.mutant.key}", flush=True
                )
            if args.seconds is not None and time.monotonic() - start > args.seconds:
                break
    return _judge(outcomes, total, known, complete=len(outcomes) == total)


def _judge(outcomes: dict[Mutant, str], total: int, known: Explained, *, complete: bool) -> int:
    count = Counter(outcomes.values())
    survived = {(m.module, m.key): m for m, outcome in outcomes.items() if outcome == "survived"}
    new = [m for name, m in survived.items() if name not in known]
    tried = {(m.module, m.key) for m in outcomes}
    stale = [name for name in known if name in tried - survived.keys()]
    if complete:
        stale += [name for name in known if name not in tried and name[0] in {m.module for m in outcomes}]
    print(
        f"{len(outcomes)} of {total} mistakes tried: {count['killed'] + count['timeout']} noticed "
        f"({count['timeout']} by taking too long), {len(survived)} not, of which {len(survived) - len(new)} "
        "are explained"
    )
    for mutant in sorted(new, key=lambda m: (m.module, m.line)):
        print(f"NOT NOTICED  {mutant.module}:{mutant.line}: {mutant.key}")
    for module, mistake in stale:
        print(f"NO SURVIVOR ANY MORE (survivors.yaml)  {module}: {mistake}")
    return 1 if new or stale else 0


def _kept(chosen: list[Mutant], digests: Digests) -> Iterator[tuple[Mutant, str]]:
    if not KEPT.exists():
        return
    by_name = {(m.module, m.key): m for m in chosen}
    for line in KEPT.read_text().splitlines():
        row = json.loads(line)
        mutant = by_name.get((row["module"], row["mistake"]))
        if mutant is None:
            continue
        if (row["of_module"], row["of_tests"]) == digests[mutant.module]:
            yield mutant, row["outcome"]


def _keep(result: Result, digests: tuple[str, str]) -> None:
    KEPT.parent.mkdir(exist_ok=True)
    row = {
        "module": result.mutant.module,
        "mistake": result.mutant.key,
        "outcome": result.outcome,
        "seconds": round(result.seconds, 2),
        "of_module": digests[0],
        "of_tests": digests[1],
    }
    with KEPT.open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    sys.exit(main())
