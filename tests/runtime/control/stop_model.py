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
from itertools import combinations
from typing import Any, Literal

from holdfast.drivers.types import JointState
from holdfast.runtime.control.config import CoreConfig
from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.deadlines import EASE_WAIT_NS, REACTIONS, STOP_INPUT_NS, stops
from holdfast.runtime.control.settle import at_rest
from holdfast.runtime.control.state import Condition, CoreState, Inbox, Output
from holdfast.runtime.messages import Phase

from .world import MS, arm, chunk, config, joint_state

DT_NS = 20 * MS
GAP_NS = 3_000 * MS
LONGEST = 250
"""Ticks that an event lets pass while nothing discrete changes; the arm has `ARRIVAL_NS` to arrive."""
HOME = (0.2, -0.3, 10.0)
SILENCE = 300 * MS
KINDS = {code: row.kind for code, row in REACTIONS.items()}
"""As they stood before a test made a mistake in them."""
MOVING = (Phase.RUN, Phase.RETURN)
Sample = Literal["fresh", "missing", "faulty", "stuck", "pushed", "torn", "loaded"]


def model_config(**changes: object) -> CoreConfig:
    """Short times, so that few ticks are needed; the arm follows closely."""
    return config(
        **{
            "dt_ns": DT_NS,
            "joint_state_max_age_ns": 60 * MS,
            "load_ns": 200 * MS,
            "max_starved": 2,
            "lead": (0.2, 0.2, 101.0),
            "following_error": (0.5, 0.5, 102.0),
            "reactions": {"over_budget": "hold"},
            **changes,
        }
    )


@dataclass(frozen=True)
class Event:
    """What one tick, or a stretch of alike ones, brings."""

    name: str
    inbox: Inbox = field(default_factory=Inbox)
    sample: Sample = "fresh"
    rows: Literal["none", "near", "far", "nan", "stale", "other", "again"] = "none"
    """The chunk that comes, if any."""
    step_ns: int = DT_NS
    peers: bool = True
    """Whether policy and supervisor are heard."""
    lasts: bool = False
    """Goes on until something discrete changes."""

    @property
    def stop_codes(self) -> list[str]:
        return [c.code for c in self.inbox.conditions if KINDS.get(c.code, "stop") == "stop"]


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


def every_event(core_config: CoreConfig) -> list[Event]:
    """Requests alone, in pairs, beside a chunk or a faulty sample; every row; samples, chunks, time."""
    wish = {
        "follow": {"arm": arm()},
        "return": {"arm": arm(back=True, follow=False)},
        "hold": {"arm": arm(follow=False)},
        "stop": {"stop": Condition("requested", "end of the task")},
        "latch": {"conditions": (Condition("requested", "a person"),)},
        "reset": {"reset": True},
        "reset line": {"reset": True, "reset_line": True},
        "park": {"quit": "park"},
        "here": {"quit": "here"},
    }
    wishes: dict[str, dict[str, Any]] = dict(wish)
    for (a, first), (b, second) in combinations(wish.items(), 2):
        if not first.keys() & second.keys():
            wishes[f"{a}+{b}"] = {**first, **second}
    made = [Event(name, Inbox(**fields)) for name, fields in wishes.items()]
    for name in wish:
        inbox = Inbox(**wishes[name])
        made += [
            Event(f"{name}+faulty", inbox, sample="faulty"),
            Event(f"{name}+missing", inbox, sample="missing"),
            Event(f"{name}+pushed", inbox, sample="pushed"),
            Event(f"{name}+near", inbox, rows="near"),
            Event(f"{name}+nan", inbox, rows="nan"),
        ]
    for code in (*REACTIONS, "a code that nobody knows"):
        made.append(Event(code, Inbox(conditions=(Condition(code, "noticed"),))))
    pressed = (Condition("stop_input", "pressed"),)
    made.append(Event("reset+pressed", Inbox(reset=True, conditions=pressed)))
    samples: tuple[Sample, ...] = ("missing", "faulty", "stuck", "pushed", "torn", "loaded")
    made += [Event(sample, sample=sample) for sample in samples]
    chunks = ("near", "far", "nan", "stale", "other", "again")
    made += [Event(f"chunk {rows}", rows=rows) for rows in chunks]
    made += [
        Event("tick"),
        Event("gap", step_ns=GAP_NS),
        Event("gap alone", step_ns=GAP_NS, peers=False, sample="missing"),
        Event("slots", Inbox(slots_late=core_config.max_missed_in_a_row)),
        Event("on", lasts=True),
        Event("on, stuck", lasts=True, sample="stuck"),
        Event("on, missing", lasts=True, sample="missing"),
        Event("on, alone", lasts=True, peers=False),
        Event("on, loaded", lasts=True, sample="loaded"),
        Event("on, chunks", lasts=True, rows="near"),
    ]
    return made


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
    if event.peers:
        inbox = replace(inbox, heard_policy=True, heard_supervisor=True)
    may_arm = inbox.arm is not None and inbox.quit is None and joint is not None
    if state.motion is None and may_arm and not any(stops(c.code, {}) for c in inbox.conditions):
        assert joint is not None
        state = core.energised(state, joint, now_ns)
    state, output = core.step(state, now_ns, joint, inbox)
    setpoint = output.setpoint if output.setpoint is not None else node.setpoint
    pressed = any(c.code.startswith("stop_input") for c in event.inbox.conditions)
    pressed_ns = now_ns if pressed else node.pressed_ns
    return Step(node, event, Node(state, now_ns, arm_at, setpoint, pressed_ns), output)


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
    if event.sample == "loaded":
        return replace(joint, load=(0.1, 0.95, 0.1))
    return replace(joint, faults=(0, 32, 0)) if event.sample == "faulty" else joint


