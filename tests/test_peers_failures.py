"""What goes wrong in the tools of today, each failure as a case that ours must pass, in its own words.

Each row names the test here, and where the same is shown with the whole system. The tests run the real core,
gate, cameras, clock, codecs and bundle reader; nothing here depends on time passing.
"""

from __future__ import annotations

import math
import re
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.cameras.source import Picture
from holdfast.drivers.cameras.threaded import ThreadedCamera
from holdfast.drivers.errors import ConfigError
from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.types import StampSource
from holdfast.drivers.units import JointUnits
from holdfast.runtime.control.clock import Grid
from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.gate import FeetechGate, GateDenied, GatePhase
from holdfast.runtime.control.gate_table import feetech_table
from holdfast.runtime.control.state import Condition, Inbox
from holdfast.runtime.messages import Phase, Stop
from holdfast.runtime.policy.cameras_in import Cameras, FrameFault, FrameLimits

from . import test_peers_failures_of_bundles, test_peers_failures_of_servers
from .house import ROOT
from .peers_bench import comes_to_rest, running
from .runtime.control.test_core import HERE, ramp
from .runtime.control.world import MS, Bench, arm, chunk, config
from .runtime.policy.test_cameras_in import LIMITS, ScriptedCamera
from .runtime.policy.test_loop import Rig
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
    Row("physicalai", "NaN chunk", "NaN commands sent", "nan_chunk",
        f"{FAULTS}::test_an_output_of_nan"),
    Row("physicalai", "NaN chunk, uncalibrated arm", "all joints are driven to tick 0, exit 0",
        "nan_uncalibrated", f"{FAULTS}::test_no_calibration"),
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
    Row("tether", "a missing dependency", "empties the limits", "missing_dependency"),
    Row("tether", "empty limits", "100 rad passes as safe", "empty_limits"),
    Row("tether", "instruction", "truncated at 16 tokens; without tokenizer no effect", "instruction",
        f"{FAULTS}::test_an_unknown_word_in_the_instruction"),
    Row("tether", "first run", "telemetry, binds 0.0.0.0, hangs offline in hub retries", "no_network",
        "tests/runtime/test_network_e2e.py::test_a_run_talks_to_its_camera_and_to_nobody_else"),
    Row("tether", "first run", "failures with exit code 0", "exit_codes", f"{FAULTS}::test_missing_camera"),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.tool}: {row.test}")
def test_every_row_has_its_test(row: Row) -> None:
    rooms = (globals(), vars(test_peers_failures_of_bundles), vars(test_peers_failures_of_servers))
    assert sum(callable(room.get(f"test_{row.test}")) for room in rooms) == 1
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


def test_nan_uncalibrated(tmp_path: Path) -> None:
    """No torque without a calibration; and with one, what is no number is no tick, and not tick 0."""
    robot = load_robot("so101")
    with pytest.raises(ConfigError, match="Without one no torque is given"):
        find_calibration(robot, environ={"HF_LEROBOT_CALIBRATION": str(tmp_path)})
    with pytest.raises(ConfigError, match="does not exist"):
        find_calibration(robot, tmp_path / "nothing.json")
    units = JointUnits(robot, find_calibration(load_robot("sim_arm")))
    start = [joint.start for joint in robot.joints]
    table = feetech_table(robot, units, start)
    for joint, motor_id in enumerate(robot.motor_ids):
        with pytest.raises(ValueError, match="nan"):
            units.to_ticks([math.nan if i == joint else value for i, value in enumerate(start)])
        gate = FeetechGate()
        gate.load(table)
        gate.phase = GatePhase.RUN
        to_zero = bytes([motor_id, 5, 3, 42, 0, 0])
        with pytest.raises(GateDenied, match="0 to register 42"):
            gate(b"\xff\xff" + to_zero + bytes([~sum(to_zero) & 0xFF]))


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
    """A source that delivers one picture and then blocks, as a V4L2 device does: whoever asks it to end."""

    def __init__(self, over: threading.Event) -> None:
        self._over = over
        self._delivered = False

    def open(self) -> None:
        pass

    def read(self, halt: threading.Event) -> Picture | None:
        if self._delivered:
            self._over.wait(60)
            return None
        self._delivered = True
        image = np.linspace(0, 255, 48, dtype=np.uint8).reshape(4, 4, 3)
        return Picture(image, 5 * MS, StampSource.KERNEL, 5 * MS)

    def close(self) -> None:
        pass


def test_camera_stall() -> None:
    """The loop waits as long as it wants to, not as long as the device does; then the age is a stop."""
    over = threading.Event()
    camera = ThreadedCamera("front", "stalled", lambda: Stalled(over))
    cameras = Cameras({"front": camera}, FrameLimits(300 * MS, 300 * MS, 5, 4.0))
    cameras.start()
    try:
        assert cameras.next(0.01, 6 * MS) is not None
        begun = time.monotonic()
        for i in range(20):
            assert cameras.next(0.01, (7 + i) * MS) is None
        took_s = time.monotonic() - begun
        assert took_s < 20 * 0.1, "not 2 s per tick"
        with pytest.raises(FrameFault) as caught:
            cameras.next(0.01, 400 * MS)
        assert caught.value.code == "frame_age"
        assert not over.is_set(), "the device blocks all this time"
    finally:
        over.set()
        cameras.close()
    bench = running()
    bench.tick(Inbox(conditions=(Condition(caught.value.code, str(caught.value)),)))
    assert bench.stop_code() == "frame_age"
    comes_to_rest(bench)


def test_inference_hangs() -> None:
    """The heartbeat comes from the loop that infers: while the backend does not return, control hears
    nothing. What the real loop sent in each 10 ms is what the real core hears in its tick."""
    rig, over = Rig(), threading.Event()
    try:
        rig.start()
        bench = running()
        bench.beats = False
        hanging = threading.Event()

        def hang() -> None:
            hanging.set()
            over.wait(60)

        rig.session.meanwhile = hang
        rig.until(hanging.is_set)
        rig.turn()
        ticks = 0
        while not bench.state.latched:
            rig.from_control.clear()
            rig.turn()
            bench.tick(Inbox(heard_supervisor=True, heard_policy=bool(rig.from_control)))
            ticks += 1
            assert ticks < 60, "the policy was heard although it hangs"
        assert not over.is_set()
        assert bench.stop_code() == "policy_silent"
        comes_to_rest(bench)
    finally:
        over.set()
        rig.close()


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
