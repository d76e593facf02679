"""The loop of physicalai 0.3.0 and ours, one after the other on this machine, with the same inference load.

physicalai (Intel's OpenVINO Physical AI, Apache-2.0) is run as it is released: `RobotRuntime` at 100 Hz
with a `PolicySource`, its `InferenceModel` on its ONNX adapter, and both of its executions for such policies.
It gets a virtual environment of its own under --output (about 700 MB, installed on the first call).

What is the same: the added work of an inference, on one thread of ONNX Runtime without spinning; a camera of
30 pictures a second which are there 6 ms after their stamp; chunks of 0.8 s. What is not: its robot and its
camera cost nothing, and it is timed where `send_action` is called. Ours drives the simulated arm: it reads
six motors at every tick (1.4 ms of wire), decodes MJPEG, and is timed where the goals reach the motors.

Exit codes: 0 measured, or skipped because the package cannot be installed here (which is said); 1 a run
failed; 2 unusable input; 3 the simulated arm cannot be started."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...runtime.arguments import number

if TYPE_CHECKING:
    from onnx import ModelProto

PACKAGE = "physicalai==0.3.0"
FOLDER = Path("runs/peers")
HZ = 100.0
MODES = ("sync", "async", "async, inference without pause")
"""Of `physicalai_worker.MODES`."""
STEPS, JOINTS, SIDE = 80, 6, 96
"""Of its chunks: one action per tick, so 80 of them last 0.8 s as the demo policy's 16 do."""
SETTLED_S = 2.0
"""What is left out at the beginning of a run."""
LATE_S = 0.0005
GOALS = bytes((0xFF, 0xFF, 0xFE, 3 * JOINTS + 4, 0x83, 42, 2))
"""How a frame with goals for all motors begins (sync write of two bytes from register 42)."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one loop kept its rate, and how old the pictures behind its actions were."""

    loop: str
    rate_hz: float
    error_p50_ms: float
    error_p99_ms: float
    """Of the time from one action to the next, less 10 ms."""
    late_share: float
    """Share of actions that came more than 10.5 ms after the one before."""
    age_p50_ms: float
    age_p99_ms: float
    inference_p50_ms: float
    actions: int


class PeerError(Exception):
    """A run failed; the message has the end of its output."""


class Unavailable(Exception):
    """The peer cannot be installed here; the message says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds", type=number(5, 600, unit="s"), default=60.0, help="length of each run (default 60)"
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
        "--bundle", type=Path, help="pad this exported bundle instead of exporting the demo's"
    )
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="DIR", help=f"default {FOLDER}")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def main(args: argparse.Namespace) -> int:
    from ...runtime.bundle.errors import BundleError
    from ..demo_run import DemoError, claimed
    from ..endurance import EnduranceError

    folder = args.output.absolute()
    low, high = args.inference_ms
    try:
        with claimed(folder):
            policy = write_policy(folder / "policy", low, high)
            python = environment(folder / PACKAGE.replace("==", "-"))
            results = [run_peer(python, policy, mode, args.seconds, folder) for mode in MODES]
            results.append(run_ours(folder, args.bundle, args.seconds, (low, high), quiet=args.json))
    except Unavailable as error:
        print(json.dumps({"skipped": str(error)}) if args.json else f"skipped: {error}")
        return 0
    except (DemoError, BundleError) as error:
        print(f"vla-bench peers: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, DemoError) else 2
    except (PeerError, EnduranceError) as error:
        print(f"vla-bench peers: {error}", file=sys.stderr)
        return 1
    document = {"benchmark": "peers", "peer": PACKAGE, "results": [asdict(result) for result in results]}
    (folder / "summary.json").write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document, indent=2) if args.json else "\n".join(table(results)))
    return 0


def environment(folder: Path) -> Path:
    """The Python of the peer's own environment, made and filled where it is not there yet.

    Raises `Unavailable`.
    """
    python, ready = folder / "bin" / "python", folder / ".ready"
    if ready.exists():
        return python
    print(f"installing {PACKAGE} into {folder} (about 700 MB)", file=sys.stderr, flush=True)
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", PACKAGE],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise Unavailable(f"{PACKAGE} cannot be installed: {said[-1] if said else 'it does not say why'}")
    ready.touch()
    return python


def write_policy(folder: Path, low_ms: float, high_ms: float) -> Path:
    """A policy package of the peer's format, whose actions are the stamp in the picture's first pixel."""
    from ..padded_bundle import padded_graph, products_for

    model = stamp_model()
    feed = {
        "state": np.zeros((1, JOINTS), np.float32),
        "images": np.zeros((1, SIDE, SIDE, 3), np.uint8),
    }
    fewest, most = products_for(model, "action", feed, low_ms, high_ms)
    folder.mkdir(exist_ok=True)
    (folder / "policy.onnx").write_bytes(padded_graph(model, "action", fewest, most, 0))
    manifest = {
        "format": "policy_package",
        "version": "1.0",
        "policy": {"name": "policy"},
        "model": {"artifacts": {"onnx": "policy.onnx"}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def stamp_model() -> ModelProto:
    """`images` [1, h, w, 3] and `state` in, `action` [1, steps, joints] out: all of them the 24-bit number
    that the three channels of the first pixel hold, the lowest byte first."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "first": np.zeros(4, np.int64),
        "end": np.array([1, 1, 1, 3], np.int64),
        "weights": np.array([1, 256, 65536], np.float32).reshape(1, 1, 1, 3),
        "shape": np.ones(3, np.int64),
        "chunk": np.ones((1, STEPS, JOINTS), np.float32),
    }
    nodes = [
        helper.make_node("Slice", ["images", "first", "end"], ["pixel"]),
        helper.make_node("Cast", ["pixel"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["levels", "weights"], ["parts"]),
        helper.make_node("ReduceSum", ["parts"], ["sum"]),
        helper.make_node("Reshape", ["sum", "shape"], ["stamp"]),
        helper.make_node("Mul", ["chunk", "stamp"], ["action"]),
    ]
    graph = helper.make_graph(
        nodes,
        "stamp",
        [
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, JOINTS]),
            helper.make_tensor_value_info("images", TensorProto.UINT8, [1, SIDE, SIDE, 3]),
        ],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, [1, STEPS, JOINTS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run_peer(python: Path, policy: Path, mode: str, seconds: float, folder: Path) -> Result:
    """One run of the peer's loop. Raises `PeerError`."""
    script, output = Path(__file__).with_name("physicalai_worker.py"), folder / "peer.json"
    output.unlink(missing_ok=True)
    command = [
        str(python),
        str(script),
        str(policy),
        mode,
        f"{seconds + SETTLED_S:g}",
        f"{HZ:g}",
        str(output),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10 * seconds + 60)
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"physicalai, {mode}: did not come to its end") from error
    if done.returncode != 0 or not output.exists():
        raise PeerError(f"physicalai, {mode}: ended with {done.returncode}:\n{done.stderr[-2000:]}")
    content = json.loads(output.read_text())
    sent, stamps = np.array(content["sent"]).T
    kept = sent > sent[0] + SETTLED_S
    ages_ms = np.percentile((sent - stamps)[kept], [50, 99]) * 1e3
    inference_ms = float(np.median(content["inference_s"])) * 1e3
    return result(f"{PACKAGE.replace('==', ' ')}, {mode}", sent[kept], ages_ms.tolist(), inference_ms)


