"""The values that go into and come out of the pure core."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ...drivers.types import JointState
from ..messages import Arm, Chunk, Phase
from .deadlines import SlotAccount, StarvationAccount
from .executor import Execution, Target
from .smoother import Motion

Finish = Literal["release", "hold"]
StopCategory = Literal[0, 1, 2]


@dataclass(frozen=True, slots=True)
class Condition:
    """A row of the deadline table that the process around the core has noticed (a lost peer, a lost bus)."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Inbox:
    """What arrived since the last tick; the process fills it, the core judges it."""

    chunk: Chunk | None = None
    """The newest one only."""
    superseded: int = 0
    arm: Arm | None = None
    stop: Condition | None = None
    """A stop that ends a task: not latched."""
    reset: bool = False
    reset_line: bool = False
    """The reset comes from a reset input alone; the supervisor does not know of it."""
    quit: Literal["park", "here"] | None = None
    heard_policy: bool = False
    heard_supervisor: bool = False
    conditions: tuple[Condition, ...] = ()
    slots_run: int = 1
    slots_late: int = 0
    slots_overrun: int = 0


@dataclass(frozen=True, slots=True)
class StopRecord:
    """Why the arm was stopped."""

    code: str
    text: str
    at_ns: int
    latched: bool
    category: StopCategory = 2
    """IEC 60204-1. 2: the arm holds with torque on; 1: released once at rest; 0: released at once."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something for the report; `code` as listed in `runtime.messages.Event`."""

    code: str
    text: str
    value: float = 0.0


@dataclass(frozen=True)
class Counters:
    clamped: int = 0
    rejected_chunks: int = 0
    superseded_chunks: int = 0
    other_task_chunks: int = 0
    chunks: int = 0


@dataclass(frozen=True)
class CoreState:
    """Everything that the next tick depends on. Without slots, for `replace`."""

    phase: Phase = Phase.CONNECT
    motion: Motion | None = None
    """What is commanded; None while torque is off."""
    joint: JointState | None = None
    """The newest complete sample."""
    execution: Execution | None = None
    ema: Target | None = None
    """The moving average of targets, where one is asked for."""
    now_ns: int = 0
    """The time of this tick."""
    task_id: int = 0
    chunk_age_limit_ns: int = 0
    silence_limit_ns: int = 0
    policy_heard_ns: int = 0
    supervisor_heard_ns: int = 0
    still_since_ns: int = 0
    last_chunk_id: int = 0
    unacknowledged: bool = False
    """A reset input has reset a stop, and the supervisor has not said that it knows: an order to move may
    still be one from before the stop."""
    followed: bool = False
    """Whether a chunk has been followed since the arm was told to follow a task."""
    stop_input_ns: int = 0
    """When a stop input was last pressed or missing; 0 for never."""
    goal: tuple[float, ...] | None = None
    """Pose that RETURN moves to, or that STOPPED eases to."""
    at_goal_ns: int = 0
    """Since when the goal has been fully commanded; 0 for not yet."""
    settled_ns: int = 0
    """Since when the arm itself has stood at it; 0 for not yet."""
    eased: bool = False
    """Whether the command has been eased back to the arm since the stop."""
    rest_ns: int = 0
    """Since when the command has been at rest after a stop; 0 for not."""
    silent: bool = False
    """The motors were silent for too long: they may have lost power, and with it their goals and limits."""
    seen: frozenset[str] = frozenset()
    """Conditions noticed since the stop, each reported once."""
    goal_event: str = ""
    """Event code when the goal is reached."""
    starved: bool = False
    held_by: tuple[str, ...] = ()
    """The conditions whose reaction holds the arm; chunks are not followed meanwhile."""
    held_until_ns: int = 0
    clamped: tuple[tuple[str, str], ...] = ()
    stop: StopRecord | None = None
    """The latest stop; cleared by a reset."""
    quitting: Literal["park", "here"] | None = None
    overload_since_ns: tuple[int, ...] = ()
    """Per joint: since when its load has been above the limit; 0 for not."""
    overcurrent_since_ns: tuple[int, ...] = ()
    """The same for its current."""
    gripping_since_ns: tuple[int, ...] = ()
    """The same for a gripper that presses harder than it may."""
    stalled_since_ns: tuple[int, ...] = ()
    """Per joint: since when it has stood still although held back by the lead cap; 0 for not."""
    slots: SlotAccount = field(default_factory=SlotAccount)
    starvation: StarvationAccount = field(default_factory=StarvationAccount)
    counters: Counters = field(default_factory=Counters)

    @property
    def latched(self) -> bool:
        return self.stop is not None and self.stop.latched

    @property
    def stop_complete(self) -> bool:
        """Whether a stopped arm stands and has been eased off what it presses on."""
        return self.eased and self.goal is None


@dataclass(frozen=True, slots=True)
class Output:
    """What the process does with this tick."""

    setpoint: tuple[float, ...] | None
    """To be written; None while there is no torque."""
    notes: tuple[Note, ...] = ()
    finish: Finish | None = None
    """The run is over: release the motors or leave them holding, then exit."""
    new_chunk_id: int = 0
    """The chunk whose first setpoint this is; 0 for none."""
    release: bool = False
    """Switch the torque off and stay: at rest after a stop of category 1, at once in one of category 0."""
    target: tuple[float, ...] | None = None
    """What was asked for in this tick, before clamps and smoothing; None for nothing."""
