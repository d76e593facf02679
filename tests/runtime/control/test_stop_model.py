"""No sequence of events leads from a latched stop into motion, but for a reset and then a request.

`stop_model` explores the real core, `stop_claims` has what must hold at every step. That they would notice is
tested too: a core with a mistake in it must violate a claim.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace as changed
from typing import Any

import pytest

from holdfast.drivers.types import JointState
from holdfast.runtime.control import chain, requests, settle
from holdfast.runtime.control import core as core_module
from holdfast.runtime.control.config import CoreConfig
from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.deadlines import REACTIONS, Reaction
from holdfast.runtime.control.quick import replace
from holdfast.runtime.control.smoother import Motion
from holdfast.runtime.control.state import CoreState, Inbox, Note
from holdfast.runtime.control.tools import Violation
from holdfast.runtime.messages import Phase

from .stop_claims import check
from .stop_events import every_event
from .stop_model import OF_THE_POLICY, Violated, explore, model_config

BUT_FOR_THE_WORST = {code: "stop_2" for code, row in REACTIONS.items() if row.kind == "stop"}
BUT_FOR_THE_WORST |= {"temperature": "stop_1", "stop_input": "stop_0", "over_budget": "hold"}
ROBOTS: dict[str, dict[str, Any]] = {
    "holds, parks": {},
    "goes limp": {"stop_category": 1, "after_fault": "release_here", "at_exit": "release_here"},
    "never let go": {"at_exit": "hold_energised"},
    "cut at once": {"stop_category": 0, "after_fault": "release_here", "at_exit": "release_here"},
    "cut for the worst": {"stop_category": 0, "reactions": BUT_FOR_THE_WORST},
}
NEVER = {
    "holds, parks": {Phase.RELEASED},
    "goes limp": {Phase.STOPPED},
    "never let go": {Phase.RELEASED},
    "cut at once": {Phase.STOPPED},
    "cut for the worst": set[Phase](),
}
"""Phases that a robot does not know."""
CATEGORIES = {
    "holds, parks": {2},
    "goes limp": {1},
    "never let go": {2},
    "cut at once": {0},
    "cut for the worst": {0, 1, 2},
}
CLASSES = ("holds, parks", "goes limp", "cut at once")
"""Robots for which states are told apart by what a stop was for."""
KEEP = int(os.environ.get("STOP_MODEL_KEEP", "1"))
"""How many concrete states of each abstract one are followed."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("robot", ROBOTS)
def test_no_sequence_of_events_breaks_a_claim(robot: str, record_property: Callable[[str, object], None]):
    core = ControlCore(model_config(**ROBOTS[robot]))
    coverage = explore(core, check, keep=KEEP, classes=robot in CLASSES)
    transitions = sum(coverage.events.values())
    for name, value in (("states", coverage.states), ("transitions", transitions), ("ticks", coverage.steps)):
        record_property(name, value)
    print(f"{robot}: {coverage.states} states, {transitions} transitions, {coverage.steps} ticks")
    assert coverage.phases == set(Phase) - NEVER[robot]
    assert coverage.states >= 80
    # Every event met every state, every row among them; the basic ones also for each class of stops.
    events = every_event(core.config)
    assert coverage.events.keys() == {event.name for event in events}
    assert set(REACTIONS) <= coverage.events.keys()
    assert len({coverage.events[event.name] for event in events if not event.basic}) == 1
    assert {coverage.events[event.name] for event in events if event.basic} == {
        coverage.states * KEEP
    } or KEEP > 1
    assert coverage.finishes == (
        {"release"} if robot in ("goes limp", "cut at once") else {"release", "hold"}
    )
    assert coverage.categories == CATEGORIES[robot]


# Mistakes that somebody could make in the core: the search must find a way to the harm in each.

Patch = pytest.MonkeyPatch


def obeys_an_arm_while_latched(patch: Patch) -> None:
    def careless(
        state: CoreState, config: CoreConfig, now_ns: int, inbox: Inbox, notes: list[Note]
    ) -> CoreState:
        state = requests.take_requests(state, config, now_ns, inbox, notes)
        if inbox.arm is not None and state.phase == Phase.STOPPED:
            return requests._arm(state, config, now_ns, inbox, notes)
        return state

    patch.setattr(core_module, "take_requests", careless)