def run_ours(
    folder: Path, given: Path | None, seconds: float, inference_ms: tuple[float, float], *, quiet: bool
) -> Result:
    """Ours, as `vla-bench endurance` runs it; timed by the bytes on the simulated motor bus."""
    from ...drivers.simulated.wire_log import read_wire_log
    from ..demo_run import export_demo, given_bundle
    from ..endurance import EnduranceOptions, run
    from ..padded_bundle import pad_bundle

    source = given_bundle(given) if given else export_demo(folder, quiet=quiet)
    bundle = pad_bundle(source, folder / "padded.vla", *inference_ms, replace=True)
    options = EnduranceOptions(seconds, inference_ms, HZ, "socket", 1_000_000, 0)
    log = folder / "wire.log"
    report, _ = run(bundle, folder, options, log)
    task, stages = report["tasks"][0], report["stages"]
    begin_ns, end_ns = task["start_ns"] + SETTLED_S * 1e9, task["end_ns"]
    sent_ns = [
        record.stamp_ns
        for record in read_wire_log(log)
        if record.from_host and GOALS in record.data and begin_ns < record.stamp_ns < end_ns
    ]
    ages_ms = [stages["action_age"]["p50_ms"], stages["action_age"]["p99_ms"]]
    return result("Holdfast", np.array(sent_ns) * 1e-9, ages_ms, stages["session_run"]["p50_ms"])


def result(
    loop: str, sent_s: NDArray[np.floating], ages_ms: Sequence[float], inference_p50_ms: float
) -> Result:
    """The figures of a run from the times (s) at which its actions were sent."""
    periods = np.diff(sent_s)
    errors_ms = np.percentile(np.abs(periods - 1 / HZ), [50, 99]) * 1e3
    return Result(
        loop=loop,
        rate_hz=float(len(periods) / (sent_s[-1] - sent_s[0])),
        error_p50_ms=float(errors_ms[0]),
        error_p99_ms=float(errors_ms[1]),
        late_share=float(np.mean(periods > 1 / HZ + LATE_S)),
        age_p50_ms=ages_ms[0],
        age_p99_ms=ages_ms[1],
        inference_p50_ms=inference_p50_ms,
        actions=len(sent_s),
    )


def table(results: Sequence[Result]) -> list[str]:
    lines = [
        f"{'':<50}{'rate':>9}{'period error ms':>18}{'late':>8}{'age of actions ms':>24}{'inference':>11}",
        f"{'':<50}{'Hz':>9}{'p50':>9}{'p99':>9}{'':>8}{'p50':>12}{'p99':>12}{'p50 ms':>11}",
    ]
    for row in results:
        lines.append(
            f"{row.loop:<50}{row.rate_hz:>9.2f}{row.error_p50_ms:>9.2f}{row.error_p99_ms:>9.2f}"
            f"{row.late_share:>8.2%}{row.age_p50_ms:>12.0f}{row.age_p99_ms:>12.0f}{row.inference_p50_ms:>11.0f}"
        )
    return lines
