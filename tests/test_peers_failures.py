"""What goes wrong in the tools of today, each failure as a case that ours must pass, in its own words.

Each row names the test here, and where the same is shown with the whole system. The tests run the real core,
gate, cameras, clock, codecs and bundle reader; nothing here depends on time passing.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from holdfast.drivers.cameras.source import Picture
from holdfast.drivers.cameras.threaded import ThreadedCamera
from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.types import StampSource
from holdfast.runtime.bundle.contract import check_contract
from holdfast.runtime.bundle.errors import BundleError
from holdfast.runtime.bundle.reading import load_bundle, sum_line
from holdfast.runtime.bundle.writing import write_bundle
from holdfast.runtime.control.clock import Grid
from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.state import Condition, Inbox
from holdfast.runtime.messages import Phase, Stop
from holdfast.runtime.policy.cameras_in import Cameras, FrameFault, FrameLimits

from . import test_peers_failures_of_servers
from .house import ROOT
from .peers_bench import comes_to_rest, running
from .runtime.bundle.conftest import FILES, make_spec
from .runtime.control.test_core import HERE, ramp
from .runtime.control.world import MS, Bench, arm, chunk, config
from .runtime.policy.test_cameras_in import LIMITS, ScriptedCamera
from .runtime.test_sequence import Play, S

FAULTS = "tests/runtime/test_faults_e2e.py"


class Row(NamedTuple):
    """One failure."""

    tool: str
    fault: str
    what_it_does: str
    test: str
    whole: str = ""
    """file::test with the real processes, where there is one."""


ROWS = (
    Row("physicalai", "NaN chunk", "NaN commands sent; uncalibrated: to tick 0, exit 0", "nan_chunk",
        f"{FAULTS}::test_an_output_of_nan"),
    Row("physicalai", "target far from rest", "sent whole in the first write", "target_far_from_rest"),
    Row("physicalai", "camera error", "stale frame for ever", "camera_error",
        f"{FAULTS}::test_a_camera_that_fails"),
    Row("physicalai", "frozen camera", "re-stamps an old frame with the current time", "frozen_camera",
        f"{FAULTS}::test_a_camera_that_fails"),
    Row("physicalai", "V4L2 stall", "the read blocks the loop 2 s per tick", "camera_stall"),
    Row("physicalai", "inference hangs", "holds the last action for ever; the watchdog only logs",
        "inference_hangs", f"{FAULTS}::test_a_policy_process_that_hangs"),
    Row("physicalai", "motor power lost", "never aborts, exit 0", "motor_power_lost",
        "tests/runtime/control/test_process.py::test_a_fault_of_the_arm_is_a_latched_stop"),
    Row("physicalai", "SIGTERM, SIGHUP", "instant death; the arm finishes its last goal, torque on",
        "asked_to_end", f"{FAULTS}::test_a_signal_stops_parks_and_releases"),
    Row("physicalai", "SIGKILL", "the arm finishes its last goal at full speed, torque on", "killed",
        f"{FAULTS}::test_kill_9_of_the_control_process"),
    Row("physicalai", "RTC with 60 ms inference", "starts inference on observations over a second old",
        "old_observations"),
    Row("physicalai", "overrun", "nothing: the sleep is skipped", "overrun"),
    Row("physicalai", "overrun", "duration_s counts steps (8 s ran 9.9 s)", "duration"),
    Row("physicalai", "bundle", "unknown version accepted, names ignored, no hashes, order unchecked",
        "bundle", f"{FAULTS}::test_one_flipped_byte_in_the_bundle"),
    Row("physicalai", "bundle", "class_path in the manifest executes code", "bundle_executes_nothing",
        "tests/test_architecture.py::test_nothing_executes_data"),
    Row("LeRobot", "NaN", "commands a LIMIT: clip the upper one, packing full scale", "nan_is_no_limit"),
    Row("LeRobot", "max_relative_target", "off by default; lets NaN pass", "limits_are_not_optional"),
    Row("LeRobot", "LatencyTracker.max()", "never decays", "latency_decays"),
    Row("LeRobot", "remote inference", "unauthenticated pickle", "no_pickle",
        "tests/test_architecture.py::test_nothing_executes_data"),
    Row("LeRobot", "bus drops", "reuse the last state silently", "bus_drops"),
    Row("tether", "--safety-config and --deadline-ms", "silently ignored; the banner shows them", "banner"),
    Row("tether", "deadline", "checked after blocking inference, then the old chunk or zeros", "deadline"),
    Row("tether", "NaN", "becomes a chunk of zeros: go to the zero pose", "nan_is_no_zero",
        f"{FAULTS}::test_an_output_of_nan"),
    Row("tether", "velocity limits", "stored and never enforced, later without dt", "velocity_is_enforced"),
    Row("tether", "a missing dependency", "empties the limits and 100 rad passes as safe", "empty_limits"),
    Row("tether", "instruction", "truncated at 16 tokens; without tokenizer no effect", "instruction",
        f"{FAULTS}::test_an_unknown_word_in_the_instruction"),
    Row("tether", "first run", "telemetry, binds 0.0.0.0, hangs offline in hub retries", "no_network"),
    Row("tether", "first run", "failures with exit code 0", "exit_codes", f"{FAULTS}::test_missing_camera"),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.tool}: {row.test}")
def test_every_row_has_its_test(row: Row) -> None:
    room = globals() if row.tool == "physicalai" else vars(test_peers_failures_of_servers)
    assert callable(room[f"test_{row.test}"])
    if row.whole:
        file, name = row.whole.split("::")
        assert re.search(rf"^def {name}\b", (ROOT / file).read_text(), re.MULTILINE), row.whole


# physicalai


def test_nan_chunk() -> None:
    bench = running()
    bench.tick(Inbox(chunk=chunk([(math.nan,) * 3] * 8, chunk_id=2, observation_ns=bench.now_ns)))
    assert bench.stop_code() == "chunk_bad"
    comes_to_rest(bench)
    assert all(map(math.isfinite, (value for point in bench.setpoints for value in point)))
    assert bench.setpoints[-1] != (0.0, 0.0, 0.0)


def test_target_far_from_rest() -> None:
    far = [(0.9, 1.4, 90.0)] * 8
    careful = Bench(ControlCore(config(first_step=(0.3, 0.3, 101.0))))
    careful.start()
    careful.tick(Inbox(chunk=chunk(far, chunk_id=1, observation_ns=careful.now_ns)))
    assert careful.stop_code() == "chunk_far", "the first chunk of a task begins near the arm"
    assert set(careful.setpoints) == {HERE}
    bench = Bench()
    bench.start()
    for number in range(1, 40):
        bench.tick(Inbox(chunk=chunk(far, chunk_id=number, observation_ns=bench.now_ns)))
    steps = [abs(b[0] - a[0]) for a, b in pairwise([HERE, *bench.setpoints])]
    assert steps[0] < 0.001, "it begins gently"
    assert max(steps) <= 2.0 * 0.01 * 1.001, "and is never faster than its limit"


def test_camera_error() -> None:
    camera = ScriptedCamera("front")
    cameras = Cameras({"front": camera}, LIMITS)
    camera.put(1, 0)
    assert cameras.next(0.0, MS) is not None
    assert cameras.next(0.0, 2 * MS) is None, "no picture is given twice"
    camera.lost = True
    with pytest.raises(FrameFault) as caught:
        cameras.next(0.0, 3 * MS)
    assert caught.value.code == "camera_lost"
    bench = running()
    bench.tick(Inbox(conditions=(Condition(caught.value.code, str(caught.value)),)))
    assert bench.stop_code() == "camera_lost"
    comes_to_rest(bench)


def test_frozen_camera() -> None:
    camera = ScriptedCamera("front")
    cameras = Cameras({"front": camera}, LIMITS)

    def with_new_stamps() -> None:
        for i in range(1, 30):
            camera.put(i, i * 33.3, digest=7)
            cameras.next(0.0, int(i * 33.3 * MS))

    with pytest.raises(FrameFault) as caught:
        with_new_stamps()
    assert caught.value.code == "frozen_camera"


class Stalled:
    """A source that delivers one picture and then blocks, as a V4L2 device does for seconds."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._delivered = False

    def open(self) -> None:
        pass

    def read(self, halt: threading.Event) -> Picture | None:
        if self._delivered:
            halt.wait(20)
            return None
        self._delivered = True
        now = self._clock()
        image = np.linspace(0, 255, 48, dtype=np.uint8).reshape(4, 4, 3)
        return Picture(image, now, StampSource.KERNEL, now)

    def close(self) -> None:
        pass


