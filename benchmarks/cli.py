"""vla-bench: measures this installation. Every verb prints a table, or one JSON document with --json."""

from __future__ import annotations

import argparse
import importlib
import sys
from types import ModuleType

from ..export.signals import EndedBySignal, unwinding

VERBS = {
    "bus": "one motor-bus cycle: time, CPU and distance from the wire's own time",
    "jitter": "how late control wakes up under inference load, beside cyclictest",
    "tick": "CPU time of one tick of control without the bus",
    "endurance": "ten minutes of control under 30 to 80 ms of inference, beside cyclictest, with its bounds",
    "footprint": "size of the installation without torch, import and --help times",
    "task": "closed-loop task success of a policy, in stepped time",
    "strategies": "ways of executing chunks under latency: success, jerk, jumps, ages",
    "peers": "another runtime's loop on the same work, beside ours (installs it first: 700 MB)",
    "faults": "the fault campaign: breaks the whole system at random moments; escapes, times, clean soak",
    "demo": "the whole chain: export, simulated arm, attempts, deadlines (what `make demo` runs)",
}
"""Verb -> what it does; each is a module of this room with `add_arguments(parser)` and `main(args)`."""
ELSEWHERE = {"peers": "peers.physicalai_loop", "faults": "faults.campaign"}
"""Verbs whose module has another name."""

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())
    return (
        f"usage: vla-bench VERB [options]\n\n{__doc__}\n\n{verbs}\n\n"
        "`vla-bench VERB --help` shows a verb's options."
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point of `vla-bench`; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if not arguments or arguments[0] not in VERBS:
        given = f"unknown verb {arguments[0]!r}" if arguments else "no verb given"
        print(f"vla-bench: {given}\n\n{usage()}", file=sys.stderr)
        return EXIT_USAGE
    verb, *rest = arguments
    module = _module(verb)
    # Only the verb's own module is imported, and it imports what it needs when it runs.
    parser = argparse.ArgumentParser(prog=f"vla-bench {verb}", description=module.__doc__)
    module.add_arguments(parser)
    args = parser.parse_args(rest)
    try:
        with unwinding():
            return module.main(args)
    except KeyboardInterrupt:
        print("vla-bench: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except ImportError as error:
        print(
            f"vla-bench {verb}: {error}; install the extras: pip install 'holdfast[export,sim]'",
            file=sys.stderr,
        )
        return EXIT_USAGE
    except EndedBySignal as error:
        print(f"vla-bench: ended by {error.name}", file=sys.stderr)
        return error.exit_code


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f".{ELSEWHERE.get(verb, verb)}", __package__)


if __name__ == "__main__":
    sys.exit(main())
