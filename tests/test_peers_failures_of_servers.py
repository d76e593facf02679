"""The rows of `test_peers_failures` about LeRobot and tether."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.feetech.bus import allow_all
from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.units import JointUnits
from holdfast.runtime import cli
from holdfast.runtime.bundle.schema import ClosedVocabulary
from holdfast.runtime.bundle.writing import write_bundle
from holdfast.runtime.channel import Channel, channel_pair
from holdfast.runtime.control import chain, process
from holdfast.runtime.control.arming import Refused
from holdfast.runtime.control.config import core_config
from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.executor import Target
from holdfast.runtime.control.gate import FeetechGate, GateDenied, GatePhase
from holdfast.runtime.control.gate_table import feetech_table
from holdfast.runtime.control.loop import ControlLoop
from holdfast.runtime.control.process import Settings
from holdfast.runtime.control.smoother import LOOKAHEAD_S, Motion, SmootherError
from holdfast.runtime.control.state import Condition, Inbox
from holdfast.runtime.envelope import decode
from holdfast.runtime.exit_codes import AskCode, ExitCode
from holdfast.runtime.histogram import WINDOW_S, Recorder
from holdfast.runtime.messages import MessageError, Phase
from holdfast.runtime.policy.words import InstructionError, encode_words
from holdfast.runtime.verdict import Verdict

from .house import ROOT, closure, modules, within
from .peers_bench import comes_to_rest, running
from .runtime.bundle.conftest import FILES, make_spec
from .runtime.control.shapes import with_body
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


def live_loop(tmp_path: Path) -> ControlLoop:
    """Control as its process builds it for the simulated arm; nothing is opened."""
    channels = [Channel(end, 1) for end in channel_pair()]
    settings = Settings(
        session=1, robot="sim_arm", calibration=str(find_calibration(load_robot("sim_arm")).path),
        arm="serial:/dev/null", control_hz=None, rt="off", dry_run=True, write_gains=False, reset_latch=False,
        state_dir=str(tmp_path), chunk_steps=8, chunk_dt_ns=50 * MS, strategy="newest", ema_s=0.0, cpu=None,
        tool_speed_m_s=0.25,
    )  # fmt: skip
    return process._build(settings, load_robot("sim_arm"), channels[0], channels[1])


def motion(
    position: Any = (0.0, 0.0, 50.0), velocity: Any = (0, 0, 0), acceleration: Any = (0, 0, 0)
) -> Motion:
    return Motion(tuple(position), tuple(velocity), tuple(acceleration))


LOW_HAND, LOWER_HAND = motion((0.0, -0.74, 50.0)), motion((0.0, -0.755, 50.0))
"""Of the arm of `shapes`, whose clearance to the floor ends in between."""
REFUSED = {
    "position": (motion((0.99, 0.0, 50.0)), motion((1.001, 0.0, 50.0)), "position_limit"),
    "velocity": (motion(), motion((0.021, 0.0, 50.0)), "velocity_limit"),
    "acceleration": (motion(), motion(acceleration=(15.1, 0.0, 0.0)), "acceleration_limit"),
    "jerk": (motion(), motion(acceleration=(3.1, 0.0, 0.0)), "jerk_limit"),
    "stopping distance": (
        motion((0.979, 0.0, 50.0), (1.0, 0.0, 0.0)),
        motion((0.989, 0.0, 50.0), (1.0, 0.0, 0.0)),
        "stopping_distance",
    ),
    "tool speed": (motion(), motion((0.005, 0.0, 50.0)), "tool_speed"),
    "distances and workspace": (LOW_HAND, LOWER_HAND, "table_collision"),
}
"""Check -> a step that it must refuse, and by which code."""


@pytest.mark.parametrize("name", [name for name, _ in chain.SETPOINT_CHECKS])
def test_banner(name: str, tmp_path: Path) -> None:
    """What the banner shows is read off the live objects; and each check in it refuses what it should."""
    loop = live_loop(tmp_path)
    shown = process.guards(loop)
    assert f"{name}: checked on every setpoint" in shown
    assert "tool speed: at most 250 mm/s" in shown
    settings = with_body(tool_speed_m_s=0.25 if name == "tool speed" else None)
    before, after, code = REFUSED[name]
    found = chain.check_setpoint(before, after, settings, ControlCore(settings).tools)
    assert found is not None
    assert found.code == code
    alone = dict(chain.SETPOINT_CHECKS)[name](before, after, settings, ControlCore(settings).tools)
    assert alone == found, "it is this check that refuses"
    # A guard that is requested and not attached is no start.
    loop.arm.guard = allow_all  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(Refused, match="gate is not attached"):
        process.guards(loop)


def test_banner_of_the_gate() -> None:
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


@pytest.mark.parametrize("library", ["mujoco", "ruckig"])
def test_missing_dependency(library: str) -> None:
    """Where what the limits need cannot be imported, there is no core: not one without limits."""
    script = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from tests.runtime.control.shapes import with_body\n"
        "from holdfast.runtime.control.core import ControlCore\n"
        "ControlCore(with_body())\n"
        "print('started')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode != 0
    assert "started" not in done.stdout
    assert library in done.stderr.splitlines()[-1].lower()


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


FAILURES = {
    "no such option": (["--safety-config", "x"], ExitCode.USAGE),
    "a value that cannot be": (["b.vla", "--control-hz", "-1"], ExitCode.USAGE),
    "no arm": (["{bundle}", "--camera", "/dev/video97"], ExitCode.USAGE),
    "no serial port": (
        ["{bundle}", "--arm", "serial:/dev/null", "--task", "touch the cube"],
        ExitCode.REFUSED,
    ),
    "no bundle": (["nothing.vla", "--arm", "serial:/dev/null", "--camera", "x"], ExitCode.REFUSED),
    "no robot": (
        ["{bundle}", "--arm", "serial:/dev/null", "--camera", "x", "--robot", "nobody"],
        ExitCode.REFUSED,
    ),
    "no recording": (["--explain", "nothing.flight"], ExitCode.USAGE),
    "nobody to ask": (["--ask", "stop"], AskCode.NOBODY),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_exit_codes(
    failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The real command line, each with a real failure: the documented code, and a line that says why."""
    arguments, expected = FAILURES[failure]
    bundle = write_bundle(tmp_path / "tiny.vla", make_spec(), FILES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    try:
        code = cli.main([word.format(bundle=bundle) for word in arguments])
    except SystemExit as ended:
        code = ended.code
    assert code == expected != 0
    said = capfd.readouterr().err
    assert said.strip()
    assert "Traceback" not in said


def test_every_end_but_one_has_a_code_that_is_not_zero() -> None:
    verdicts = {
        "refused": lambda verdict: verdict.refuse("x"),
        "internal": lambda verdict: verdict.internal("x"),
        "stopped": lambda verdict: verdict.stop("x"),
        "policy lost": lambda verdict: setattr(verdict, "policy_lost", True),
        "signal": lambda verdict: setattr(verdict, "signal", signal.SIGTERM),
    }
    assert Verdict().exit_code == ExitCode.FINISHED == 0
    for name, happens in verdicts.items():
        verdict = Verdict()
        happens(verdict)
        assert verdict.exit_code != 0, name
