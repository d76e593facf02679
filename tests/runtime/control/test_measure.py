"""Rates, and what control says about itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.runtime.budgets import Budgets
from holdfast.runtime.channel import Channel, channel_pair
from holdfast.runtime.control.deadlines import StarvationAccount
from holdfast.runtime.control.executor import Execution, Path
from holdfast.runtime.control.measure import Rates
from holdfast.runtime.control.smoother import Motion
from holdfast.runtime.control.state import CoreState, Note
from holdfast.runtime.control.telemetry import Telemetry
from holdfast.runtime.messages import Event, Histogram, Phase, Snapshot

from .world import MS, joint_state

S = 1_000_000_000
HERE = (0.2, -0.3, 10.0)
ARMED = CoreState(phase=Phase.RUN, motion=Motion.at_rest(HERE))


def test_rates_say_now_average_and_when_the_worst_second_was():
    rates = Rates()
    now = S
    for second in range(5):
        for _ in range(80 if second == 2 else 100):
            rates.tick(now)
            now += S // (80 if second == 2 else 100)
    rates.tick(6 * S)
    assert rates.now_hz == 100
    assert rates.worst_hz == 80
    assert rates.worst_second_ns == 3 * S
    assert rates.average_hz == pytest.approx(96, abs=0.1)


def test_a_second_without_any_tick_is_the_worst():
    rates = Rates()
    for now in (S, S + S // 2, 3 * S + S // 2, 4 * S, 5 * S):
        rates.tick(now)
    assert (rates.worst_hz, rates.worst_second_ns) == (0.0, 2 * S)


def test_arming_is_no_second_of_the_loop():
    rates = Rates()
    rates.tick(S)
    rates.restart(10 * S)
    rates.tick(10 * S)
    assert rates.worst_second_ns == 0


class Desk:
    """A telemetry with a clock, and the supervisor's end of its channel."""

    def __init__(self, budgets: Budgets) -> None:
        ours, theirs = channel_pair()
        policy, _ = channel_pair()
        self.now = S
        self.supervisor = Channel(ours, 1)
        self.telemetry = Telemetry(Channel(theirs, 1), Channel(policy, 1), lambda: self.now, budgets)

    def second(self, step_ms: float, state: CoreState = ARMED) -> list[str]:
        """A hundred ticks; the conditions that came of them."""
        found = []
        for _ in range(100):
            self.telemetry.stages.add("step", round(step_ms * MS))
            sample = joint_state(HERE, self.now)
            found += self.telemetry.tick_done(state, sample, self.now)
            self.now += S // 100
        return [condition.text for condition in found if condition.code == "over_budget"]

    def heard(self) -> list[object]:
        return [envelope.message for envelope in self.supervisor.receive_all()]


@pytest.fixture
def desk() -> Desk:
    return Desk(Budgets({"step": MS}, 0.05))


def test_a_stage_above_its_budget_is_a_condition_once_a_second(desk: Desk):
    assert desk.second(0.5) == []
    desk.second(2.0)
    (text,) = desk.second(2.0)
    assert text.startswith("step: ")
    assert "longer than the budget of 1 ms" in text
    newest = [message for message in desk.heard() if isinstance(message, Histogram)][-1]
    assert (newest.stage, newest.budget_ns) == ("step", MS)
    assert newest.window_over > 0


def test_before_torque_no_budget_counts(desk: Desk):
    for _ in range(3):
        assert desk.second(2.0, CoreState()) == []
    desk.telemetry.armed(desk.now)
    assert desk.second(0.5) == []


def test_after_a_reset_the_window_is_new(desk: Desk):
    desk.second(2.0)
    assert desk.second(2.0) != []
    desk.telemetry.report(Note("reset", "a person"))
    assert desk.second(0.5) == []


def test_a_reset_that_is_refused_forgets_nothing(desk: Desk):
    desk.second(2.0)
    desk.telemetry.report(Note("reset", "refused: the arm is still coming to rest; try again"))
    assert desk.second(0.5) != []


def test_only_commands_that_follow_a_chunk_have_its_age(desk: Desk):
    execution = Execution((Path(7, S, S, 50 * MS, (HERE,) * 8),), (S,))
    following = replace(ARMED, execution=execution)
    desk.telemetry.tick_done(following, joint_state(HERE, desk.now), desk.now + 5 * MS)
    for state in (replace(following, starved=True), replace(following, phase=Phase.STOPPING), ARMED):
        desk.now += S
        desk.telemetry.tick_done(state, joint_state(HERE, desk.now), desk.now)
    assert desk.telemetry.stages.all["action_age"].count == 1
    ages = [message.chunk_age_ns for message in desk.heard() if isinstance(message, Snapshot)]
    assert ages == [5 * MS, 0, 0, 0]


def test_conditions_that_last_are_told_every_few_seconds_each_stage_by_itself(desk: Desk):
    for second in range(12):
        desk.now = (10 + second) * S
        desk.telemetry.report(Note("over_budget", f"tick: {second} of 100"))
        desk.telemetry.report(Note("over_budget", f"step: {second} of 100"))
        desk.telemetry.report(Note("starving", f"{second} times"))
    told = [(m.code, m.text.partition(":")[0]) for m in desk.heard() if isinstance(m, Event)]
    assert told.count(("over_budget", "tick")) == told.count(("over_budget", "step")) == 3
    assert sum(code == "starving" for code, _ in told) == 3


def test_a_snapshot_has_the_starvation_altogether_and_of_late(desk: Desk):
    account = StarvationAccount().at(S, True).at(3 * S, False).at(20 * S, True)
    desk.now = 21 * S
    desk.telemetry.tick_done(replace(ARMED, starvation=account), joint_state(HERE, desk.now), desk.now)
    snapshot = next(message for message in desk.heard() if isinstance(message, Snapshot))
    assert (snapshot.starved, snapshot.starved_ns) == (2, 3 * S)
    assert (snapshot.starved_recently, snapshot.starved_recently_ns) == (1, S)
