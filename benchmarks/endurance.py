"""Ten minutes of control at its full rate while the policy computes 30 to 80 ms at a time, beside cyclictest.

The demo policy drives the simulated arm through vla-run, as a person would run it; its bundle is padded with
matrix products, so that inference really takes a core (`padded_bundle`). The cubes are put elsewhere every
few seconds, so that the arm keeps moving. cyclictest runs on control's core in the same minutes and says what
the kernel and the machine under it do to any real-time thread there.

Fairness: both threads are FIFO and pinned to one core, each wakes on its own grid, and the grids drift
through each other. cyclictest stands one priority ABOVE control here. Below it, every tick of ours would
delay some of its wake-ups, and the bounds, which follow from its figures, would be the easier to keep the
slower our tick is. Above it, it is delayed by the machine alone; what it takes from control is some
microseconds in one tick of a thousand.

Exit codes: 0 every bound is kept; 1 one is not, or the run failed; 2 unusable input; 3 the simulated arm
cannot be started."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..runtime.arguments import number, seed_number, whole_number

if TYPE_CHECKING:
    from .cyclictest import Lateness
    from .demo_report import Row

FOLDER = Path("runs/endurance")
PRIORITY = 81
"""Of cyclictest: one above control."""
SCENE_S = 5.0
"""The cubes are put elsewhere so often."""
CAMERA_FPS = 30.0
MAX_EXTRA_MISSED = 0.001
"""Share of slots that control may miss beyond the share of cyclictest's wake-ups that were as late."""
MAX_WAKE_RATIO = 1.25
"""Control's wake-up lateness over cyclictest's, p99 of each."""
FIRST_USE_PERIODS = 1.5
"""A chunk may wait so many control periods for its first use: half of one on average, and the tick itself."""
ACTION_INFERENCES = 1.5
"""A chunk is used until the next one is there: on average half an inference longer than at its first use."""


@dataclass(frozen=True, slots=True)
class EnduranceOptions:
    seconds: float
    inference_ms: tuple[float, float]
    control_hz: float
    bus: Literal["pty", "socket"]
    baud: int
    seed: int