def obeys_an_arm_while_quitting(patch: Patch) -> None:
    def careless(
        state: CoreState, config: CoreConfig, now_ns: int, inbox: Inbox, notes: list[Note]
    ) -> CoreState:
        state = requests.take_requests(state, config, now_ns, inbox, notes)
        if inbox.arm is not None and state.phase == Phase.RETURN:
            return requests._arm(state, config, now_ns, inbox, notes)
        return state

    patch.setattr(core_module, "take_requests", careless)


def obeys_an_arm_that_comes_with_a_reset(patch: Patch) -> None:
    def careless(
        state: CoreState, config: CoreConfig, now_ns: int, inbox: Inbox, notes: list[Note]
    ) -> CoreState:
        if inbox.reset:
            state = requests.take_requests(state, config, now_ns, Inbox(reset=True), notes)
            inbox = changed(inbox, reset=False)
        return requests.take_requests(state, config, now_ns, inbox, notes)

    patch.setattr(core_module, "take_requests", careless)


def accepts_a_reset_at_any_time(patch: Patch) -> None:
    patch.setattr(requests, "_why_no_reset", lambda state, config, now_ns: None)


def accepts_a_reset_despite_a_fault(patch: Patch) -> None:
    patch.setattr(requests.chain, "check_health", lambda joint, config: None)


def resets_by_moving_to_the_start_pose(patch: Patch) -> None:
    real = requests._reset

    def careless(state: CoreState, config: CoreConfig, now_ns: int, notes: list[Note]) -> CoreState:
        after = real(state, config, now_ns, notes)
        return (
            after if after is state else requests.begin_return(after, config, config.start_pose, "at_start")
        )

    patch.setattr(requests, "_reset", careless)


def resets_to_where_the_arm_hangs(patch: Patch) -> None:
    real = requests._reset

    def careless(state: CoreState, config: CoreConfig, now_ns: int, notes: list[Note]) -> CoreState:
        after = real(state, config, now_ns, notes)
        if after is state or after.joint is None:
            return after
        return replace(after, motion=Motion.at_rest(after.joint.position))

    patch.setattr(requests, "_reset", careless)


def forgets_a_stop_input(patch: Patch) -> None:
    patch.setattr(requests, "STOP_INPUT_NS", 0)


def brakes_before_it_cuts(patch: Patch) -> None:
    patch.setattr(ControlCore, "_let_go", staticmethod(lambda state, notes: state))


def counts_a_row_only(patch: Patch) -> None:
    patch.setitem(REACTIONS, "temperature", Reaction("count", "a motor is too hot"))


def forgets_the_latch(patch: Patch) -> None:
    patch.setattr(CoreState, "latched", property(lambda state: False))


def does_not_brake(patch: Patch) -> None:
    patch.setattr(ControlCore, "_brake", lambda core, before: Motion.at_rest(before.position))


def goes_on_coasting(patch: Patch) -> None:
    def coast(core: ControlCore, before: Motion) -> Motion:
        dt_s = core.config.dt_ns * 1e-9
        ahead = tuple(p + v * dt_s for p, v in zip(before.position, before.velocity, strict=True))
        return replace_motion(before, ahead)

    patch.setattr(ControlCore, "_brake", coast)


def replace_motion(motion: Motion, position: tuple[float, ...]) -> Motion:
    return Motion(position, motion.velocity, motion.acceleration)


def eases_away_from_the_arm(patch: Patch) -> None:
    def away(commanded: float, measured: float, droop: float, low: float, high: float) -> float:
        return commanded + 0.1 * (commanded - measured)

    patch.setattr(settle, "_toward", away)


def commands_motors_that_were_silent(patch: Patch) -> None:
    def always(state: CoreState) -> tuple[float, ...] | None:
        return None if state.motion is None or state.phase == Phase.RELEASED else state.motion.position

    patch.setattr(ControlCore, "_setpoint", staticmethod(always))


def commands_released_motors(patch: Patch) -> None:
    patch.setattr(
        ControlCore, "_setpoint", staticmethod(lambda state: state.motion.position if state.motion else None)
    )


def releases_after_a_fault(patch: Patch) -> None:
    patch.setattr(settle, "_end_after_fault", lambda state, config: "release" if state.quitting else None)


