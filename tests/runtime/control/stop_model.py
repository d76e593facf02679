"""Explores the real core: every abstract state that can be reached x every event, breadth first.

A node is a whole `CoreState` with the arm and the clock around it. Nodes that agree in everything discrete
(`abstract`) are one state, of which the first few found are followed. Time that must pass (a braking, a
pose, a time-out) passes in events that let the clock run until something discrete changes, so nothing lies
too many ticks away to be found.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.drivers.types import JointState
from holdfast.runtime.control.chain import check_health
from holdfast.runtime.control.config import CoreConfig
from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.deadlines import EASE_WAIT_NS, STOP_INPUT_NS, stops
from holdfast.runtime.control.settle import at_rest
from holdfast.runtime.control.state import CoreState, Output
from holdfast.runtime.messages import Phase

from .stop_events import DT_NS, STRAIN_NS, STRAINS, Event, every_event
from .world import MS, chunk, config, joint_state

LONGEST = 250
"""Ticks that an event lets pass while nothing discrete changes; the arm has `ARRIVAL_NS` to arrive."""
HOME = (0.2, -0.3, 10.0)
SILENCE = 300 * MS
MOVING = (Phase.RUN, Phase.RETURN)


def model_config(**changes: object) -> CoreConfig:
    """Short times, so that few ticks are needed; the arm follows closely."""
    return config(
        **{
            "dt_ns": DT_NS,
            "joint_state_max_age_ns": 60 * MS,
            "load_ns": STRAIN_NS,
            "current_a": 1.0,
            "current_ns": STRAIN_NS,
            "grip": (None, None, (0.6, STRAIN_NS)),
            "max_starved": 2,
            "lead": (0.2, 0.2, 101.0),
            "following_error": (0.5, 0.5, 102.0),
            "reactions": {"over_budget": "hold"},
            **changes,
        }
    )


@dataclass(frozen=True)
class Node:
    """The core's state, and the world around it."""

    state: CoreState
    now_ns: int
    arm_at: tuple[float, ...]
    """Where the joints are."""
    setpoint: tuple[float, ...] | None = None
    """The last one that was written; None for none."""
    pressed_ns: int = 0
    """When a stop input was last pressed or missing."""
    policy_ns: int = 0
    supervisor_ns: int = 0
    """When they were last heard, by the model's own account."""
    strain: tuple[str, int] | None = None
    """The sample of `STRAINS` that lasts, and since when."""


@dataclass(frozen=True)
class Step:
    """One tick of the real core."""

    before: Node
    event: Event
    after: Node
    output: Output


@dataclass
class Coverage:
    """What was explored."""

    states: int = 0
    steps: int = 0
    phases: set[Phase] = field(default_factory=set)
    events: Counter[str] = field(default_factory=Counter)
    """How many states each event met."""
    finishes: set[str] = field(default_factory=set)
    categories: set[int] = field(default_factory=set)
    path: dict[tuple[Any, ...], tuple[tuple[Any, ...], str]] = field(default_factory=dict)
    """Abstract state -> the one that it was found from, and by which event."""

    def way_to(self, key: tuple[Any, ...]) -> list[str]:
        """The events that lead to a state."""
        names: list[str] = []
        while key in self.path:
            key, name = self.path[key]
            names.append(name)
        return names[::-1]


class Violated(AssertionError):
    """An invariant does not hold; the message says how to get there."""


def start() -> Node:
    return Node(CoreState(), 1_000_000 * MS, HOME)


def advance(core: ControlCore, node: Node, event: Event) -> Step:
    """One tick of the core and the loop around it, which gives torque and writes setpoints."""
    state, now_ns = node.state, node.now_ns + event.step_ns
    arm_at = node.arm_at
    commanded = state.motion.position if state.motion is not None else arm_at
    if event.sample == "pushed":
        # Further than a reset lets a setpoint stand, but no following error.
        arm_at = tuple(p - 0.3 for p in commanded)
    elif event.sample == "torn":
        arm_at = tuple(p + 0.7 for p in commanded)
    elif event.sample != "stuck" and node.setpoint is not None:
        arm_at = node.setpoint
    joint = _sample(core.config, event, node.arm_at, arm_at, now_ns)
    inbox = event.inbox
    if event.rows != "none":
        inbox = replace(inbox, chunk=_chunk(state, event.rows, now_ns, arm_at))
    inbox = replace(inbox, heard_policy=event.policy, heard_supervisor=event.supervisor)
    may_arm = inbox.arm is not None and inbox.quit is None and joint is not None
    if state.motion is None and may_arm and not any(stops(c.code, {}) for c in inbox.conditions):
        assert joint is not None
        state = core.energised(state, joint, now_ns)
    state, output = core.step(state, now_ns, joint, inbox)
    setpoint = output.setpoint if output.setpoint is not None else node.setpoint
    pressed = any(c.code.startswith("stop_input") for c in event.inbox.conditions)
    pressed_ns = now_ns if pressed else node.pressed_ns
    policy_ns, supervisor_ns, strain = _heard(node, event, state, now_ns)
    after = Node(state, now_ns, arm_at, setpoint, pressed_ns, policy_ns, supervisor_ns, strain)
    return Step(node, event, after, output)


