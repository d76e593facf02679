"""What time and the arm's reports make of a state, each at its limit and a hair beyond it."""

from __future__ import annotations

from dataclasses import replace as changed
from typing import Any

import pytest

from holdfast.drivers.types import JointState
from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.deadlines import WINDOW_NS, SlotAccount, StarvationAccount
from holdfast.runtime.control.executor import Execution, Path
from holdfast.runtime.control.quick import replace
from holdfast.runtime.control.state import Condition, CoreState
from holdfast.runtime.control.watch import watch
from holdfast.runtime.messages import Phase

from .world import MS, config, joint_state

CONFIG = config(current_a=2.0, grip=(None, None, (0.5, 200 * MS)))
NOW = 1_000_000 * MS
HERE = (0.2, -0.3, 10.0)
PATH = Path(7, NOW - 500 * MS, NOW - 500 * MS, 50 * MS, (HERE,) * 8)


def following(**changes: Any) -> CoreState:
    """A run in which nothing is wrong."""
    sample = joint_state(HERE, NOW)
    state = ControlCore(CONFIG).energised(CoreState(), sample, NOW)
    return replace(
        state,
        phase=Phase.RUN,
        silence_limit_ns=300 * MS,
        execution=Execution((PATH,), (NOW - 500 * MS,)),
        **changes,
    )


def conditions(
    state: CoreState, joint: JointState | None = None, now_ns: int = NOW, **settings: Any
) -> list[Condition]:
    return watch(state, changed(CONFIG, **settings), now_ns, joint)


def codes(state: CoreState, joint: JointState | None = None, now_ns: int = NOW, **settings: Any) -> list[str]:
    return [condition.code for condition in conditions(state, joint, now_ns, **settings)]


def test_where_nothing_is_wrong_nothing_is_found() -> None:
    assert codes(following(), joint_state(HERE, NOW)) == []


@pytest.mark.parametrize(("missed", "found"), [(4, []), (5, ["missed_in_a_row"]), (6, ["missed_in_a_row"])])
def test_slots_missed_in_a_row(missed: int, found: list[str]) -> None:
    assert codes(following(slots=SlotAccount(in_a_row=missed))) == found


@pytest.mark.parametrize(("missed", "found"), [(10, []), (11, ["missed_fraction"])])
def test_the_share_of_missed_slots(missed: int, found: list[str]) -> None:
    assert codes(following(slots=SlotAccount(half_total=200, half_missed=missed))) == found


def test_the_age_of_the_joint_state() -> None:
    def found(age_ns: int) -> list[Condition]:
        return conditions(following(joint=joint_state(HERE, NOW - age_ns)))

    assert found(80 * MS) == []
    assert [c.code for c in found(80 * MS + 1)] == ["joint_state_stale"]
    assert found(120 * MS)[0].text == "the last complete joint state is 120 ms old, allowed are 80"


def test_no_joint_state_at_all_is_as_old_as_time_itself() -> None:
    assert codes(following(joint=None)) == ["joint_state_stale"]
    for now_ns in (80 * MS, 80 * MS + 1):
        assert ("joint_state_stale" in codes(following(joint=None), now_ns=now_ns)) is (now_ns > 80 * MS)


def test_the_silence_of_the_supervisor() -> None:
    for ago_ns, found in ((1000 * MS, []), (1000 * MS + 1, ["supervisor_silent"])):
        assert codes(following(supervisor_heard_ns=NOW - ago_ns)) == found
    assert conditions(following(supervisor_heard_ns=NOW - 1500 * MS))[0].text == "for 1500 ms"


@pytest.mark.parametrize("phase", Phase)
def test_the_silence_of_the_policy_counts_while_it_is_followed(phase: Phase) -> None:
    for ago_ns, found in ((300 * MS, []), (300 * MS + 1, ["policy_silent"])):
        state = replace(following(policy_heard_ns=NOW - ago_ns), phase=phase)
        assert codes(state) == (found if phase == Phase.RUN else [])
    state = following(policy_heard_ns=NOW - 450 * MS)
    assert conditions(state)[0].text == "for 450 ms, allowed are 300 ms"


