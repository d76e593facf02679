"""One worker of the campaign: `python -m holdfast.benchmarks.faults.worker --core N --folder DIR --bundle B`.

Reads orders (`{"class", "number", "seed"}`) from standard input, one line each, and answers each with a trial
on standard output. The end of its input ends it, and all that it has started: the campaign's death is one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from .classes import BY_NAME
from .rig import Rig
from .system import RunOptions, pin
from .trial import Bench


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    args = parser.parse_args()
    # Whatever else is printed here must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if args.core >= 0:
        pin(args.core)
    with Rig(args.folder, RunOptions(args.bundle, "sim_arm")) as rig:
        bench = Bench(rig)
        try:
            for line in sys.stdin:
                order = json.loads(line)
                trial = bench.trial(BY_NAME[order["class"]], order["number"], order["seed"])
                answers.write(json.dumps(trial.row()) + "\n")
                answers.flush()
        except BrokenPipeError:
            return 1
        finally:
            bench.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
