"""vla-run: drives an arm with an exported policy."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from .arguments import number, own_core, whole_number
from .commands import COMMANDS
from .control.strategies import DEFAULT, STRATEGIES
from .exit_codes import ExitCode, Refused, UsageError

MOST_EMA_S = 1.0
MOST_TOOL_SPEED_M_S = 10.0
_EPILOG = """\
exit codes: 0 finished · 1 a replay that differs · 2 usage · 3 refused before torque · 4 protective stop ·
5 internal error · 129, 130, 143 ended by SIGHUP, SIGINT, SIGTERM after a controlled stop.
keys: n ends the task · space is a protective stop · r resets it (never moves the arm) · q quits ·
w writes the flight recorder's last seconds to a file.
signals: SIGUSR1 ends the task under way, the next one follows; SIGUSR2 is as the key w.
asking a run: vla-run --ask COMMAND; exit codes: 0 done · 1 refused · 3 nobody listens.
This is not a safety device: keep a hardware emergency stop that cuts the motors' power within reach."""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vla-run",
        description="Drive a robot arm with an exported policy (a bundle, NAME.vla).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "bundle", nargs="?", help="bundle folder; default: the only *.vla here, else the last exported"
    )
    parser.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="[NAME=]SOURCE",
        help="/dev/videoN, http(s)://..., rtsp://... or a video file; repeatable",
    )
    parser.add_argument("--arm", metavar="URL", help="serial:/dev/ttyUSB0 or socket://host:port")
    parser.add_argument("--robot", help="robot name or .yaml file; default: probe the bus")
    parser.add_argument("--calibration", metavar="FILE", help="LeRobot calibration JSON")
    parser.add_argument("--robot-id", metavar="ID", help="which of LeRobot's calibrations: ID.json")
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="TEXT",
        help="instruction; repeatable: one after another",
    )
    parser.add_argument(
        "--duration",
        type=number(0, low_excluded=True, unit="s"),
        metavar="S",
        help="wall time for each task; default: until ended",
    )
    parser.add_argument(
        "--pause",
        type=number(0, unit="s"),
        default=0.0,
        metavar="S",
        help="wait at the start pose before each task",
    )
    parser.add_argument(
        "--control-hz", type=number(10, 1000, unit="Hz"), metavar="HZ", help="default: the robot file's"
    )
    parser.add_argument(
        "--strategy",
        choices=list(STRATEGIES),
        help=f"how overlapping chunks become one motion (docs/strategies.md); default: the bundle's, else "
        f"{DEFAULT}",
    )
    parser.add_argument(
        "--ema",
        type=number(0, MOST_EMA_S, unit="s"),
        default=0.0,
        metavar="S",
        help="also smooth the targets by a moving average with this time constant; the arm lags by as much, "
        f"so at most {MOST_EMA_S:g}: beyond, it would no longer follow its chunks; default: none",
    )
    parser.add_argument(
        "--rt",
        choices=("strict", "warn", "off"),
        default="warn",
        help="real-time set-up: refuse, warn (default), or none",
    )
    parser.add_argument(
        "--cpu",
        type=own_core,
        metavar="N",
        help="core for control; default: the last one, with --rt off: any",
    )
    parser.add_argument(
        "--threads", type=whole_number(1, 64), default=1, metavar="N", help="inference threads (default 1)"
    )
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="write the report")
    parser.add_argument("--events", type=Path, metavar="FILE", help="append every event as a JSON line")
    recorder = parser.add_mutually_exclusive_group()
    recorder.add_argument(
        "--record",
        type=Path,
        metavar="DIR",
        help="where the flight recorder writes its files, of which it keeps the newest 20 stops and 20 "
        "requests; default: recordings/ in the state folder",
    )
    recorder.add_argument("--no-record", action="store_true", help="no flight recorder")
    parser.add_argument("--dry-run", action="store_true", help="everything but torque")
    parser.add_argument(
        "--check", action="store_true", help="check and print the plan, move nothing, exit 0 or 3"
    )
    parser.add_argument(
        "--explain",
        nargs="?",
        const=True,
        metavar="FILE",
        help="tell what a recording holds, in words and as a plot (FILE.png); default: the newest one",
    )
    parser.add_argument(
        "--replay",
        metavar="FILE",
        help="feed a recording through control again: exit 0 where it decides the same bit for bit, else 1",
    )
    parser.add_argument(
        "--json", action="store_true", help="with --check, --explain, --replay or --ask: print JSON"
    )
    stops = parser.add_argument_group("stopping, and asking a run that is going on")
    stops.add_argument(
        "--stop-input",
        action="append",
        type=_input,
        default=[],
        metavar="SPEC",
        help="a switch or key that stops the arm: evdev:/dev/input/by-id/NAME[?key=KEY_SPACE] or "
        "gpio:/dev/gpiochip0:17[?active=low][&bias=pull-up]; repeatable",
    )
    stops.add_argument(
        "--reset-input",
        action="append",
        type=_input,
        default=[],
        metavar="SPEC",
        help="the same, for resetting a stop; never moves the arm; repeatable",
    )
    stops.add_argument(
        "--watchdog", metavar="DEVICE", help="feed a hardware watchdog from control's loop: /dev/watchdog"
    )
    stops.add_argument(
        "--max-tool-speed",
        type=number(0, MOST_TOOL_SPEED_M_S, low_excluded=True, unit="m/s"),
        metavar="M_S",
        help="of the tool tip; 0.25 is the usual limit near people; the smaller of this and the robot file's",
    )
    stops.add_argument(
        "--endpoint",
        type=Path,
        metavar="PATH",
        help="socket at which the run can be asked; default: one named after the arm, in $XDG_RUNTIME_DIR or "
        "the state folder",
    )
    stops.add_argument(
        "--ask",
        choices=list(COMMANDS),
        metavar="COMMAND",
        help=f"no run: ask the one that is going on: {', '.join(COMMANDS)}; of several, --arm or --endpoint "
        "says which",
    )
    parser.add_argument(
        "--reset", action="store_true", help="acknowledge the protective stop of an earlier run"
    )
    parser.add_argument(
        "--on-stop",
        choices=("wait", "exit"),
        help="after a protective stop; default: wait at a terminal or with --endpoint or --reset-input, else "
        "exit",
    )
    parser.add_argument(
        "--write-gains", action="store_true", help="write the robot file's gains into the motors (EEPROM)"
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    return parser  # fmt: skip


def _input(text: str) -> str:
    """A type for argparse: what names no input is refused before anything is loaded."""
    from ..drivers.errors import ConfigError
    from .control.input_spec import parse_input

    try:
        parse_input(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    if args.version:
        from importlib.metadata import version

        print(f"holdfast {version('holdfast')}")
        return ExitCode.FINISHED
    try:
        return _carry_out(args)
    except UsageError as error:
        print(f"vla-run: {error}", file=sys.stderr)
        return ExitCode.USAGE
    except Refused as error:
        print(f"vla-run: refused: {error}", file=sys.stderr)
        return ExitCode.REFUSED
    except KeyboardInterrupt:
        print("vla-run: interrupted before anything was started", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except Exception:
        # The one broad net: an error of our own has its documented exit code, too.
        logging.getLogger("vla-run").exception("internal error, please report it")
        return ExitCode.INTERNAL


def _take_recording(args: argparse.Namespace) -> None:
    """`FILE.flight --explain` is as `--explain FILE.flight`; a bundle has nothing to do with a recording."""
    if args.explain is None and args.replay is None:
        return
    option, named = ("--explain", args.explain) if args.replay is None else ("--replay", args.replay)
    if named == "":
        raise UsageError(f"{option} with an empty name: give the file of a recording")
    if args.bundle is None:
        return
    recording = args.bundle.endswith(".flight") or Path(args.bundle, "control.ring").exists()
    if named is not True or not recording:
        raise UsageError(f"{option} takes one recording and no bundle: leave {args.bundle!r} out")
    args.explain, args.bundle = args.bundle, None


def _carry_out(args: argparse.Namespace) -> int:
    """What was asked for: each loads only what it needs."""
    asked = [args.check, args.explain is not None, args.replay is not None, args.ask is not None]
    if sum(asked) > 1:
        raise UsageError("--check, --explain, --replay and --ask are four things to do: ask for one")
    _take_recording(args)
    if args.json and not any(asked):
        raise UsageError("--json belongs to --check, --explain, --replay or --ask")
    if args.ask is not None:
        from .ask import ask

        if args.bundle is not None:
            raise UsageError(f"--ask takes no bundle: leave {args.bundle!r} out")
        return ask(args)
    if args.check:
        from .check import check

        return check(args)
    if args.explain is not None:
        from .recorder.explain import explain

        return explain(args)
    if args.replay is not None:
        from .recorder.explain import replay

        return replay(args)
    from .run import run

    return run(args)


if __name__ == "__main__":
    sys.exit(main())