BAD: list[tuple[dict[str, Any], str]] = [
    ({"faults": (0, 4, 0)}, "motor_fault"),
    ({"voltage_v": (7.4, 3.0, 7.4)}, "voltage"),
    ({"temperature_c": (30.0, 70.0, 30.0)}, "temperature"),
    ({"position": (0.7, -0.3, 10.0)}, "following_error"),
]


@pytest.mark.parametrize(("sample", "code"), BAD)
def test_a_sample_that_says_something_bad(sample: dict[str, Any], code: str) -> None:
    joint = changed(joint_state(HERE, NOW), **sample)
    found = conditions(following(), joint)
    assert [c.code for c in found] == [code]
    assert found[0].text.startswith(("pan", "lift"))
    assert codes(following(joint=joint)) == [], "an old sample was judged when it came"
    assert codes(following(motion=None), joint) == [], "without torque nothing is to be followed"


@pytest.mark.parametrize(
    ("field", "joint", "most_ms", "code"),
    [
        ("overload_since_ns", 0, 500, "load"),
        ("stalled_since_ns", 1, 500, "stalled"),
        ("overcurrent_since_ns", 1, 400, "current"),
        ("gripping_since_ns", 2, 200, "gripper_force"),
    ],
)
def test_what_lasts_longer_than_it_may(field: str, joint: int, most_ms: int, code: str) -> None:
    for longer_ns, found in ((0, []), (1, [code])):
        since = tuple(NOW - most_ms * MS - longer_ns if i == joint else 0 for i in range(3))
        state = following(**{field: since})
        assert codes(state, joint_state(HERE, NOW), current_ns=400 * MS) == found
        assert codes(state, current_ns=400 * MS) == [], "without a sample nothing is known"


def test_everything_is_found_at_once() -> None:
    joint = changed(joint_state((0.7, -0.3, 10.0), NOW), faults=(1, 0, 0))
    state = following(
        slots=SlotAccount(in_a_row=9), overload_since_ns=(1, 0, 0), supervisor_heard_ns=1, policy_heard_ns=1
    )
    assert codes(state, joint) == [
        "missed_in_a_row",
        "supervisor_silent",
        "policy_silent",
        "motor_fault",
        "load",
        "following_error",
    ]


def starving(times: int, began_ns: int = NOW) -> CoreState:
    """Since `began_ns` no chunk is left, for the `times`-th time."""
    recent = tuple(
        (NOW - 1000 * MS * (k + 1), NOW - 1000 * MS * k - 600 * MS) for k in reversed(range(times - 1))
    )
    return following(starvation=StarvationAccount(times, began_ns, 0, recent), starved=True)


def test_a_chunk_that_runs_out_is_noticed_once() -> None:
    assert [(c.code, c.text) for c in conditions(starving(1))] == [("starved", "chunk 7 ran out")]
    assert codes(starving(1, began_ns=NOW - 1)) == []


def test_where_there_was_none_it_is_said_without_a_number() -> None:
    assert conditions(replace(starving(1), execution=None))[0].text == "the chunk ran out"


@pytest.mark.parametrize("phase", [Phase.HOLD, Phase.STOPPING, Phase.STOPPED, Phase.RETURN])
def test_nothing_runs_out_where_nothing_is_followed(phase: Phase) -> None:
    assert codes(replace(starving(1), phase=phase)) == []


def test_chunks_that_run_out_again_and_again() -> None:
    assert codes(starving(2)) == ["starved"]
    found = conditions(starving(3))
    assert [c.code for c in found] == ["starved", "starving"]
    assert found[1].text == "3 times in 10 s, for 800 ms altogether; below 3 are tolerated"
    assert WINDOW_NS == 10_000 * MS
