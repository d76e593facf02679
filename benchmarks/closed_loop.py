"""Attempts on the simulated arm in stepped time, through the runtime's own control core.

Nothing here waits: a tick of control, two steps of physics, and every so often a chunk that rests on a
picture of some time ago. So the result does not depend on the speed of the machine that computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..drivers.calibration import load_calibration
from ..drivers.robots.schema import load_robot
from ..drivers.simulated.judge import TIMEOUT_S, Verdict
from ..drivers.simulated.scene import COLOURS
from ..drivers.simulated.world import CALIBRATION, World
from ..drivers.types import JointState
from ..drivers.units import JointUnits
from ..export.training.demonstrations import Sensor
from ..runtime.control.config import core_config
from ..runtime.control.core import ControlCore
from ..runtime.control.state import CoreState, Inbox
from ..runtime.messages import Arm, Chunk, Phase, StampSource
from .policies import Policy

FRAME_HZ = 30
DELAYS_MS: dict[str, tuple[int, int]] = {"0": (0, 0), "60": (60, 60), "150": (150, 150), "mixed": (30, 80)}
"""Age of a picture when its chunk starts to be executed: drawn evenly between two bounds, in ms."""
Check = Literal["none", "blank", "stale", "other_name"]
"""Ways to take information away: a grey picture, the episode's first picture for ever, or an instruction that
names another cube (success then still means the cube of the episode)."""
_TASK_ID = 1
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


class SimulatedLoop:
    """One simulated arm under the control core."""

    def __init__(self, policy: Policy, world: World | None = None) -> None:
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
        )
        self._core = ControlCore(config)
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
        delay: str = "mixed",
        check: Check = "none",
        judge: Callable[[Verdict], bool] = lambda verdict: verdict.success,
    ) -> Attempt:
        """One attempt at an episode drawn from `seed`; ends when `judge` says so, stopped, or timed out."""
        world, core = self._world, self._core
        episode = world.reset(seed, task, colour)
        rng = np.random.default_rng([seed, 2])
        self._sensor.begin(seed)
        named = _other(episode.colour) if check == "other_name" else episode.colour
        text = episode.instruction.replace(episode.colour, named)
        source = _Pictures(self._policy, self._sensor, text, check, DELAYS_MS[delay], rng)
        for index, ticks in enumerate(world.present_ticks()):
            world.set_goal(index, ticks)
            world.set_torque(index, True)
        pending = tuple(world.present_ticks())
        now_ns = self._tick_ns
        state = core.energised(CoreState(), self._joint(now_ns), now_ns)
        arm: Arm | None = Arm(_TASK_ID, False, True, _HZ_LIMIT_NS, _HZ_LIMIT_NS)
        jerks: list[float] = []
        while world.judge().time_s < TIMEOUT_S[episode.task] and not judge(world.judge()):
            joint = self._joint(now_ns)
            chunk = source.poll(world, joint.position, now_ns)
            before = state.motion
            inbox = Inbox(chunk=chunk, arm=arm, heard_policy=True, heard_supervisor=True)
            arm = None
            state, output = core.step(state, now_ns, joint, inbox)
            if state.phase in (Phase.STOPPING, Phase.STOPPED) or output.setpoint is None:
                break
            if before is not None and state.motion is not None:
                change = np.subtract(state.motion.acceleration, before.acceleration)[:5]
                jerks.append(float(np.abs(change).mean()) / (self._tick_ns * 1e-9))
            for index, ticks in enumerate(pending):
                world.set_goal(index, ticks)
            pending = tuple(self._units.to_ticks(output.setpoint))
            for _ in range(self._physics_steps):
                world.step()
            now_ns += self._tick_ns
        return Attempt(
            world.judge(),
            episode.task,
            episode.colour,
            named,
            float(np.mean(jerks)) if jerks else 0.0,
            state.counters.clamped,
            state.stop.code if state.stop else "",
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


class _Pictures:
    """The policy process in stepped time: takes the newest frame when it is free, delivers a chunk later."""

    def __init__(
        self,
        policy: Policy,
        sensor: Sensor,
        text: str,
        check: Check,
        delay_ms: tuple[int, int],
        rng: np.random.Generator,
    ) -> None:
        self._policy, self._sensor, self._text, self._check = policy, sensor, text, check
        self._delay_ms, self._rng = delay_ms, rng
        self._frames = 0
        self._first: NDArray[np.uint8] | None = None
        self._waiting: tuple[int, Chunk] | None = None
        self._count = 0

    def poll(self, world: World, position: Sequence[float], now_ns: int) -> Chunk | None:
        """The chunk that arrives in this tick, if any."""
        arrived = None
        if self._waiting is not None and now_ns >= self._waiting[0]:
            arrived, self._waiting = self._waiting[1], None
        frame = now_ns * FRAME_HZ // 1_000_000_000
        if self._waiting is None and frame > self._frames:
            self._frames = frame
            due_ns = now_ns + round(self._rng.uniform(*self._delay_ms)) * 1_000_000
            chunk = self._infer(world, position, now_ns, due_ns)
            if due_ns == now_ns:
                return chunk
            self._waiting = (due_ns, chunk)
        return arrived

    def _infer(self, world: World, position: Sequence[float], now_ns: int, due_ns: int) -> Chunk:
        picture = self._sensor.picture(world)
        if self._check == "blank":
            picture = np.full_like(picture, 128)
        if self._check == "stale":
            self._first = picture if self._first is None else self._first
            picture = self._first
        targets = self._policy.chunk(picture, position, self._text)
        self._count += 1
        return Chunk(
            chunk_id=self._count,
            task_id=_TASK_ID,
            observation_ns=now_ns,
            frame_arrival_ns=now_ns,
            inference_start_ns=now_ns,
            inference_end_ns=due_ns,
            session_run_ns=due_ns - now_ns,
            frame_period_ns=1_000_000_000 // FRAME_HZ,
            stamp_source=StampSource.HEADER,
            dt_ns=round(self._policy.dt_s * 1e9),
            actions=tuple(tuple(float(value) for value in row) for row in targets),
        )


def _other(colour: str) -> str:
    names = list(COLOURS)
    return names[(names.index(colour) + 1) % len(names)]
