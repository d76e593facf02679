"""The accounts of missed slots and starvation, and the table, value by value."""

from __future__ import annotations

import pytest

from holdfast.drivers.errors import ConfigError
from holdfast.runtime.control import deadlines
from holdfast.runtime.control.deadlines import (
    REACTIONS,
    Reaction,
    SlotAccount,
    StarvationAccount,
    check_reactions,
    reaction_to,
    stops,
)

S = 1_000_000_000
HALF = 5 * S

COUNTED = {"starving", "over_budget", "clamped", "bus_error"}
HELD = {"starved"}
CHOICES = {"starved": ("stop",), "starving": ("hold", "stop"), "over_budget": ("hold", "stop")}


def test_every_other_row_is_a_stop_and_offers_no_choice() -> None:
    for code, row in REACTIONS.items():
        kind = "count" if code in COUNTED else "hold" if code in HELD else "stop"
        assert (row.kind, row.choices) == (kind, CHOICES.get(code, ())), code
        assert row.meaning


def test_the_constants_are_what_the_documentation_says() -> None:
    """docs/safety.md and docs/run.md name them; what is derived from them is tested where it is used."""
    assert deadlines.LATE_NS == 500_000
    assert deadlines.WINDOW_NS == 10 * S
    assert deadlines.HOLD_NS == 1.5 * S
    assert deadlines.SUPERVISOR_SILENCE_NS == S
    assert deadlines.SETTLED_NS == 0.1 * S
    assert deadlines.ARRIVAL_NS == 3 * S
    assert deadlines.EASE_WAIT_NS == 0.5 * S
    assert deadlines.STOP_INPUT_NS == 0.2 * S
    assert (deadlines.START_TOLERANCE, deadlines.START_PERCENT) == (0.05, 5.0)


def test_the_reaction_is_the_choice_else_the_row_else_a_stop() -> None:
    assert reaction_to("starved", {}) == "hold"
    assert reaction_to("starved", {"starved": "stop_1"}) == "stop_1"
    assert reaction_to("nobody knows it", {}) == "stop"
    assert reaction_to("nobody knows it", {"nobody knows it": "count"}) == "count"
    assert [stops(code, {}) for code in ("bus_error", "starved", "load", "nobody knows it")] == [
        False,
        False,
        True,
        True,
    ]
    assert stops("starved", {"starved": "stop_2"})
    assert not stops("load", {"load": "hold"})


def test_what_is_offered_is_taken() -> None:
    check_reactions({})
    check_reactions({"starving": "hold", "over_budget": "stop_1", "starved": "hold", "bus_error": "count"})
    check_reactions({"load": "stop_2", "voltage": "stop"})