def _chunk(state: CoreState, rows: str, now_ns: int, arm_at: tuple[float, ...]) -> Any:
    goal = {"far": (0.9, 1.2, 90.0), "nan": (math.nan, 0.0, 0.0)}.get(rows, (0.5, 0.1, 40.0))
    path = [tuple(a + (b - a) * min(1.0, i / 5) for a, b in zip(arm_at, goal, strict=True)) for i in range(8)]
    return chunk(
        path,
        chunk_id=state.last_chunk_id + (rows != "again"),
        observation_ns=now_ns - (400 if rows == "stale" else 10) * MS,
        task_id=state.task_id + (rows == "other"),
    )


def abstract(node: Node, settings: CoreConfig) -> tuple[Any, ...]:
    """Everything discrete that the core reads in its phase, and every comparison of a time or a distance with
    its limit."""
    state = node.state
    if state.motion is None:
        return (state.phase, state.quitting)
    joint = state.joint
    assert joint is not None
    return (
        state.phase,
        state.stop is not None,
        state.latched,
        state.stop.category if state.stop else None,
        state.quitting,
        state.silent,
        state.unacknowledged,
        at_rest(state.motion),
        any(joint.faults),
        node.now_ns - joint.stamp_ns > settings.joint_state_max_age_ns,
        any(state.overload_since_ns),
        _off(state, settings) > 1.0,
        *_PER_PHASE.get(state.phase, lambda *_: ())(node, settings),
    )


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
    return (
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


def explore(core: ControlCore, check: Check, events: list[Event] | None = None, keep: int = 1) -> Coverage:
    """Every reachable abstract state x every event. `keep`: how many nodes of one state are followed.

    Raises `Violated` for the first step that `check` objects to.
    """
    settings, coverage = core.config, Coverage()
    events = every_event(settings) if events is None else events
    first = start()
    found = Counter({abstract(first, settings): 1})
    queue = deque([first])
    while queue:
        node = queue.popleft()
        home = abstract(node, settings)
        coverage.phases.add(node.state.phase)
        for event in events:
            coverage.events[event.name] += 1
            for step in _stretch(core, node, event, home):
                coverage.steps += 1
                for objection in check(core, step):
                    way = [*coverage.way_to(home), event.name]
                    raise Violated(f"{objection} (by {' > '.join(way)}: {_told(step)})")
                _note(coverage, step)
                key = abstract(step.after, settings)
                if step.output.finish is None and found[key] < keep:
                    if not found[key]:
                        coverage.path[key] = (home, event.name)
                    found[key] += 1
                    queue.append(step.after)
    coverage.states = len(found)
    return coverage


def _stretch(core: ControlCore, node: Node, event: Event, home: tuple[Any, ...]) -> Iterator[Step]:
    for _ in range(LONGEST if event.lasts else 1):
        step = advance(core, node, event)
        yield step
        node = step.after
        if step.output.finish is not None or abstract(node, core.config) != home:
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