def _heard(
    node: Node, event: Event, after: CoreState, now_ns: int
) -> tuple[int, int, tuple[str, int] | None]:
    """When policy and supervisor were last heard, and what strain lasts. Giving torque counts as hearing
    both, an accepted request to follow or a reset as hearing the policy; a reset also ends a strain."""
    before = node.state
    torque = before.motion is None and after.motion is not None
    reset = before.latched and not after.latched
    asked = event.inbox.arm is not None and after.phase in MOVING
    policy = event.policy or event.rows != "none" or torque or asked or reset
    supervisor = event.supervisor or torque
    strain = node.strain
    if reset or event.sample not in ("missing", *STRAINS):
        strain = None
    elif event.sample in STRAINS and (strain is None or strain[0] != event.sample):
        strain = (event.sample, now_ns)
    return now_ns if policy else node.policy_ns, now_ns if supervisor else node.supervisor_ns, strain


def _sample(
    settings: CoreConfig, event: Event, was_at: tuple[float, ...], arm_at: tuple[float, ...], now_ns: int
) -> JointState | None:
    if event.sample == "missing":
        return None
    joint = joint_state(arm_at, now_ns - MS)
    # A sample that is far from the last one was taken after the arm came to rest there.
    speed = tuple((a - b) / (settings.dt_ns * 1e-9) for a, b in zip(arm_at, was_at, strict=True))
    usual = all(abs(v) <= 1.1 * limit for v, limit in zip(speed, settings.kinematic.velocity, strict=True))
    joint = replace(joint, velocity=speed if usual else (0.0,) * len(arm_at))
    return replace(joint, **_SAMPLES.get(event.sample, {}))


_SAMPLES: dict[str, dict[str, Any]] = {
    "faulty": {"faults": (0, 32, 0)},
    "hot": {"temperature_c": (30.0, 30.0, 80.0)},
    "sagging": {"voltage_v": (7.4, 3.0, 7.4)},
    "loaded": {"load": (0.1, 0.95, 0.1)},
    "overcurrent": {"current_a": (0.1, -1.5, 0.1)},
    "gripping": {"load": (0.1, 0.1, -0.8)},
}


def _chunk(state: CoreState, rows: str, now_ns: int, arm_at: tuple[float, ...]) -> Any:
    goal = {"far": (0.9, 1.2, 90.0), "nan": (math.nan, 0.0, 0.0)}.get(rows, (0.5, 0.1, 40.0))
    path = [tuple(a + (b - a) * min(1.0, i / 5) for a, b in zip(arm_at, goal, strict=True)) for i in range(8)]
    return chunk(
        path,
        chunk_id=state.last_chunk_id + (rows != "again"),
        observation_ns=now_ns - (400 if rows == "stale" else 10) * MS,
        task_id=state.task_id + (rows == "other"),
    )


def _abstract(node: Node, settings: CoreConfig) -> tuple[Any, ...]:
    """Everything discrete that the core reads in its phase, and every comparison of a time or a distance with
    its limit; last the class of the code of a stop, which the core should not read."""
    state = node.state
    if state.motion is None:
        return (state.phase, state.quitting, "")
    joint = state.joint
    assert joint is not None
    return (
        state.phase,
        state.stop is not None,
        state.latched,
        state.stop.category if state.stop else None,
        state.quitting,
        state.silent,
        state.unacknowledged and not state.latched,  # a reset of what is latched sets it anew
        at_rest(state.motion),
        check_health(joint, settings) is not None,
        node.now_ns - joint.stamp_ns > settings.joint_state_max_age_ns,
        any((*state.overload_since_ns, *state.overcurrent_since_ns, *state.gripping_since_ns)),
        _off(state, settings) > 1.0,
        *_PER_PHASE.get(state.phase, lambda *_: ())(node, settings),
        code_class(state.stop.code) if state.stop is not None and state.latched else "",
    )


OF_THE_POLICY = {
    "policy_lost",
    "policy_silent",
    "policy_error",
    "frame_age",
    "frozen_camera",
    "black_camera",
    "camera_lost",
    "non_finite",
}
"""Once the run is ending these are no reason to stop: parking follows no policy (docs/safety.md)."""
_CLASSES = {
    "policy": OF_THE_POLICY,
    "chunk": {"chunk_bad", "chunk_stale", "chunk_far"},
    "bus": {"bus_lost", "bus_write_failed", "joint_state_stale"},
    "supervisor": {"supervisor_lost", "supervisor_silent"},
    "person": {"requested", "stop_input", "stop_input_lost"},
    "arm": {"motor_fault", "temperature", "voltage", "following_error", "not_reached", "stalled"}
    | set(STRAINS.values()),
}