@pytest.mark.parametrize(
    ("code", "chosen", "words"),
    [
        (
            "starved",
            "count",
            r"starved \(the chunk ran out .*\) cannot be 'count'; the table offers hold or",
        ),
        ("load", "hold", r"cannot be 'hold'; the table offers stop, where a stop may name its category"),
        ("bus_error", "hold", r"cannot be 'hold'; the table offers count$"),
        ("lod", "stop", r"no condition is called 'lod'; known are starved, starving, "),
    ],
)
def test_what_is_not_offered_is_refused_with_what_is(code: str, chosen: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_reactions({"starving": "stop", code: chosen})


def test_a_row_cannot_be_changed() -> None:
    row = Reaction("stop", "x")
    with pytest.raises(AttributeError):
        row.kind = "count"  # pyright: ignore[reportAttributeAccessIssue]


# Slots


def test_slots_are_counted_by_reason() -> None:
    account = SlotAccount().add(S, 1, 0, 0).add(2 * S, 1, 2, 0).add(3 * S, 0, 0, 3)
    assert (account.total, account.late, account.overrun, account.missed) == (7, 2, 3, 5)
    assert (account.half_total, account.half_missed) == (7, 5)


def test_a_row_of_missed_slots_ends_with_one_on_time() -> None:
    account = SlotAccount().add(S, 0, 1, 1)
    assert (account.in_a_row, account.row_ended) == (2, False)
    account = account.add(S, 0, 1, 0)
    assert (account.in_a_row, account.row_ended) == (3, False)
    account = account.add(S, 1, 1, 0)
    assert (account.in_a_row, account.row_ended) == (4, True), "missed before it, then on time"
    account = account.add(S, 1, 0, 0)
    assert (account.in_a_row, account.row_ended) == (0, True)
    account = account.add(S, 0, 0, 1)
    assert (account.in_a_row, account.row_ended) == (1, False)


def test_the_window_is_two_halves_of_which_the_older_goes_whole() -> None:
    account = SlotAccount().add(S, 60, 40, 0)
    assert account.half_start_ns == S
    before = account.add(S + HALF - 1, 1, 0, 0)
    assert (before.half_start_ns, before.half_total, before.previous_total) == (S, 101, 0)
    after = account.add(S + HALF, 1, 1, 1)
    assert (after.half_start_ns, after.half_total, after.half_missed) == (S + HALF, 3, 2)
    assert (after.previous_total, after.previous_missed) == (100, 40)
    assert after.window_fraction == 42 / 103
    later = after.add(S + 2 * HALF, 0, 0, 7)
    assert (later.previous_total, later.previous_missed) == (3, 2)
    assert (later.half_total, later.half_missed, later.total) == (7, 7, 110)


def test_a_window_that_was_never_begun_begins_now() -> None:
    for now_ns in (2 * S, 7 * S):
        assert SlotAccount().add(now_ns, 1, 0, 0).half_start_ns == now_ns


def test_slots_on_time_are_counted_and_rotate_the_window_like_others() -> None:
    account = SlotAccount().add(S, 1, 3, 0).add(2 * S, 1, 0, 0).add(3 * S, 1, 0, 0)
    assert (account.total, account.half_total, account.half_missed, account.late) == (6, 6, 3, 3)
    assert (account.in_a_row, account.row_ended) == (0, True)
    later = account.add(S + HALF - 1, 1, 0, 0)
    assert (later.half_start_ns, later.half_total) == (S, 7)
    later = account.add(S + HALF, 1, 0, 0)
    assert (later.half_start_ns, later.half_total, later.previous_total, later.previous_missed) == (
        S + HALF, 1, 6, 3,
    )  # fmt: skip


def test_a_tick_without_any_slot_ends_no_row() -> None:
    account = SlotAccount().add(S, 0, 2, 0).add(2 * S, 0, 0, 0)
    assert (account.in_a_row, account.row_ended, account.total) == (2, False, 2)
    assert account.add(3 * S, 0, 1, 0).in_a_row == 3
    assert not SlotAccount().add(S, 1, 0, 0).add(2 * S, 0, 0, 0).row_ended


def test_a_row_that_has_ended_is_not_continued_by_the_next() -> None:
    account = SlotAccount().add(S, 1, 4, 0)
    assert (account.in_a_row, account.row_ended) == (4, True)
    assert account.add(2 * S, 0, 1, 0).in_a_row == 1


def test_missed_slots_alone_do_not_rotate_the_window() -> None:
    account = SlotAccount().add(3 * S, 1, 0, 0)
    for now_ns in (4 * S, 7 * S, 8 * S - 1):
        assert account.add(now_ns, 0, 1, 0).half_start_ns == 3 * S
    assert account.add(8 * S, 0, 1, 0).half_start_ns == 8 * S


def test_the_share_is_nothing_until_there_are_a_hundred_slots() -> None:
    assert SlotAccount(half_total=59, half_missed=59, previous_total=40).window_fraction == 0.0
    assert SlotAccount(half_total=60, half_missed=6, previous_total=40).window_fraction == 0.06
    shared = SlotAccount(half_total=60, half_missed=6, previous_total=40, previous_missed=4)
    assert shared.window_fraction == 0.1


def test_after_a_reset_the_totals_stay_and_row_and_window_begin_anew() -> None:
    account = SlotAccount().add(S, 1, 2, 3).add(S + HALF, 1, 1, 1).restarted()
    assert account == SlotAccount(total=9, late=3, overrun=4)


# Starvation


def test_a_time_of_starvation_is_counted_when_it_begins_and_timed_when_it_ends() -> None:
    account = StarvationAccount().at(S, False)
    assert account == StarvationAccount()
    account = account.at(2 * S, True)
    assert (account.times, account.since_ns, account.past_ns, account.recent) == (1, 2 * S, 0, ())
    assert account.at(3 * S, True) == account
    assert account.total_ns(3 * S) == S
    account = account.at(4 * S, False)
    assert (account.times, account.since_ns, account.past_ns) == (1, 0, 2 * S)
    assert account.recent == ((2 * S, 4 * S),)
    assert account.total_ns(9 * S) == 2 * S
    account = account.at(5 * S, True).at(6 * S, False)
    assert (account.times, account.past_ns) == (2, 3 * S)
    assert account.recent == ((2 * S, 4 * S), (5 * S, 6 * S))


def test_what_ended_before_the_window_is_forgotten() -> None:
    account = StarvationAccount().at(S, True).at(2 * S, False).at(3 * S, True).at(4 * S, False)
    assert len(account.at(12 * S, False).recent) == 2
    assert account.at(12 * S + 1, False).recent == ((3 * S, 4 * S),)
    assert account.at(14 * S, False).recent == ((3 * S, 4 * S),)
    assert account.at(14 * S + 1, False).recent == ()
    assert account.at(14 * S + 1, True).times == 3, "forgetting and beginning go together"


def test_the_window_counts_what_began_in_it_and_times_what_lasted_into_it() -> None:
    account = StarvationAccount().at(S, True).at(4 * S, False).at(6 * S, True)
    assert account.in_window(7 * S) == (2, 4 * S)
    assert account.in_window(11 * S) == (2, 3 * S + 5 * S)
    assert account.in_window(11 * S + 1) == (1, 3 * S - 1 + 5 * S + 1)
    assert account.at(8 * S, False).in_window(8 * S) == (2, 5 * S)


def test_after_a_reset_only_the_window_begins_anew() -> None:
    account = StarvationAccount().at(S, True).at(4 * S, False).restarted()
    assert account == StarvationAccount(times=1, past_ns=3 * S)


def test_the_policy_process_may_say_what_it_can_notice_and_nothing_else() -> None:
    assert {
        "policy_error",
        "frame_age",
        "frozen_camera",
        "black_camera",
        "camera_lost",
        "non_finite",
        "over_budget",
        "joint_state_stale",
    } == deadlines.POLICY_FAULTS
