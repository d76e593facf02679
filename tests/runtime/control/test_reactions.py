"""The table of reactions as data: what a robot file may choose, and what each choice does to the arm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.errors import ConfigError
from holdfast.drivers.robots.schema import Robot, load_robot, robot_path
from holdfast.drivers.units import JointUnits
from holdfast.runtime.control.config import core_config
from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.deadlines import (
    HOLD_NS,
    REACTIONS,
    WINDOW_NS,
    StarvationAccount,
    check_reactions,
    reaction_to,
    stops,
)
from holdfast.runtime.control.state import Condition, Inbox
from holdfast.runtime.messages import Phase

from .test_core import HERE, ramp
from .world import MS, Bench, chunk, config

S = 1_000_000_000
FAULTS = sorted(code for code, row in REACTIONS.items() if row.kind == "stop" and not row.choices)


def bench_with(stop_category: int = 2, **reactions: str) -> Bench:
    return Bench(core=ControlCore(config(reactions=reactions, stop_category=stop_category)))


def follow(bench: Bench, ticks: int, *, every: int = 5, conditions: tuple[Condition, ...] = ()) -> None:
    """Chunks of a standing arm, one every few ticks; `conditions` come in every tick."""
    for tick in range(ticks):
        fresh = None
        if tick % every == 0:
            rows = [(0.5, -0.3, 10.0)] * 8
            number = bench.state.last_chunk_id + 1
            fresh = chunk(rows, chunk_id=number, observation_ns=bench.now_ns)
        bench.tick(Inbox(chunk=fresh, conditions=conditions))


def starve(bench: Bench, times: int) -> None:
    """So often a chunk runs out, and the next one comes 0.2 s later."""
    for _ in range(times):
        number = bench.state.last_chunk_id + 1
        bench.tick(Inbox(chunk=chunk(ramp(0.4), chunk_id=number, observation_ns=bench.now_ns)))
        bench.run(60)


# The table


def test_without_a_choice_the_table_decides_and_unknown_codes_stop():
    assert reaction_to("bus_error", {}) == "count"
    assert reaction_to("starved", {}) == "hold"
    assert reaction_to("motor_fault", {}) == "stop"
    assert not stops("starving", {})
    assert stops("a code that nobody knows", {})


def test_a_choice_counts_instead():
    assert reaction_to("starving", {"starving": "stop"}) == "stop"
    assert stops("starving", {"starving": "stop_1"})


@pytest.mark.parametrize("code", FAULTS)
@pytest.mark.parametrize("choice", ["count", "hold"])
def test_no_fault_can_be_tuned_away(code: str, choice: str):
    with pytest.raises(ConfigError, match=rf"{code} .* cannot be '{choice}'; the table offers stop"):
        check_reactions({code: choice})


@pytest.mark.parametrize(
    ("code", "choice"),
    [("starved", "count"), ("chunk_stale", "hold"), ("policy_silent", "hold"), ("clamped", "stop")],
)
def test_only_what_a_row_offers_can_be_chosen(code: str, choice: str):
    with pytest.raises(ConfigError, match=f"{code} .* cannot be"):
        check_reactions({code: choice})


def test_a_misspelt_condition_is_refused_with_the_list():
    with pytest.raises(ConfigError, match=r"'staving'; known are .*starving"):
        check_reactions({"staving": "stop"})


@given(
    st.dictionaries(st.sampled_from(sorted(REACTIONS)), st.sampled_from(("count", "hold", "stop", "stop_2")))
)
def test_whatever_is_accepted_is_no_weaker_than_the_weakest_that_the_row_offers(tuned: dict[str, str]):
    strength = ("count", "hold", "stop").index
    try:
        check_reactions(tuned)
    except ConfigError:
        return
    for code, row in REACTIONS.items():
        floor = min(strength(kind) for kind in (row.kind, *row.choices))
        assert strength(reaction_to(code, tuned).partition("_")[0]) >= floor


# The robot file


def robot_file(folder: Path, **changes: object) -> Path:
    content = yaml.safe_load(robot_path("sim_arm").read_text())
    for key, value in changes.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
    path = folder / "arm.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def config_of(robot: Robot):
    calibration = find_calibration(load_robot("sim_arm"), robot_folder=robot_path("sim_arm").parent)
    units = JointUnits(robot, calibration)
    return core_config(robot, units, control_hz=None, chunk_steps=8, chunk_dt_ns=50 * MS)


def test_a_robot_file_may_choose_and_the_core_has_it(tmp_path: Path):
    robot = load_robot(str(robot_file(tmp_path, reactions={"starving": "stop", "temperature": "stop_2"})))
    assert config_of(robot).reactions == {"starving": "stop", "temperature": "stop_2"}


def test_a_robot_file_that_weakens_a_fault_is_refused(tmp_path: Path):
    robot = load_robot(str(robot_file(tmp_path, reactions={"joint_state_stale": "count"})))
    with pytest.raises(ConfigError, match="joint_state_stale"):
        config_of(robot)


def test_category_1_needs_an_arm_that_may_go_limp(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"stop_1 releases the arm, but exit.stop_category 2"):
        load_robot(str(robot_file(tmp_path, reactions={"temperature": "stop_1"})))
    limp = robot_file(tmp_path, reactions={"temperature": "stop_1"}, exit={"stop_category": 1})
    assert load_robot(str(limp)).reactions == {"temperature": "stop_1"}


@pytest.mark.parametrize("value", ["never", "stop_3", 1])
def test_a_word_that_is_no_reaction_is_refused(tmp_path: Path, value: object):
    with pytest.raises(ConfigError, match=r"reactions\.starving"):
        load_robot(str(robot_file(tmp_path, reactions={"starving": value})))


# The category of a stop


@pytest.mark.parametrize(
    ("declared", "tuned", "category"),
    [(2, {}, 2), (1, {}, 1), (1, {"temperature": "stop_2"}, 2), (1, {"temperature": "stop_1"}, 1),
     (2, {"temperature": "stop_1"}, 2)],
)  # fmt: skip
def test_every_stop_carries_its_category_and_1_releases_only_where_declared(
    declared: int, tuned: dict[str, str], category: int
):
    bench = bench_with(declared, **tuned)
    bench.start()
    bench.tick(temperature_c=(80.0, 30.0, 30.0))
    assert bench.state.stop is not None
    assert bench.state.stop.category == category
    assert [note.value for note in bench.notes if note.code == "stop"] == [category]
    bench.run(100)
    assert bench.state.phase == (Phase.RELEASED if category == 1 else Phase.STOPPED)


def test_one_condition_releases_and_another_holds_on_the_same_arm():
    phases = []
    samples: list[dict[str, Any]] = [{"temperature_c": (80.0, 30.0, 30.0)}, {"faults": (0, 32, 0)}]
    for sample in samples:
        bench = bench_with(1, temperature="stop_2")
        bench.tick(**sample)
        bench.run(100)
        phases.append(bench.state.phase)
    assert phases == [Phase.STOPPED, Phase.RELEASED]


def test_the_end_of_a_task_never_releases():
    bench = bench_with(1)
    bench.start()
    follow(bench, 20)
    bench.tick(Inbox(stop=Condition("requested", "task finished")))
    bench.run(100)
    assert bench.state.phase == Phase.HOLD


# Starvation


def test_a_chunk_that_runs_out_can_be_made_a_stop():
    bench = bench_with(starved="stop")
    bench.start()
    starve(bench, 1)
    assert bench.stop_code() == "starved"
    assert bench.state.latched


def test_starvation_is_counted_timed_and_reported_once_each():
    bench = Bench()
    bench.start()
    starve(bench, 2)
    account = bench.state.starvation
    assert account.times == bench.codes().count("starved") == 2
    # 61 ticks of 10 ms with a path of 350 ms.
    assert account.total_ns(bench.now_ns) == pytest.approx(2 * 0.25 * S, abs=0.05 * S)
    assert account.in_window(bench.now_ns)[0] == 2
    assert "starving" not in bench.codes()


@pytest.mark.parametrize(("choice", "phase"), [("count", Phase.RUN), ("stop", Phase.STOPPED)])
def test_chunks_that_run_out_again_and_again_are_starving(choice: str, phase: Phase):
    bench = bench_with(starving=choice)
    bench.start()
    starve(bench, 4)
    assert "starving" in " ".join(f"{note.code} {note.text}" for note in bench.notes)
    assert bench.state.phase == phase


def test_old_starvation_is_forgotten_by_the_window_and_not_by_the_total():
    account = StarvationAccount().at(S, True).at(2 * S, False)
    assert account.in_window(3 * S) == (1, S)
    assert account.in_window(11 * S + S // 2) == (0, S // 2)
    later = account.at(2 * S + WINDOW_NS + 1, False)
    assert (later.recent, later.times, later.total_ns(100 * S)) == ((), 1, S)


@given(st.lists(st.tuples(st.integers(1, 3 * S), st.booleans()), max_size=60))
def test_the_account_of_starvation_agrees_with_a_plain_sum(steps: list[tuple[int, bool]]):
    account, now, before, total, spans = StarvationAccount(), S, False, 0, []
    for duration, starved in steps:
        account = account.at(now, starved)
        if starved and not before:
            spans.append([now, now])
        now, before = now + duration, starved
        if starved:
            total += duration
            spans[-1][1] = now
    account = account.at(now, before)
    first = now - WINDOW_NS
    assert account.total_ns(now) == total
    assert account.times == len(spans)
    assert account.in_window(now) == (
        sum(began >= first for began, _ in spans),
        sum(ended - max(began, first) for began, ended in spans if ended > first),
    )


# Hold


def test_a_hold_decelerates_keeps_holding_and_goes_on_when_the_condition_has_gone():
    slow = Condition("over_budget", "tick: too slow")
    bench = bench_with(over_budget="hold")
    bench.start()
    follow(bench, 8)
    assert bench.setpoints[-1] != bench.setpoints[-2], "the arm moves"
    bench.tick(Inbox(conditions=(slow,)))
    follow(bench, HOLD_NS // (10 * MS) - 2)
    held = bench.setpoints[-1]
    assert bench.state.phase == Phase.RUN
    assert bench.setpoints[-50:] == [held] * 50
    assert held[0] < 0.5 - 0.01, "it has not gone on to where the chunks lead"
    follow(bench, 200)
    assert bench.setpoints[-1][0] == pytest.approx(0.5, abs=1e-3)
    assert [code for code in bench.codes() if code in ("over_budget", "resumed")] == [
        "over_budget",
        "resumed",
    ]
    assert not bench.state.latched


def test_a_condition_that_lasts_keeps_the_arm_held_and_is_said_once():
    bench = bench_with(over_budget="hold")
    bench.start()
    follow(bench, 400, conditions=(Condition("over_budget", "tick: too slow"),))
    assert set(bench.setpoints) == {HERE}
    assert bench.codes().count("over_budget") == 1
    assert bench.state.starvation.times == 0


def test_conditions_that_alternate_are_said_once_each_per_hold():
    bench = bench_with(over_budget="hold", starving="hold")
    bench.start()
    for tick in range(100):
        code = ("over_budget", "starving")[tick % 2]
        follow(bench, 1, conditions=(Condition(code, "too often"),))
    assert (bench.codes().count("over_budget"), bench.codes().count("starving")) == (1, 1)
    follow(bench, 200)
    ended = [note.text for note in bench.notes if note.code == "resumed"]
    assert ended == ["not noticed any more: over_budget, starving"]


def test_a_hold_after_a_starvation_is_none_while_chunks_come():
    bench = bench_with(over_budget="hold")
    bench.start()
    starve(bench, 1)
    bench.tick(Inbox(conditions=(Condition("over_budget", "tick: too slow"),)))
    before_ns = bench.state.starvation.total_ns(bench.now_ns)
    follow(bench, 100)
    assert bench.state.held_by
    assert bench.state.starvation.total_ns(bench.now_ns) <= before_ns + 10 * MS


def test_a_bad_chunk_stops_even_while_the_arm_is_held():
    bench = bench_with(over_budget="hold")
    bench.start()
    bench.tick(Inbox(conditions=(Condition("over_budget", "tick"),)))
    bad = chunk([(float("nan"), 0.0, 0.0)] * 8, chunk_id=1, observation_ns=bench.now_ns)
    bench.tick(Inbox(chunk=bad))
    assert bench.stop_code() == "chunk_bad"


def test_a_hold_while_the_arm_moves_to_a_pose_is_only_counted():
    bench = bench_with(over_budget="hold")
    bench.tick(Inbox(quit="park"))
    finish = None
    for _ in range(800):
        output = bench.tick(Inbox(conditions=(Condition("over_budget", "tick"),)))
        finish = finish or output.finish
    assert finish == "release"


def test_a_new_task_is_not_held_for_what_was_before():
    bench = bench_with(over_budget="hold")
    bench.start()
    bench.tick(Inbox(conditions=(Condition("over_budget", "tick"),)))
    bench.tick(Inbox(stop=Condition("requested", "task finished")))
    bench.run(10)
    bench.start()
    follow(bench, 100)
    assert bench.setpoints[-1][0] == pytest.approx(0.5, abs=1e-3)
