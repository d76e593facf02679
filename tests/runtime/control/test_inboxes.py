"""From channels, parent and inputs to one inbox: what is on record first."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from holdfast.runtime.channel import Channel, channel_pair
from holdfast.runtime.control.clock import Wake
from holdfast.runtime.control.inbox import Inboxes
from holdfast.runtime.control.state import Condition, Inbox
from holdfast.runtime.control.stop_inputs import Polled
from holdfast.runtime.messages import Arm, Fault, Quit, Stop
from holdfast.runtime.parent import ending, orphaned

from ...processes import wait_for

WAKE = Wake(0, 0, 1, 0, 0)


@dataclass
class Ends:
    supervisor: Channel
    policy: Channel
    inboxes: Inboxes

    def collect(self, *pending: Condition, terminated: bool = False, polled: Polled | None = None) -> Inbox:
        return self.inboxes.collect(WAKE, list(pending), terminated, polled)

    def codes(self, terminated: bool = False) -> list[str]:
        return [condition.code for condition in self.collect(terminated=terminated).conditions]


def ends(parent: int = 0) -> Ends:
    ours_s, theirs_s = channel_pair()
    ours_p, theirs_p = channel_pair()
    inboxes = Inboxes(Channel(theirs_s, 1), Channel(theirs_p, 1), set(), parent)
    return Ends(Channel(ours_s, 1), Channel(ours_p, 1), inboxes)


def test_the_death_of_the_supervisor_is_on_record_before_that_of_the_policy_which_it_causes() -> None:
    both = ends()
    both.policy.close()
    both.supervisor.close()
    assert both.codes() == ["supervisor_lost", "policy_lost"]
    assert both.codes() == []


def test_the_death_of_the_policy_is_on_record_before_what_the_supervisor_makes_of_it() -> None:
    both = ends()
    both.policy.close()
    both.supervisor.send(Stop(True, "the policy process has ended"))
    assert both.codes() == ["policy_lost", "requested"]


def test_a_parent_that_is_gone_is_a_lost_supervisor_though_its_channel_is_open() -> None:
    orphan = ends(parent=2**22 - 1)
    assert orphan.codes(terminated=True) == ["supervisor_lost", "requested"]
    assert orphan.codes() == [], "once"


def test_a_parent_that_lives_is_none() -> None:
    assert ends(parent=os.getppid()).codes() == []
    both = ends(parent=os.getppid())
    both.policy.close()
    assert both.codes() == ["policy_lost"]


def test_a_dying_parent_is_the_reason_of_a_policy_that_died_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of its threads may still be on their way, and hold its ends of the channels open."""
    dying = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        monkeypatch.setattr(os, "getppid", lambda: dying.pid)
        both = ends(parent=dying.pid)
        both.policy.close()
        assert not ending(dying.pid)
        dying.kill()
        wait_for(lambda: ending(dying.pid), "a zombie")
        assert not orphaned(dying.pid)
        assert both.codes() == ["supervisor_lost", "policy_lost"]
    finally:
        dying.kill()
        dying.wait()
    assert not ending(dying.pid), "nothing is known of a process that is not there"


def test_what_the_inputs_say_comes_after_what_was_noticed_before_and_before_what_peers_say() -> None:
    both = ends()
    both.policy.send(Fault("non_finite", "NaN"))
    polled = Polled((Condition("stop_input", "pressed"),), reset=True)
    inbox = both.collect(Condition("bus_lost", "gone"), polled=polled)
    assert [condition.code for condition in inbox.conditions] == ["bus_lost", "stop_input", "non_finite"]
    assert inbox.reset


def test_a_reset_input_counts_as_the_reset_of_a_person_in_the_same_tick() -> None:
    both = ends()
    both.supervisor.send(Arm(1, True, False, 1, 1))
    inbox = both.collect(polled=Polled(reset=True))
    assert inbox.reset
    assert inbox.arm is None, "it must not move as soon as somebody resets it"
    both.supervisor.send(Quit(park=True))
    inbox = both.collect(polled=Polled(reset=True))
    assert not inbox.reset
    assert inbox.quit == "park"