def test_camera_stall() -> None:
    """The loop waits as long as it wants to, not as long as the device does; then the age is a stop."""
    camera = ThreadedCamera("front", "stalled", lambda: Stalled(lambda: 5 * MS))
    cameras = Cameras({"front": camera}, FrameLimits(300 * MS, 300 * MS, 5, 4.0))
    cameras.start()
    try:
        assert cameras.next(0.01, 6 * MS) is not None
        assert cameras.next(0.01, 7 * MS) is None
        with pytest.raises(FrameFault) as caught:
            cameras.next(0.01, 400 * MS)
        assert caught.value.code == "frame_age"
    finally:
        cameras.close()


def test_inference_hangs() -> None:
    """The heartbeat comes from the loop that infers, so a loop that hangs falls silent."""
    bench = running()
    bench.beats = False
    for _ in range(35):
        bench.tick(Inbox(heard_supervisor=True))
    assert bench.stop_code() == "policy_silent"
    assert bench.state.latched


def test_motor_power_lost() -> None:
    bench = running()
    ticks = 0
    while not bench.state.latched:
        bench.tick(bus=False)
        ticks += 1
    assert bench.stop_code() == "joint_state_stale"
    assert ticks <= 9, "80 ms are allowed"
    for _ in range(100):
        bench.tick(bus=False)
    written = len(bench.setpoints)
    bench.arm_at = (0.9, 1.2, 0.0)
    bench.run(50)
    assert len(bench.setpoints) == written, "an arm whose power returns is not sent to where it was"