class EnduranceError(Exception):
    """The run could not be made, or did not come to its end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds", type=number(1, 86_400, unit="s"), default=600.0, help="length of the task (default 600)"
    )
    parser.add_argument(
        "--inference-ms",
        type=number(1, 10_000, unit="ms"),
        nargs=2,
        default=(30.0, 80.0),
        metavar=("LOW", "HIGH"),
        help="CPU time of an inference, uniformly drawn (default 30 80)",
    )
    parser.add_argument(
        "--control-hz", type=number(10, 1000, unit="Hz"), default=100.0, help="rate of control (default 100)"
    )
    parser.add_argument(
        "--bus",
        choices=("pty", "socket"),
        default="socket",
        help="what the simulated motors are on (default socket: the kernel's threads that carry a pty's "
        "bytes wait for the CPU, as no motor bus does)",
    )
    parser.add_argument(
        "--baud",
        type=whole_number(9600, 10_000_000),
        default=1_000_000,
        help="of the simulated motor bus (default 1000000, where a cycle of six servos takes 1.66 ms of "
        "wire: 500 Hz needs a faster one)",
    )
    parser.add_argument("--seed", type=seed_number, default=0, help="places the cubes")
    parser.add_argument(
        "--bundle", type=Path, help="pad this exported bundle instead of exporting the demo's"
    )
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="DIR", help=f"default {FOLDER}")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def main(args: argparse.Namespace) -> int:
    from ..runtime.bundle.errors import BundleError
    from .demo_report import timing_lines
    from .demo_run import DemoError, claimed, export_demo, given_bundle
    from .padded_bundle import pad_bundle

    low, high = args.inference_ms
    options = EnduranceOptions(args.seconds, (low, high), args.control_hz, args.bus, args.baud, args.seed)
    folder = args.output.absolute()
    try:
        with claimed(folder):
            source = given_bundle(args.bundle) if args.bundle else export_demo(folder, quiet=args.json)
            bundle = pad_bundle(source, folder / "padded.vla", low, high, seed=args.seed, replace=True)
            report, beside = run(bundle, folder, options)
    except (DemoError, BundleError) as error:
        print(f"vla-bench endurance: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, DemoError) else 2
    except EnduranceError as error:
        print(f"vla-bench endurance: {error}", file=sys.stderr)
        return 1
    rows = judge(report, beside, options)
    document = {
        "benchmark": "endurance",
        "options": asdict(options),
        "passed": passed(rows),
        "bounds": [asdict(row) for row in rows],
        "cyclictest": beside if isinstance(beside, str) else asdict(beside),
        **{key: report[key] for key in ("rates", "deadlines", "stages", "stops", "real_time", "environment")},
    }
    (folder / "summary.json").write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document, indent=2) if args.json else "\n".join(timing_lines(rows)))
    return 0 if passed(rows) else 1


def run(
    bundle: Path, folder: Path, options: EnduranceOptions, wire_log: Path | None = None
) -> tuple[dict[str, Any], Lateness | str]:
    """One task on the simulated arm: vla-run's report, and what cyclictest saw (or why it saw nothing).

    Raises `EnduranceError`, and `DemoRefused` where the simulated arm cannot be started.
    """
    from ..drivers.simulated.errors import SimulatorError
    from ..drivers.simulated.launch import start_simulator
    from .demo_run import DemoRefused, cyclictest_beside, log_tail, vla_run

    events, written = folder / "events.jsonl", folder / "report.json"
    for path in (events, written):
        path.unlink(missing_ok=True)
    robot = write_robot(folder, options.baud)
    most_s = options.seconds + 120
    try:
        with (
            tempfile.TemporaryDirectory(prefix="holdfast-endurance-") as sim_folder,
            start_simulator(
                Path(sim_folder),
                bus=options.bus,
                baud=options.baud,
                seed=options.seed,
                camera_fps=CAMERA_FPS,
                wire_log=wire_log,
            ) as simulator,
        ):
            task = simulator.truth.reset(options.seed, "touch", "red")
            command = [
                sys.executable, "-m", "holdfast.runtime.cli", str(bundle), "--task", task,
                "--camera", simulator.camera_url, "--arm", simulator.arm_url, "--robot", str(robot),
                "--control-hz", f"{options.control_hz:g}", "--duration", f"{options.seconds:g}",
                "--on-stop", "exit", "--events", str(events), "--report", str(written),
            ]  # fmt: skip
            deadline = time.monotonic() + most_s
            with (
                cyclictest_beside(
                    folder / "cyclictest.json", most_s, PRIORITY, round(0.9973e6 / options.control_hz)
                ) as latency,
                vla_run(command, folder / "vla-run.log", folder) as process,
            ):
                scene = options.seed
                while process.poll() is None:
                    if time.monotonic() > deadline:
                        raise EnduranceError("vla-run did not come to its end in time; see vla-run.log")
                    time.sleep(SCENE_S)
                    scene += 1
                    simulator.truth.reset(scene, "touch", "red")
                beside = latency.finish() if latency else "cyclictest (package rt-tests) is not installed"
    except SimulatorError as error:
        raise DemoRefused(str(error)) from error
    if process.returncode != 0 or not written.exists():
        raise EnduranceError(f"vla-run ended with exit code {process.returncode}:\n{log_tail(folder)}")
    return json.loads(written.read_text()), beside


def write_robot(folder: Path, baud: int) -> Path:
    """The simulated arm's robot file with another baud rate, in the folder."""
    import yaml

    from ..drivers.robots.schema import FOLDER as ROBOTS

    content = yaml.safe_load((ROBOTS / "sim_arm.yaml").read_text())
    content["bus"]["baud"] = baud
    content["calibration"] = str(ROBOTS / content["calibration"])
    path = folder / "sim_arm.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def judge(report: dict[str, Any], beside: Lateness | str, options: EnduranceOptions) -> list[Row]:
    """Each bound beside what was measured. Ages are those of the observation (the frame's stamp)."""
    from .demo_report import Row

    stages, deadlines, rates = report["stages"], report["deadlines"], report["rates"]
    period_ms, frame_ms = 1e3 / options.control_hz, 1e3 / CAMERA_FPS
    inference_ms = stages["session_run"]["p50_ms"]
    rows = [
        Row("control rate", f"{rates['average_hz']:.2f} Hz, worst second {rates['worst_second_hz']:.0f} Hz"),
        Row("load of the machine, last minute", f"{report['environment']['load_average'][0]:.1f}"),
        Row(
            "inference (session.run) p50 / p99",
            f"{inference_ms:.1f} / {stages['session_run']['p99_ms']:.1f} ms",
        ),
    ]
    missed, wake = deadlines["missed_fraction"], stages["wake_late"]
    slots = f"{deadlines['missed']} of {deadlines['ticks']} = {missed:.3%}"
    if isinstance(beside, str):
        rows.append(Row("missed slots", slots, f"not judged: {beside}", False))
    else:
        allowed = beside.missed_share + MAX_EXTRA_MISSED
        rows.append(Row("missed slots", slots, f"<= {allowed:.3%}", missed <= allowed))
        rows.append(Row("  cyclictest missed", f"{beside.missed_share:.3%} (of {beside.count} wake-ups)"))
        bound = MAX_WAKE_RATIO * beside.p99_us
        text = f"{wake['p99_ms'] * 1e3:.0f} us (p50 {wake['p50_ms'] * 1e3:.0f})"
        rows.append(Row("wake-up lateness p99", text, f"<= {bound:.0f} us", wake["p99_ms"] * 1e3 <= bound))
        rows.append(Row("  cyclictest p99", f"{beside.p99_us:.0f} us (p50 {beside.p50_us:.0f})"))
    by = deadlines["missed_by"]
    rows.append(
        Row("  by reason", f"{by['woke_late']} woke late, {by['tick_overran']} after a tick that ran over")
    )
    slack_ms = frame_ms + FIRST_USE_PERIODS * period_ms
    for stage, text, bound in (
        ("chunk_age", "age at a chunk's first use p50", inference_ms + slack_ms),
        ("action_age", "age over executed actions p50", ACTION_INFERENCES * inference_ms + slack_ms),
    ):
        age = stages[stage]["p50_ms"]
        rows.append(
            Row(text, f"{age:.1f} ms (p99 {stages[stage]['p99_ms']:.0f})", f"<= {bound:.1f} ms", age <= bound)
        )
    rows.append(Row("chunks run out / rejected", f"{deadlines['starved']} / {deadlines['rejected_chunks']}"))
    rows.append(Row("protective stops", str(len(report["stops"])), "0", not report["stops"]))
    return rows


def passed(rows: list[Row]) -> bool:
    return all(row.ok is not False for row in rows)
