"""What is told of an arm says no more than the recording knows: killed, dry, lost, asked for, ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.runtime.control.state import Condition, Inbox, Output
from holdfast.runtime.messages import Phase
from holdfast.runtime.recorder.account import Account, account_of, as_json
from holdfast.runtime.recorder.kinds import KILLED, REQUEST
from holdfast.runtime.recorder.records import EventRecord, Recording, Tick
from holdfast.runtime.recorder.story import tell
from holdfast.runtime.recorder.timeline import timeline

from ..control.world import MS, arm, joint_state
from .flight import Flight

ENDED = "control process: killed by SIGKILL"
DRY = {"options": {"dry_run": True}}


def told(account: Account) -> str:
    return "\n".join(line for section in tell(account) for line in (section.title, *section.lines))


def story_of(recording: Recording) -> str:
    return told(account_of(recording))


def killed_control(flight: Flight) -> tuple[EventRecord, ...]:
    return (EventRecord(flight.bench.now_ns + 20 * MS, "supervisor", "ended", ENDED, -9.0, 1),)


# Killed


def test_a_run_that_was_killed_as_a_whole_is_told_as_the_death_of_control() -> None:
    text = story_of(Flight(goal=0.9).go(25).recording(reason=KILLED))
    assert "Control ended without a stop (it was killed, as were all other processes of the run)." in text
    assert "the arm was following chunks" in text
    assert "its motors go to the last goal and hold" in text
    assert "left to go" in text
    assert "look at the arm first" in text
    assert "The next start needs --reset." in text
    assert "~/.local/state/holdfast/logs" in text
    assert "written for: found at a later start" in text
    assert "No protective stop" not in text


def test_a_run_that_was_over_before_it_was_killed_did_not_die() -> None:
    recording = Flight().go(25).recording(reason=KILLED)
    last = recording.ticks[-1]
    over = replace(last, output=replace(last.output, finish="release"))
    account = account_of(replace(recording, ticks=(*recording.ticks[:-1], over)))
    assert account.control_died == ""


def test_killed_while_stopped_is_about_the_stop_and_says_both() -> None:
    account = account_of(Flight(goal=0.9).go(25).stop().rest().recording(reason=KILLED))
    assert account.stop is not None
    assert "Control then ended as it should not: it was killed" in told(account)


def test_killed_after_a_reset_is_about_the_death() -> None:
    flight = Flight(goal=0.9).go(25).stop("chunk_stale", "450 ms old").rest()
    flight.bench.tick(Inbox(reset=True))
    flight.bench.tick(Inbox(arm=arm()))
    account = account_of(flight.go(10).recording(reason=KILLED))
    assert account.stop is None
    text = told(account)
    assert "Control ended without a stop" in text
    assert "A stop earlier: chunk_stale (450 ms old) at -" in text


def test_the_last_goal_is_the_last_one_that_was_sent() -> None:
    """Control may die between deciding and sending."""
    flight = Flight(goal=0.9).go(25)
    ticks = flight.tape.ticks
    goal = ticks[-3].output.setpoint
    assert goal is not None
    assert goal != ticks[-1].output.setpoint
    recording = flight.recording(reason=KILLED, bus=flight.sent(until=len(ticks) - 2))
    account = account_of(recording)
    assert as_json(account)["motors"]["last_goal_ns"] == ticks[-3].now_ns
    assert f"{goal[0]:.3f} rad" in told(account)


def before_arming(**changes: Any) -> Recording:
    """Ticks without torque."""
    flight = Flight().go(1)
    idle = [
        Tick(2 * k + 1, 10 * MS * k, 10 * MS * k, 0, joint_state((0.0, 0.0, 0.0), 10 * MS * k), Inbox(),
             Phase.CONNECT, Output(None))
        for k in range(1, 20)
    ]  # fmt: skip
    return replace(flight.recording(), ticks=tuple(idle), states=(), bus=(), chunks={}, **changes)


def test_killed_before_arming_nothing_is_said_of_goals() -> None:
    text = story_of(before_arming(reason=KILLED))
    assert "This run had not given torque, and had commanded nothing." in text
    assert "last goal" not in text
    assert "leaves nothing that the next start needs --reset for" in text


# A dry run


def test_a_dry_run_says_what_the_core_was_told_and_measures_nothing() -> None:
    flight = Flight(goal=0.9).go(25).stop().rest()
    text = story_of(flight.recording(run=DRY, bus=()))
    assert "A dry run: no torque was given and the arm was not moved" in text
    assert "told last" in text
    assert "not sent" in text
    for untrue in ("measured last", "arm moved", "The arm itself stood", "holding with torque on"):
        assert untrue not in text
    assert "It was a dry run: it leaves nothing that the next start needs --reset for." in text
    assert "The next start needs --reset" not in text


def test_a_dry_run_that_was_killed_left_no_goal() -> None:
    text = story_of(Flight().go(25).recording(run=DRY, bus=(), reason=KILLED))
    assert "A dry run: no torque was given, the arm was not moved." in text
    assert "motors go to" not in text
    assert "left to go" not in text


# Motors that are lost


def test_without_a_port_nothing_is_said_of_what_the_arm_did() -> None:
    flight = Flight(goal=0.9).go(25)
    sent = flight.sent()
    flight.bench.arm_follows = False
    flight.bench.tick(Inbox(conditions=(Condition("bus_lost", "the port went away"),)), bus=False)
    for _ in range(60):
        flight.bench.tick(bus=False)
    account = account_of(flight.recording(bus=sent))
    braking = account.braking
    assert braking is not None
    assert braking.last_sent_s is None
    assert {row.braked for row in braking.joints} == {None}
    text = told(account)
    assert "None of it was sent to the motors after the stop." in text
    assert "not sent" in text
    assert "How the arm took it is not known: the port to the motors was lost." in text
    assert "what its motors do is not known" in text
    assert "the commanded motion is at rest, as computed: no goal was sent" in text
    assert "holding with torque on" not in text


def test_motors_without_power_are_not_said_to_have_braked() -> None:
    """Goals still leave for them."""
    flight = Flight(goal=0.9).go(25)
    flight.bench.arm_follows = False
    for _ in range(70):
        flight.bench.tick(bus=False)
    account = account_of(flight.recording())
    assert account.stop is not None
    assert account.stop.code == "joint_state_stale"
    text = told(account)
    assert "whether the motors took it is not known" in text
    assert "were silent and may have lost power" in text
    assert "goals sent on" in text
    assert "braked over" not in text
    assert "holding with torque on" not in text


def test_an_arm_that_answers_is_said_to_hold() -> None:
    account = account_of(Flight(goal=0.9).go(25).stop().rest().recording())
    assert account.motors.lost == ""
    assert "stopped, latched, holding with torque on" in told(account)


# Requests


def test_a_request_after_a_reset_is_about_the_request() -> None:
    flight = Flight(goal=0.9).go(25).stop("chunk_stale", "450 ms old").rest()
    flight.bench.tick(Inbox(reset=True))
    flight.bench.tick(Inbox(arm=arm()))
    account = account_of(flight.go(10).recording(reason=REQUEST))
    assert account.at_ns == account.last.now_ns
    text = told(account)
    assert text.splitlines()[1].startswith("A person asked for this recording at ")
    assert "A stop earlier: chunk_stale (450 ms old) at -" in text
    assert "Check next" not in text
    assert "In order, in seconds from the request for this recording" in text


def test_a_request_during_a_stop_is_about_the_stop() -> None:
    account = account_of(Flight(goal=0.9).go(25).stop().rest().recording(reason=REQUEST))
    assert account.stop is not None
    assert account.at_ns == account.stop.at_ns


# The end


@pytest.mark.parametrize(
    ("at_exit", "quit_as", "expected"),
    [
        ("park_release", "park", "asked to end, to park and release the arm"),
        ("hold_energised", "park", "asked to end, to leave the arm holding where it is"),
        ("release_here", "park", "asked to end, to release the arm where it is"),
        ("park_release", "here", "asked to end, where the arm is"),
    ],
)
def test_the_end_that_was_asked_for(at_exit: str, quit_as: Any, expected: str) -> None:
    flight = Flight(changes={"at_exit": at_exit}).go(25)
    flight.bench.tick(Inbox(quit=quit_as))
    assert [e.text for e in timeline(flight.recording()) if e.code == "quit"] == [expected]


@pytest.mark.parametrize("rest", [1, 100])
def test_after_a_stop_nothing_is_said_of_parking(rest: int) -> None:
    flight = Flight(goal=0.9).go(25).stop().rest(rest)
    flight.bench.tick(Inbox(quit="park"))
    (text,) = [e.text for e in timeline(flight.recording()) if e.code == "quit"]
    assert text == "asked to end; after a stop the arm is not moved to a pose"


@pytest.mark.parametrize("strategy", ["fusion", "sequential", "ensemble", "newest"])
def test_every_strategy_is_told_with_the_chunk_that_it_follows(strategy: str) -> None:
    flight = Flight(goal=0.6, changes={"strategy": strategy}).go(95, chunk_every=10)
    account = account_of(flight.stop().rest().recording())
    assert account.result.identical
    chunk = account.evidence.chunk
    assert chunk is not None
    begun = [t for t in account.recording.ticks if t.output.new_chunk_id]
    assert (chunk.chunk_id, chunk.first_used_ns) == (begun[-1].output.new_chunk_id, begun[-1].now_ns)
    assert chunk.lasts_until_ns is not None
    assert chunk.lasts_until_ns > chunk.first_used_ns
    text = told(account)
    assert f"strategy {strategy}" not in text, "the bench has no run.json"
    assert f"chunk {chunk.chunk_id} is the newest begun" in text
