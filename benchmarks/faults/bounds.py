"""The bounds of the campaign, computed from what is shipped: the robot file, the constants of the runtime,
and the limits that vla-run prints when a task begins. Nothing here comes from a measurement of the campaign.

All are upper bounds of the time from a fault to the stop that it must lead to. Control's turn is what it may
take to act at all: two ticks, one to wait for and one to act in. A limit of silence is passed one tick after
it was reached. On a machine that stalls control may miss slots, so many that more would be a stop of its own
(`max_missed_in_a_row`); these are added only where the observer sees that they were missed, as a gap between
goals on the wire (`missed_ns`). What the policy process must notice by itself may take its turn longer:
`SILENCE_MARGIN_S` and two inferences, beyond which its silence is a stop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...drivers.robots.schema import Robot
from ...runtime.control.deadlines import ARRIVAL_NS, EASE_WAIT_NS, SUPERVISOR_SILENCE_NS
from ...runtime.policy.config import Limits
from ...runtime.schedulability import SILENCE_MARGIN_S
from ...runtime.stages import CONTROL_SILENCE_S
from ...runtime.supervisor import HEARTBEAT_NS

MS = 1_000_000
SERVO_SETTLE_NS = 250 * MS
"""Of the simulated servo, not of Holdfast: from its last goal until it stands (15 ms of lag, mechanics)."""
END_NS = 5_000 * MS
"""After the arm was released, for three processes to end and a report to be written."""
FEW_TICKS = 2

_LIMITS = re.compile(
    r"limits: a chunk at most (\d+) ms old on arrival, the policy silent for at most (\d+) ms, "
    r"a picture at most (\d+) ms old"
)
_INFERENCE = re.compile(r"inference p99 (\d+) ms")
_PERIOD = re.compile(r"on its way \+ (\d+) ms period")


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the bounds follow from. Durations in ns, joints in robot order, rad."""

    tick_ns: int
    missed_slots: int
    joint_age_ns: int
    load_ns: int
    gripper: tuple[bool, ...]
    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]
    jerk: tuple[float, ...]
    lead: tuple[float, ...]
    span: tuple[float, ...]
    chunk_age_ns: int
    silence_ns: int
    frame_age_ns: int
    frame_period_ns: int
    inference_ns: int

    @property
    def turn_ns(self) -> int:
        """Of control, where it misses no slot."""
        return FEW_TICKS * self.tick_ns

    def missed_ns(self, gap_ns: int) -> int:
        """What a gap between goals on the wire adds to it, at most the slots that may be missed in a row."""
        return min(max(0, gap_ns - self.tick_ns), self.missed_slots * self.tick_ns)

    @property
    def policy_turn_ns(self) -> int:
        return round(SILENCE_MARGIN_S * 1e9) + 2 * self.inference_ns

    @property
    def stopping_ns(self) -> int:
        """The longest jerk-limited braking: acceleration to zero, then v/a + a/j, joint by joint."""
        rows = zip(self.velocity, self.acceleration, self.jerk, strict=True)
        return round(max(v / a + 2 * a / j for v, a, j in rows) * 1e9)

    @property
    def easing_ns(self) -> int:
        """After a stop: waiting for the arm to stand, then at most `lead` back."""
        rows = zip(self.lead, self.velocity, self.acceleration, self.jerk, strict=True)
        return EASE_WAIT_NS + round(max(d / v + v / a + a / j for d, v, a, j in rows) * 1e9)

    @property
    def parking_ns(self) -> int:
        """From anywhere to the park pose, at rest there."""
        rows = zip(self.span, self.velocity, self.acceleration, self.jerk, strict=True)
        return ARRIVAL_NS + round(max(d / v + v / a + 2 * a / j for d, v, a, j in rows) * 1e9)

    @property
    def stopping_rad(self) -> tuple[float, ...]:
        """How far a joint goes at most while it brakes: v times half the longest braking, and its start."""
        rows = zip(self.velocity, self.acceleration, self.jerk, strict=True)
        return tuple(v * (a / j) + v * (v / a + a / j) / 2 for v, a, j in rows)