@pytest.mark.parametrize("signals", [1, 2])
def test_asked_to_end(signals: int) -> None:
    """The first signal stops, parks and releases; a second one stops here."""
    bench = running()
    finish = bench.tick(Inbox(quit="park")).finish
    if signals == 2:
        bench.run(40)
        finish = bench.tick(Inbox(quit="here")).finish
    while finish is None:
        finish = bench.tick().finish
    assert finish == ("release" if signals == 1 else "hold")
    assert (bench.setpoints[-1][:2] == pytest.approx((0.0, -0.5), abs=2e-3)) is (signals == 1)
    assert max(abs(b[0] - a[0]) for a, b in pairwise(bench.setpoints)) <= 2.0 * 0.01 * 1.001


def test_killed() -> None:
    """Whenever control dies: the goal that stays in the motors is at most `lead` ahead of the arm."""
    bench = Bench(arm_follows=False)
    bench.start()
    for number in range(1, 60):
        bench.tick(Inbox(chunk=chunk([(0.9, 1.4, 60.0)] * 8, chunk_id=number, observation_ns=bench.now_ns)))
    for point in bench.setpoints:
        assert abs(point[0] - HERE[0]) <= 0.3 + 1e-6
        assert abs(point[1] - HERE[1]) <= 0.3 + 1e-6


