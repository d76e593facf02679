"""Attempts on the simulated arm in stepped time, through the runtime's own control core.

Nothing here waits: a tick of control, two steps of physics, and every so often a chunk that rests on a
picture of some time ago. So the result does not depend on the speed of the machine that computes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..drivers.calibration import load_calibration
from ..drivers.robots.schema import load_robot
from ..drivers.simulated.judge import TIMEOUT_S, Verdict
from ..drivers.simulated.scene import COLOURS
from ..drivers.simulated.world import CALIBRATION, START, World
from ..drivers.types import JointState
from ..drivers.units import JointUnits
from ..export.training.demonstrations import Sensor
from ..runtime.control.config import core_config
from ..runtime.control.core import ControlCore
from ..runtime.control.state import CoreState, Inbox
from ..runtime.control.strategies import DEFAULT, STRATEGIES
from ..runtime.messages import Arm, Phase
from .motion import Recorder, Trace, jerk
from .policies import Policy
from .stepped_policy import TASK_ID, Check, Schedule, SteppedPolicy

DELAYS_MS: dict[str, tuple[int, int]] = {"0": (0, 0), "60": (60, 60), "150": (150, 150), "mixed": (30, 80)}
"""Age of a picture when its chunk arrives: drawn evenly between two bounds, in ms."""
_HZ_LIMIT_NS = 500_000_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one attempt."""

    verdict: Verdict
    task: str
    colour: str
    """The cube of the episode."""
    named: str
    """The cube that the instruction names."""
    jerk_rad_s3: float
    """Mean absolute jerk of the commanded arm joints."""
    clamped: int
    """Ticks in which a target was clamped."""
    stop: str
    """Code of a protective stop, or empty."""
    trace: Trace = field(compare=False, repr=False)


class SimulatedLoop:
    """One simulated arm under the control core."""

    def __init__(
        self,
        policy: Policy,
        world: World | None = None,
        strategy: str = DEFAULT,
        schedule: Schedule | None = None,
    ) -> None:
        """`strategy`: one of `STRATEGIES`; `schedule`: by default the strategy's own."""
        self._policy = policy
        self._sensor = Sensor()
        self._world = world or World(0)
        robot = load_robot("sim_arm")
        self._units = JointUnits(robot, load_calibration(CALIBRATION, robot))
        config = core_config(
            robot,
            self._units,
            control_hz=None,
            chunk_steps=policy.steps,
            chunk_dt_ns=round(policy.dt_s * 1e9),
            strategy=strategy,
        )
        self._core = ControlCore(config)
        asynchronous = STRATEGIES[strategy].asynchronous
        self._schedule: Schedule = schedule or ("back_to_back" if asynchronous else "sequential")
        self._arm_joints = [index for index, joint in enumerate(robot.joints) if not joint.gripper]
        self._tick_ns = config.dt_ns
        self._physics_steps = round(config.dt_ns * 1e-9 / World.STEP_S)
        for index, joint in enumerate(robot.joints):
            self._world.set_torque_limit(index, joint.motor.torque_limit)

    def attempt(
        self,
        seed: int,
        task: str | None = None,
        colour: str | None = None,
        *,
        delay_ms: tuple[int, int] = DELAYS_MS["mixed"],
        check: Check = "none",
        judge: Callable[[Verdict], bool] = lambda verdict: verdict.success,
        carousel_rad_s: float = 0.0,
        at_start_pose: bool = False,
    ) -> Attempt:
        """One attempt at an episode drawn from `seed`; ends when `judge` says so, stopped, or timed out.

        The arm begins somewhere near the start pose, or `at_start_pose` exactly, as `vla-run` does.
        """
        world, core = self._world, self._core
        episode = world.reset(seed, task, colour)
        if at_start_pose:
            world.place_arm(np.array(START))
        world.turn_carousel(carousel_rad_s)
        rng = np.random.default_rng([seed, 2])
        self._sensor.begin(seed)
        named = _other(episode.colour) if check == "other_name" else episode.colour
        text = episode.instruction.replace(episode.colour, named)
        source = SteppedPolicy(self._policy, self._sensor, text, check, delay_ms, rng, self._schedule)
        for index, ticks in enumerate(world.present_ticks()):
            world.set_goal(index, ticks)
            world.set_torque(index, True)
        pending = tuple(world.present_ticks())
        now_ns = self._tick_ns
        state = core.energised(CoreState(), self._joint(now_ns), now_ns)
        arm: Arm | None = Arm(TASK_ID, False, True, _HZ_LIMIT_NS, _HZ_LIMIT_NS)
        recorder = Recorder(self._tick_ns * 1e-9, self._arm_joints)
        while world.judge().time_s < TIMEOUT_S[episode.task] and not judge(world.judge()):
            joint = self._joint(now_ns)
            chunk = source.poll(world, joint.position, now_ns, state)
            inbox = Inbox(chunk=chunk, arm=arm, heard_policy=True, heard_supervisor=True)
            arm = None
            state, output = core.step(state, now_ns, joint, inbox)
            if state.phase in (Phase.STOPPING, Phase.STOPPED) or output.setpoint is None:
                break
            assert state.motion is not None
            followed = state.execution is not None and now_ns <= state.execution.end_ns
            age_s = (now_ns - source.observed_ns) * 1e-9 if followed else math.nan
            recorder.add(output.target, state.motion, output.new_chunk_id != 0, age_s)
            for index, ticks in enumerate(pending):
                world.set_goal(index, ticks)
            pending = tuple(self._units.to_ticks(output.setpoint))
            for _ in range(self._physics_steps):
                world.step()
            now_ns += self._tick_ns
        trace = recorder.trace()
        return Attempt(
            world.judge(),
            episode.task,
            episode.colour,
            named,
            float(np.abs(jerk(trace)).mean()) if len(trace.began) else 0.0,
            state.counters.clamped,
            state.stop.code if state.stop else "",
            trace,
        )

    def _joint(self, now_ns: int) -> JointState:
        world, none = self._world, (0.0,) * 6
        return JointState(
            stamp_ns=now_ns,
            position=self._units.to_positions(world.present_ticks()),
            velocity=self._units.to_velocities(world.present_velocity_ticks()),
            load=tuple(world.load()),
            voltage_v=(12.0,) * 6,
            temperature_c=(30.0,) * 6,
            current_a=none,
            faults=(0,) * 6,
        )


def _other(colour: str) -> str:
    names = list(COLOURS)
    return names[(names.index(colour) + 1) % len(names)]
