"""A stepped-time bench for the pure core: a config, an ideal arm and helpers to feed it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from holdfast.drivers.types import JointState
from holdfast.runtime.control.config import CoreConfig
from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.smoother import KinematicLimits
from holdfast.runtime.control.state import CoreState, Inbox, Note, Output
from holdfast.runtime.messages import Arm, Chunk, StampSource

MS = 1_000_000
JOINTS = ("pan", "lift", "grip")


def config(**changes: object) -> CoreConfig:
    base = CoreConfig(
        joint_names=JOINTS,
        gripper=(False, False, True),
        low=(-1.0, -1.5, 0.0),
        high=(1.0, 1.5, 100.0),
        margin=(0.01, 0.01, 0.5),
        kinematic=KinematicLimits((2.0, 2.0, 300.0), (15.0, 15.0, 2000.0), (300.0, 300.0, 40000.0)),
        lead=(0.3, 0.3, 101.0),
        # Most tests are not about how a task begins.
        first_step=(10.0, 10.0, 200.0),
        following_error=(0.4, 0.4, 102.0),
        start_pose=(0.0, 0.0, 0.0),
        park_pose=(0.0, -0.5, 0.0),
        dt_ns=10 * MS,
        chunk_steps=8,
        chunk_dt_ns=50 * MS,
        strategy="newest",
        ema_s=0.0,
        joint_state_max_age_ns=80 * MS,
        max_missed_in_a_row=5,
        max_missed_fraction=0.05,
        voltage_v=(4.5, 14.0),
        temperature_c=65.0,
        load=0.9,
        load_ns=500 * MS,
        current_a=None,
        current_ns=500 * MS,
        grip=(None, None, None),
        at_exit="park_release",
        after_fault="hold_energised",
        stop_category=2,
        max_starved=3,
    )
    return replace(base, **changes)  # pyright: ignore[reportArgumentType]


def joint_state(position: tuple[float, ...], stamp_ns: int) -> JointState:
    n = len(position)
    return JointState(
        stamp_ns, position, (0.0,) * n, (0.1,) * n, (7.4,) * n, (30.0,) * n, (0.1,) * n, (0,) * n
    )


def chunk(
    rows: list[tuple[float, ...]],
    *,
    chunk_id: int,
    observation_ns: int,
    task_id: int = 1,
    dt_ns: int = 50 * MS,
) -> Chunk:
    return Chunk(
        chunk_id, task_id, observation_ns, observation_ns, observation_ns, observation_ns, MS, 33 * MS,
        StampSource.HEADER, dt_ns, tuple(rows),
    )  # fmt: skip


def arm(*, follow: bool = True, back: bool = False, task_id: int = 1) -> Arm:
    return Arm(task_id, back, follow, 300 * MS, 300 * MS)


@dataclass
class Bench:
    """Steps the core with an arm that reaches each setpoint one tick later."""

    core: ControlCore = field(default_factory=lambda: ControlCore(config()))
    now_ns: int = 1_000_000 * MS
    state: CoreState = field(default_factory=CoreState)
    arm_follows: bool = True
    arm_at: tuple[float, ...] = (0.2, -0.3, 10.0)
    setpoints: list[tuple[float, ...]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    last_target: tuple[float, ...] | None = None
    """What the strategy asked for in the last tick."""
    beats: bool = True
    """Whether supervisor and policy send heartbeats."""

    def __post_init__(self) -> None:
        sample = joint_state(self.arm_at, self.now_ns)
        self.state = self.core.energised(self.state, sample, self.now_ns)

    _was_at: tuple[float, ...] = ()

    def tick(self, inbox: Inbox | None = None, *, bus: bool = True, **sample: object) -> Output:
        self.now_ns += 10 * MS
        inbox = inbox or Inbox()
        if self.beats:
            inbox = replace(inbox, heard_policy=True, heard_supervisor=True)
        velocity = tuple(
            (a - b) / 0.01 for a, b in zip(self.arm_at, self._was_at or self.arm_at, strict=True)
        )
        self._was_at = self.arm_at
        sample = {"velocity": velocity, **sample}
        joint = replace(joint_state(self.arm_at, self.now_ns - MS), **sample) if bus else None  # pyright: ignore
        self.state, output = self.core.step(self.state, self.now_ns, joint, inbox)
        self.last_target = output.target
        if output.setpoint is not None:
            self.setpoints.append(output.setpoint)
            if self.arm_follows:
                self.arm_at = output.setpoint
        self.notes += output.notes
        return output

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            self.tick()

    def start(self) -> None:
        """Into RUN, at the present pose."""
        self.tick(Inbox(arm=arm()))

    def codes(self) -> list[str]:
        return [note.code for note in self.notes]

    def stop_code(self) -> str:
        assert self.state.stop is not None
        return self.state.stop.code
