"""The rows of `test_peers_failures` about LeRobot and tether."""

from __future__ import annotations

import math
from typing import Any

import pytest

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.units import JointUnits
from holdfast.runtime.bundle.schema import ClosedVocabulary
from holdfast.runtime.control import chain
from holdfast.runtime.control.config import core_config
from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.executor import Target
from holdfast.runtime.control.gate import FeetechGate, GateDenied, GatePhase
from holdfast.runtime.control.gate_table import feetech_table
from holdfast.runtime.control.smoother import LOOKAHEAD_S, Motion, SmootherError
from holdfast.runtime.control.state import Condition, Inbox
from holdfast.runtime.envelope import decode
from holdfast.runtime.exit_codes import ExitCode
from holdfast.runtime.histogram import WINDOW_S, Recorder
from holdfast.runtime.messages import MessageError, Phase
from holdfast.runtime.policy.words import InstructionError, encode_words

from .house import ROOT, closure, modules, within
from .peers_bench import comes_to_rest, running
from .runtime.control.test_core import HERE
from .runtime.control.world import MS, Bench, chunk, config

# LeRobot


def test_nan_is_no_limit() -> None:
    """Nowhere on its way to the bus does it become a number."""
    settings = config()
    wanted = Target((math.nan, 0.0, 50.0), (0.0, 0.0, 0.0))
    target = chain.clamp_target(wanted, (0.0, 0.0, 50.0), settings).target
    assert math.isnan(target.position[0])
    smoother = ControlCore(settings).smoother
    with pytest.raises(SmootherError):
        smoother.toward(Motion.at_rest(HERE), target.position, target.velocity, LOOKAHEAD_S)
    robot = load_robot("sim_arm")
    units = JointUnits(robot, find_calibration(robot))
    start = [joint.start for joint in robot.joints]
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=r"finite|NaN|nan|inf"):
            units.to_ticks([value, *start[1:]])


@pytest.mark.parametrize("name", ["sim_arm", "so100", "so101"])
def test_limits_are_not_optional(name: str) -> None:
    robot = load_robot(name)
    settings = core_config(
        robot, JointUnits(robot, find_calibration(load_robot("sim_arm"))), control_hz=None, chunk_steps=8,
        chunk_dt_ns=50 * MS,
    )  # fmt: skip
    for limits in (settings.lead, settings.following_error, settings.first_step, *_kinematic(settings)):
        assert len(limits) == len(robot.joints)
        assert all(0 < value < math.inf for value in limits)


def _kinematic(settings: Any) -> tuple[tuple[float, ...], ...]:
    return settings.kinematic.velocity, settings.kinematic.acceleration, settings.kinematic.jerk


def test_latency_decays() -> None:
    """What is judged is a window: one slow inference an hour ago is not held against the policy."""
    recorder = Recorder("session_run", budget_ns=50 * MS)
    recorder.add(900 * MS)
    assert recorder.second().window_over == 1
    newest = recorder.second()
    for _ in range(WINDOW_S):
        recorder.add(10 * MS)
        newest = recorder.second()
    assert (newest.window_over, newest.over, newest.max_ns) == (0, 1, 900 * MS)


def test_no_pickle() -> None:
    """What would run code when it is read is no message; and nobody from elsewhere can send one."""
    payload = b"\x80\x04cos\nsystem\n\x94\x8c\x04true\x94\x85\x94R\x94."
    with pytest.raises(MessageError):
        decode(payload, session=1)
    for module in modules():
        if within(module, "runtime") or within(module, "drivers"):
            assert not {"pickle", "cloudpickle", "dill"} & closure(module).keys(), module


def test_bus_drops() -> None:
    """A sample keeps the stamp that it came with; nothing old passes as fresh."""
    bench = running()
    stamp = bench.state.joint.stamp_ns if bench.state.joint else 0
    for _ in range(5):
        bench.tick(bus=False)
    assert bench.state.joint is not None
    assert bench.state.joint.stamp_ns == stamp
    assert not bench.state.latched
    for _ in range(5):
        bench.tick(bus=False)
    assert bench.stop_code() == "joint_state_stale"


# tether