def code_class(code: str) -> str:
    """Who or what a stop was for; "control" for the rest."""
    return next((name for name, codes in _CLASSES.items() if code in codes), "control")


def _in_run(node: Node, settings: CoreConfig) -> tuple[Any, ...]:
    state, execution = node.state, node.state.execution
    return (
        state.starved,
        bool(state.held_by),
        execution is not None,
        execution is not None and node.now_ns > execution.end_ns,
        bool(state.clamped),
        any(state.stalled_since_ns),
        len(state.starvation.recent) + 1 >= settings.max_starved,
        node.now_ns - state.policy_heard_ns > SILENCE,
    )


def _in_return(node: Node, settings: CoreConfig) -> tuple[Any, ...]:
    state = node.state
    assert state.joint is not None
    return (
        state.joint.stamp_ns >= state.at_goal_ns,
        state.goal_event,
        bool(state.at_goal_ns),
        bool(state.settled_ns),
        bool(state.clamped),
        any(state.stalled_since_ns),
        _stands(state, settings),
    )


def _in_stopped(node: Node, settings: CoreConfig) -> tuple[Any, ...]:
    state = node.state
    return (
        state.eased,
        state.goal is not None,
        _stands(state, settings),
        node.now_ns - node.pressed_ns < STOP_INPUT_NS,
        _off(state, settings) > 0.25,
        node.now_ns - state.rest_ns > EASE_WAIT_NS,
    )


_PER_PHASE = {Phase.RUN: _in_run, Phase.RETURN: _in_return, Phase.STOPPED: _in_stopped}


def _off(state: CoreState, settings: CoreConfig) -> float:
    """How far the arm is from where it is commanded to be, in shares of `lead`."""
    assert state.motion is not None
    assert state.joint is not None
    rows = zip(state.joint.position, state.motion.position, settings.lead, settings.gripper, strict=True)
    return max(abs(p - c) / lead for p, c, lead, gripper in rows if not gripper)


def _stands(state: CoreState, settings: CoreConfig) -> bool:
    assert state.joint is not None
    rows = zip(state.joint.velocity, settings.kinematic.velocity, settings.gripper, strict=True)
    return all(gripper or abs(v) <= 0.05 * limit for v, limit, gripper in rows)


Check = Callable[[ControlCore, Step], Iterable[str]]


def explore(core: ControlCore, check: Check, keep: int = 1, classes: bool = True) -> Coverage:
    """Every reachable abstract state x every event. `keep`: how many nodes of one state are followed.

    States that differ only in what the stop was for meet all events once, and from then on the basic ones;
    without `classes` they are one state.
    Raises `Violated` for the first step that `check` objects to.
    """
    settings, coverage = core.config, Coverage()
    events = every_event(settings)

    def abstract(node: Node) -> tuple[Any, ...]:
        *rest, what_for = _abstract(node, settings)
        return (*rest, what_for if classes else "")

    first = start()
    found = Counter({abstract(first): 1})
    met: Counter[tuple[Any, ...]] = Counter()
    queue = deque([first])
    while queue:
        node = queue.popleft()
        home = abstract(node)
        coverage.phases.add(node.state.phase)
        known = met[home[:-1]] >= keep
        met[home[:-1]] += 1
        for event in events:
            if known and not event.basic:
                continue
            coverage.events[event.name] += 1
            for step, key in _stretch(core, node, event, abstract, home):
                coverage.steps += 1
                for objection in check(core, step):
                    way = [*coverage.way_to(home), event.name]
                    raise Violated(f"{objection} (by {' > '.join(way)}: {_told(step)})")
                _note(coverage, step)
                if step.output.finish is None and found[key] < keep:
                    if not found[key]:
                        coverage.path[key] = (home, event.name)
                    found[key] += 1
                    queue.append(step.after)
    coverage.states = len(found)
    return coverage


Key = tuple[Any, ...]


def _stretch(
    core: ControlCore, node: Node, event: Event, abstract: Callable[[Node], Key], home: Key
) -> Iterator[tuple[Step, Key]]:
    """Each tick, and the abstract state that it leads to."""
    for _ in range(LONGEST if event.lasts else 1):
        step = advance(core, node, event)
        node = step.after
        key = abstract(node)
        yield step, key
        if step.output.finish is not None or key != home:
            return


def _note(coverage: Coverage, step: Step) -> None:
    after = step.after.state
    coverage.phases.add(after.phase)
    if after.stop is not None and after.latched:
        coverage.categories.add(after.stop.category)
    if step.output.finish is not None:
        coverage.finishes.add(step.output.finish)


def _told(step: Step) -> str:
    before, after = step.before.state, step.after.state
    stop = f", stop {after.stop.code}" if after.stop else ""
    return f"{before.phase.name} -> {after.phase.name}{stop}, quitting {after.quitting}"