def test_old_observations() -> None:
    camera = ScriptedCamera("front")
    cameras = Cameras({"front": camera}, LIMITS)
    camera.put(1, 0)
    frames = cameras.next(0.0, MS)
    assert frames is not None
    with pytest.raises(FrameFault, match="1001 ms old"):
        cameras.check_age(frames, 1001 * MS)
    bench = Bench()
    bench.start()
    old = chunk(ramp(0.4), chunk_id=1, observation_ns=bench.now_ns - 1000 * MS)
    bench.tick(Inbox(chunk=old))
    assert bench.stop_code() == "chunk_stale", "also where it comes from elsewhere"


def test_overrun() -> None:
    """Slots that have passed are counted and skipped; the grid stays where it was."""
    now = [0]

    def sleep(seconds: float) -> None:
        now[0] += round(seconds * 1e9)

    grid = Grid(10 * MS, clock=lambda: now[0], sleep=sleep)
    assert grid.wait().slot_ns == 10 * MS
    now[0] += 37 * MS
    wake = grid.wait()
    assert (wake.slot_ns, wake.missed_overrun) == (50 * MS, 3)
    assert grid.wait().slot_ns == 60 * MS, "nothing is caught up"
    bench = running()
    bench.tick(Inbox(slots_late=5))
    assert bench.stop_code() == "missed_in_a_row"


def test_duration() -> None:
    """Of wall time, whatever the number of steps: half the rate, the same number of seconds."""
    for steps_a_second in (1, 50):
        play = Play(duration_s=8.0).run()
        begun = play.now
        while not any(isinstance(getattr(action, "message", None), Stop) for action in play.actions):
            play.wait(1 / steps_a_second)
            assert play.now - begun < 12 * S
        assert (play.now - begun) / S == pytest.approx(8.0, abs=1.01)


def _edited(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Somebody edits the manifest, and makes its sum fit."""
    content = json.loads((path / "bundle.json").read_text())
    change(content)
    raw = json.dumps(content).encode()
    (path / "bundle.json").write_bytes(raw)
    (path / "bundle.sha256").write_bytes(sum_line(hashlib.sha256(raw).hexdigest()))
    return path


def _other_file(content: dict[str, Any]) -> None:
    content["files"][0]["path"] = "graphs/other.onnx"


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(version=2),
        lambda content: content.update(format="policy_package"),
        _other_file,
        lambda content: content["files"][0].update(sha256="0" * 64),
    ],
)
def test_bundle(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    made = write_bundle(tmp_path / "tiny.vla", make_spec(), FILES)
    spec = load_bundle(made).spec
    robot = load_robot("sim_arm")
    assert all(row.ok for row in check_contract(spec, robot, ["front"]))
    swapped = make_spec()
    for part in ("state", "action"):
        names = [element["name"] for element in swapped[part]["elements"]]
        for element, name in zip(swapped[part]["elements"], reversed(names), strict=True):
            element["name"] = name
    other = load_bundle(write_bundle(tmp_path / "swapped.vla", swapped, FILES)).spec
    assert not all(row.ok for row in check_contract(other, robot, ["front"])), "the order of the joints"
    with pytest.raises(BundleError):
        load_bundle(_edited(made, change))


@pytest.mark.parametrize("key", ["class_path", "runner", "init_args"])
def test_bundle_executes_nothing(tmp_path: Path, key: str) -> None:
    made = write_bundle(tmp_path / "tiny.vla", make_spec(), FILES)

    def names_code(content: dict[str, Any]) -> None:
        content["program"][key] = "os.system"

    with pytest.raises(BundleError, match=key):
        load_bundle(_edited(made, names_code))


def test_a_person_who_arms_again_is_obeyed() -> None:
    """That all of this stops an arm is worth something only where it also runs."""
    bench = running()
    bench.tick(Inbox(conditions=(Condition("camera_lost", "gone"),)))
    bench.run(100)
    bench.tick(Inbox(reset=True))
    bench.tick(Inbox(arm=arm()))
    bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=2, observation_ns=bench.now_ns)))
    bench.run(30)
    assert bench.state.phase == Phase.RUN