def parks_although_told_to_stay(patch: Patch) -> None:
    real = settle._leave

    def careless(state: CoreState, config: CoreConfig, notes: list[Note]) -> tuple[CoreState, str | None]:
        return real(replace(state, quitting="park"), config, notes)

    patch.setattr(settle, "_leave", careless)


def looks_at_no_motor(patch: Patch) -> None:
    """But for its fault bits."""
    real = chain.check_health

    def careless(joint: JointState, config: CoreConfig) -> Violation | None:
        found = real(joint, config)
        return found if found is not None and found.code == "motor_fault" else None

    patch.setattr(chain, "check_health", careless)


def never_cools(patch: Patch) -> None:
    """Only voltages are judged."""
    real = chain.check_health
    patch.setattr(
        chain,
        "check_health",
        lambda joint, config: real(changed(joint, temperature_c=(30.0,) * 3), config),
    )


def measures_no_current(patch: Patch) -> None:
    patch.setattr(chain, "overcurrent_since", lambda joint, since, config, now_ns: (0, 0, 0))


def grips_as_hard_as_it_can(patch: Patch) -> None:
    patch.setattr(chain, "gripping_since", lambda joint, since, config, now_ns: (0, 0, 0))


def hears_the_policy_in_the_supervisor(patch: Patch) -> None:
    real = ControlCore._heard

    def careless(
        core: ControlCore, state: CoreState, now_ns: int, joint: JointState | None, inbox: Inbox
    ) -> CoreState:
        return real(core, state, now_ns, joint, changed(inbox, heard_policy=inbox.heard_supervisor))

    patch.setattr(ControlCore, "_heard", careless)


def hears_the_supervisor_in_the_policy(patch: Patch) -> None:
    real = ControlCore._heard

    def careless(
        core: ControlCore, state: CoreState, now_ns: int, joint: JointState | None, inbox: Inbox
    ) -> CoreState:
        heard = inbox.heard_supervisor or inbox.heard_policy
        return real(core, state, now_ns, joint, changed(inbox, heard_supervisor=heard))

    patch.setattr(ControlCore, "_heard", careless)


def resets_by_itself_when_a_camera_is_back(patch: Patch) -> None:
    """A stop for one reason only, in a state in which all other stops stay."""

    def careless(
        state: CoreState, config: CoreConfig, now_ns: int, inbox: Inbox, notes: list[Note]
    ) -> CoreState:
        if state.stop is not None and state.stop.code in OF_THE_POLICY and state.stop_complete:
            return requests._reset(state, config, now_ns, notes)
        return requests.take_requests(state, config, now_ns, inbox, notes)

    patch.setattr(core_module, "take_requests", careless)


MISTAKES: dict[Callable[[Patch], None], str] = {
    obeys_an_arm_while_latched: "holds, parks",
    obeys_an_arm_while_quitting: "holds, parks",
    obeys_an_arm_that_comes_with_a_reset: "holds, parks",
    accepts_a_reset_at_any_time: "holds, parks",
    accepts_a_reset_despite_a_fault: "holds, parks",
    resets_by_moving_to_the_start_pose: "holds, parks",
    resets_to_where_the_arm_hangs: "holds, parks",
    forgets_a_stop_input: "holds, parks",
    brakes_before_it_cuts: "cut for the worst",
    counts_a_row_only: "holds, parks",
    forgets_the_latch: "holds, parks",
    does_not_brake: "holds, parks",
    goes_on_coasting: "holds, parks",
    eases_away_from_the_arm: "holds, parks",
    commands_motors_that_were_silent: "holds, parks",
    commands_released_motors: "goes limp",
    releases_after_a_fault: "holds, parks",
    parks_although_told_to_stay: "holds, parks",
    looks_at_no_motor: "holds, parks",
    never_cools: "holds, parks",
    measures_no_current: "holds, parks",
    grips_as_hard_as_it_can: "holds, parks",
    hears_the_policy_in_the_supervisor: "holds, parks",
    hears_the_supervisor_in_the_policy: "holds, parks",
    resets_by_itself_when_a_camera_is_back: "holds, parks",
}
"""Each with the robot on which it does harm."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_in_the_core_is_found(mistake: Callable[[Patch], None], monkeypatch: Patch):
    core = ControlCore(model_config(**ROBOTS[MISTAKES[mistake]]))
    mistake(monkeypatch)
    with pytest.raises(Violated) as found:
        explore(core, check)
    print(f"{mistake.__name__}: {found.value}")