def test_banner() -> None:
    """Each check that a setpoint meets stands in the list that the banner is printed from, and works."""
    settings = config()
    core = ControlCore(settings)
    names = [name for name, _ in chain.SETPOINT_CHECKS]
    assert {"position", "velocity", "acceleration", "jerk", "stopping distance"} <= set(names)
    beyond = Motion.at_rest((9.0, 0.0, 50.0))
    violation = chain.check_setpoint(Motion.at_rest(HERE), beyond, settings, core.tools)
    assert violation is not None
    gate = FeetechGate()
    robot = load_robot("sim_arm")
    units = JointUnits(robot, find_calibration(robot))
    gate.load(feetech_table(robot, units, [joint.start for joint in robot.joints]))
    gate.phase = GatePhase.RUN
    with pytest.raises(GateDenied):
        gate(bytes([0xFF, 0xFF, 1, 4, 3, 40, 128, 0x4F]))


def test_deadline() -> None:
    """Nothing waits for inference: while none comes, the arm decelerates along its path's end and holds."""
    bench = running()
    bench.run(50)
    assert bench.state.phase == Phase.RUN
    assert "starved" in bench.codes()
    held = bench.setpoints[-1]
    bench.run(50)
    assert bench.setpoints[-1] == pytest.approx(bench.setpoints[-2], abs=1e-9)
    assert abs(bench.setpoints[-1][0] - held[0]) < 0.2
    assert bench.setpoints[-1] != (0.0, 0.0, 0.0)


def test_nan_is_no_zero() -> None:
    bench = running()
    here = bench.setpoints[-1]
    bench.tick(Inbox(conditions=(Condition("non_finite", "element 3 is nan"),)))
    assert bench.stop_code() == "non_finite"
    comes_to_rest(bench)
    assert abs(bench.setpoints[-1][0] - here[0]) < 0.35, "it brakes"
    assert abs(bench.setpoints[-1][1] - here[1]) < 1e-6


@pytest.mark.parametrize("hz", [50, 100, 500])
def test_velocity_is_enforced(hz: int) -> None:
    """By the difference of two setpoints over the time between them."""
    settings = config(dt_ns=round(1e9 / hz))
    core = ControlCore(settings)
    for speed, refused in ((1.9, False), (2.1, True)):
        after = Motion((HERE[0] + speed / hz, *HERE[1:]), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
        violation = chain.check_velocity(Motion.at_rest(HERE), after, settings, core.tools)
        assert (violation is not None) is refused


def test_empty_limits() -> None:
    for name in ("low", "high", "margin", "lead", "following_error", "first_step"):
        with pytest.raises(ValueError, match="empty limits"):
            config(**{name: ()})
    bench = Bench()
    bench.start()
    for number in range(1, 80):
        far = [(100.0, 100.0, 1e6)] * 8
        bench.tick(Inbox(chunk=chunk(far, chunk_id=number, observation_ns=bench.now_ns)))
    assert max(point[0] for point in bench.setpoints) <= 1.0
    assert max(point[1] for point in bench.setpoints) <= 1.5


def test_instruction() -> None:
    words = ClosedVocabulary(kind="words", words={"touch": 1, "the": 2, "cube": 3}, length=4, pad=0)
    assert encode_words("touch the cube", words).tolist() == [[1, 2, 3, 0]]
    with pytest.raises(InstructionError, match="5 words; the policy takes at most 4"):
        encode_words("touch the cube the cube", words)
    for unknown in ("touch the sphere", ""):
        with pytest.raises(InstructionError):
            encode_words(unknown, words)


def test_no_network() -> None:
    """The run path talks to its own processes, its arm and its cameras. Nothing asks anybody else."""
    banned = {
        "requests",
        "urllib.request",
        "http.server",
        "socketserver",
        "huggingface_hub",
        "wandb",
        "httpx",
    }
    for module in modules():
        if within(module, "runtime"):
            reached = {name for name in closure(module) if any(within(name, other) for other in banned)}
            assert not reached, f"{module} reaches {reached}"
    for path in (ROOT / "runtime").rglob("*.py"):
        assert "AF_INET" not in path.read_text(), path


def test_exit_codes() -> None:
    assert ExitCode.FINISHED == 0
    failures = [code for code in ExitCode if code != ExitCode.FINISHED]
    assert len(failures) >= 4
    assert all(code != 0 for code in failures)