def configuration(robot: Robot, control_hz: float, events: Iterable[Mapping[str, Any]]) -> Configuration:
    """Of a run that has printed its schedule. Raises `ValueError` where it has not."""
    text = " ".join(str(event["text"]) for event in events if event["code"] == "schedule")
    limits, inference, period = (pattern.search(text) for pattern in (_LIMITS, _INFERENCE, _PERIOD))
    if limits is None or inference is None or period is None:
        raise ValueError(f"vla-run has not printed its limits: {text!r}")
    chunk_ms, silence_ms, frame_ms = (int(value) for value in limits.groups())
    tick_ns = round(1e9 / control_hz)
    joints = robot.joints
    return Configuration(
        tick_ns=tick_ns,
        missed_slots=robot.control.max_missed_in_a_row,
        joint_age_ns=max(3 * tick_ns, round(robot.control.joint_state_max_age_ms * MS)),
        load_ns=round(robot.health.load_ms * MS),
        gripper=tuple(joint.gripper for joint in joints),
        velocity=tuple(joint.limits.velocity for joint in joints),
        acceleration=tuple(joint.limits.acceleration for joint in joints),
        jerk=tuple(joint.limits.jerk for joint in joints),
        lead=tuple(joint.limits.lead for joint in joints),
        span=tuple(joint.limits.position[1] - joint.limits.position[0] for joint in joints),
        chunk_age_ns=chunk_ms * MS,
        silence_ns=silence_ms * MS,
        frame_age_ns=frame_ms * MS,
        frame_period_ns=int(period.group(1)) * MS,
        # Printed in whole milliseconds.
        inference_ns=(int(inference.group(1)) + 1) * MS,
    )


@dataclass(frozen=True, slots=True)
class Bound:
    """How long until the stop, and why."""

    why: str
    of: Callable[[Configuration], int]
    """Without missed slots."""
    controls: bool = True
    """Whether it is control that must act, so that slots that it has truly missed are added."""


def _frozen_ns(c: Configuration) -> int:
    limits = Limits()
    return max(limits.frozen_ns, limits.frozen_frames * c.frame_period_ns) + 2 * c.frame_period_ns


BOUNDS: dict[str, Bound] = {
    "next tick": Bound("control's turn", lambda c: c.turn_ns),
    "next read": Bound("one cycle of the bus and control's turn", lambda c: c.tick_ns + c.turn_ns),
    "person": Bound(
        "the supervisor's turn (two heartbeats) and control's", lambda c: 2 * HEARTBEAT_NS + c.turn_ns
    ),
    "policy silence": Bound(
        "the limit of the policy's silence, passed a tick later, and control's turn",
        lambda c: c.silence_ns + c.tick_ns + c.turn_ns,
    ),
    "supervisor silence": Bound(
        "the limit of the supervisor's silence, passed a tick later, and control's turn",
        lambda c: SUPERVISOR_SILENCE_NS + c.tick_ns + c.turn_ns,
    ),
    "joint state": Bound(
        "the limit of the joint state's age, passed a tick later, and control's turn",
        lambda c: c.joint_age_ns + c.tick_ns + c.turn_ns,
    ),
    "frame age": Bound(
        "the limit of a picture's age, a frame's period, the policy's turn and control's",
        lambda c: c.frame_age_ns + c.frame_period_ns + c.policy_turn_ns + c.turn_ns,
    ),
    "frozen": Bound(
        "the time and number of equal pictures that make a frozen camera, two frames, the policy's turn and "
        "control's",
        lambda c: _frozen_ns(c) + c.policy_turn_ns + c.turn_ns,
    ),
    "picture": Bound(
        "two frames, the policy's turn and control's",
        lambda c: 2 * c.frame_period_ns + c.policy_turn_ns + c.turn_ns,
    ),
    "last goal": Bound(
        "two ticks: nobody sends goals any more", lambda c: FEW_TICKS * c.tick_ns, controls=False
    ),
    "control death": Bound(
        "as long as the supervisor itself may be silent before that is a stop",
        lambda c: SUPERVISOR_SILENCE_NS,
        controls=False,
    ),
    "control silence": Bound(
        "as long as the supervisor waits for a silent control before it kills it and says so, and its turn",
        lambda c: round(CONTROL_SILENCE_S * 1e9) + 2 * HEARTBEAT_NS,
        controls=False,
    ),
    "none": Bound("nothing must happen", lambda c: 0, controls=False),
}
