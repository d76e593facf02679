"""The parts of the campaign that need no arm: its table, its file, its schedule, its summary, its policy."""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.benchmarks import cli
from holdfast.benchmarks.faults import campaign, corrupt
from holdfast.benchmarks.faults.bounds import BOUNDS, configuration
from holdfast.benchmarks.faults.classes import BY_NAME, CLASSES, NIGHTLY
from holdfast.benchmarks.faults.inject import WAYS
from holdfast.benchmarks.faults.journal import Journal, JournalError, read
from holdfast.benchmarks.faults.listing import EXAMPLE, example, listing
from holdfast.benchmarks.faults.picture import draw
from holdfast.benchmarks.faults.rig import VARIANTS
from holdfast.benchmarks.faults.saboteur import ROLES
from holdfast.benchmarks.faults.summary import passed, quantiles, summarise, table
from holdfast.benchmarks.faults.sweep import CURVE, INPUTS, STEPS, chunk_at, pose, sweep_graph
from holdfast.benchmarks.intervals import exact_upper, upper_rate
from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.simulated.faults import KINDS, check_fault
from holdfast.runtime.control.deadlines import REACTIONS
from holdfast.runtime.exit_codes import ExitCode
from holdfast.runtime.messages import Chunk, StampSource
from tests.house import ROOT

# The table


def test_the_table_is_sound():
    assert len(BY_NAME) == len(CLASSES) >= 25
    for row in CLASSES:
        assert row.bound in BOUNDS
        assert row.goals in BOUNDS
        assert row.system in VARIANTS
        assert all(code in REACTIONS for code in row.reasons), row.name
        assert all(code in list(ExitCode) for code in row.exit_codes)
        assert bool(row.reasons) or row.outcome in ("park", "coast", "ride_through"), row.name
        for how in (*row.how, *filter(None, [row.then])):
            assert how.way in WAYS
            if how.way in ("truth", "motor"):
                arguments = {k: v for k, v in how.arguments.items() if k not in ("kind", "arm_only")}
                check_fault(how.arguments["kind"], {**({"id": 1} if how.way == "motor" else {}), **arguments})
            if how.way == "chunks":
                assert how.arguments["how"] in (*corrupt.CORRUPTIONS, *corrupt.RESENDS)
            assert how.arguments.get("role", "run") in ROLES


def test_every_fault_of_the_simulator_is_in_the_table():
    used = {how.arguments.get("kind") for row in CLASSES for how in row.how}
    assert set(KINDS) - used == {"power_back", "replug", "clear", "jam"}


def test_the_documentation_has_every_class():
    text = (ROOT / "docs" / "faults.md").read_text()
    missing = [row.name for row in CLASSES if f"| {row.name} |" not in text]
    assert not missing


def test_bounds_follow_from_what_is_shipped():
    c, robot = example(), load_robot("sim_arm")
    assert c.turn_ns == 2 * c.tick_ns == 20_000_000
    # v/a + 2 a/j of the arm's joints: 3/20 + 2 * 20/400.
    assert c.stopping_ns == 250_000_000
    assert c.stopping_rad[0] == pytest.approx(3 * 0.05 + 3 * (0.15 + 0.05) / 2)
    assert BOUNDS["policy silence"].of(c) == c.silence_ns + c.tick_ns + c.turn_ns == 530_000_000
    assert BOUNDS["joint state"].of(c) == 330_000_000
    # Only slots that were seen to be missed are added, and at most those that are no stop of their own.
    assert c.missed_ns(c.tick_ns) == c.missed_ns(0) == 0
    assert c.missed_ns(4 * c.tick_ns) == 3 * c.tick_ns
    assert c.missed_ns(10**12) == robot.control.max_missed_in_a_row * c.tick_ns
    with pytest.raises(ValueError, match="has not printed"):
        configuration(robot, 100, [{"code": "schedule", "text": EXAMPLE[0]}])


def test_the_list_is_printed(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["faults", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == listing()
    assert cli.main(["faults", "--only", "gremlins"]) == 2
    assert "gremlins" in capsys.readouterr().err


# Schedule and file


def test_what_is_left_is_scheduled_the_same_way_again():
    everything = campaign.orders(CLASSES, None, 7, set())
    assert everything == campaign.orders(CLASSES, None, 7, set())
    assert len(everything) == sum(NIGHTLY[row.restart] for row in CLASSES)
    done = {(order.name, order.number) for order in everything[:100]}
    left = campaign.orders(CLASSES, None, 7, done)
    assert {(o.name, o.number) for o in left} == {(o.name, o.number) for o in everything[100:]}
    systems = [BY_NAME[order.name].system for order in left]
    # The same run serves many trials: each other way of starting one comes in one go.
    assert sum(a != b for a, b in pairwise(systems)) == len(VARIANTS) - 1
    assert campaign.estimate_s(left, 2) == campaign.estimate_s(left, 1) / 2


def test_another_try_has_another_seed():
    seeds = {campaign.Order("chunk_nan", number, tries).seed(0) for number in range(9) for tries in range(9)}
    assert len(seeds) == 81
    assert campaign.Order("chunk_nan", 1).seed(5) == campaign.Order("chunk_nan", 1).seed(5)


MACHINE = {"cpu": "this one", "cpus": 1, "load_average": [0.1]}


def test_a_killed_campaign_goes_on_where_it_was(tmp_path: Path):
    path = tmp_path / "trials.jsonl"
    journal = Journal.open(path, "abc", 1, MACHINE)
    journal.add({"class": "chunk_nan", "number": 0})
    journal.close()
    with path.open("a") as file:
        file.write('{"class": "chunk_nan", "numb')
    again = Journal.open(path, "abc", 1, {**MACHINE, "cpus": 2, "load_average": [9.0]})
    assert [row["number"] for row in again.rows] == [0]
    assert again.header["machine"] == MACHINE
    again.add({"class": "chunk_nan", "number": 1})
    again.close()
    header, rows = read(path)
    assert header["configuration"] == "abc"
    assert [(row["number"], row["configuration"]) for row in rows] == [(0, "abc"), (1, "abc")]


@pytest.mark.parametrize(
    ("configuration_", "seed", "what"), [("abd", 1, "configuration"), ("abc", 2, "seed")]
)
def test_trials_of_another_configuration_are_not_mixed(
    tmp_path: Path, configuration_: str, seed: int, what: str
):
    path = tmp_path / "trials.jsonl"
    Journal.open(path, "abc", 1, MACHINE).close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match=f"another {what}"):
        Journal.open(path, configuration_, seed, MACHINE)
    assert path.read_bytes() == before


def test_trials_of_another_machine_are_not_mixed(tmp_path: Path):
    path = tmp_path / "trials.jsonl"
    Journal.open(path, "abc", 1, MACHINE).close()
    with pytest.raises(JournalError, match=r"another machine \(cpu differ\)"):
        Journal.open(path, "abc", 1, {**MACHINE, "cpu": "another"})


def test_something_else_is_no_file_of_trials(tmp_path: Path):
    path = tmp_path / "trials.jsonl"
    path.write_text('{"a": 1}\n')
    with pytest.raises(JournalError, match="no file of trials"):
        Journal.open(path, "abc", 1, MACHINE)


# Summary


def row(
    name: str = "chunk_nan",
    number: int = 0,
    void: str = "",
    failure: str = "",
    wire: tuple[str, ...] = (),
    **verdict: Any,
) -> dict[str, Any]:
    measures = {
        "escapes": [], "missed_ms": 0.0, "speed_rad_s": 1.8, "false_stop": False, "detect_ms": 5.0,
        "last_command_ms": 100.0,
        "standstill_ms": 150.0, "overshoot_rad": 0.2, "bound_ms": 420.0, "failure": "",
    }  # fmt: skip
    return {
        "class": name, "number": number, "void": void,
        "verdict": None if (void or failure) and not verdict else {**measures, **verdict},
        "failure": failure, "wire": list(wire),
        "stop": "chunk_bad", "reset_refused": "", "seconds": 2.0, "phase_s": 0.5, "detail": "nan",
        "clean_s": 36.0, "early_stop": False,
    }  # fmt: skip


SOAK = {
    "hours": 1.0, "false_stops": 0, "time": "virtual", "configuration": "abc",
    "upper_95_per_hour": upper_rate(0, 1.0),
}  # fmt: skip
HEADER = {"seed": 3, "machine": MACHINE, "configuration": "abc"}


def test_the_document_has_the_agreed_shape(tmp_path: Path):
    rows = [row(number=n, detect_ms=float(n)) for n in range(100)] + [row(void="it rained")]
    summary = summarise(rows, HEADER, SOAK, left_out={"clock_step": "no libfaketime"})
    assert summary["soak"] == SOAK
    assert summary["seed"] == 3
    assert summary["machine"] == MACHINE
    (document,) = summary["classes"]
    assert {key: document[key] for key in ("name", "trials", "escapes", "bound_ms", "void")} == {
        "name": "chunk_nan", "trials": 100, "escapes": 0, "bound_ms": 420.0, "void": 1,
    }  # fmt: skip
    assert document["detect_ms"] == {"p50": 49.0, "p99": 98.0, "max": 99.0, "n": 100}
    assert set(document["standstill_ms"]) == set(document["overshoot_rad"]) == {"p50", "p99", "max", "n"}
    assert summary["escape_rate_upper_95_worst_class"] == pytest.approx(1 - 0.05 ** (1 / 100))
    assert not summary["complete"]
    assert "clock_step" in summary["missing"]
    json.dumps(summary)
    assert passed(summary)
    text = "\n".join(table(summary))
    assert "0 escapes and 0 failures in 100 trials of 1 classes" in text
    assert "at most 3 % in every class taken alone" in text
    assert "clock_step (no libfaketime)" in text
    assert "core alone" in text
    assert "less than 3 per hour" in text
    pytest.importorskip("matplotlib")
    draw(summary, tmp_path / "faults.png")
    assert (tmp_path / "faults.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "bad",
    [
        {"escapes": ["no stop"]},
        {"false_stop": True},
        {"detect_ms": 420.1},
        {"failure": "the arm that was sent on did not come back"},
        {"wire": ("on the wire: between two trials",)},
        # A void one does not count; what the host has sent all the same does.
        {"void": "it lagged", "escapes": ["on the wire: a goal outside"]},
        {"void": "it lagged", "wire": ("on the wire: a goal outside",)},
    ],
)
def test_one_bad_trial_fails_the_campaign(bad: dict[str, Any]):
    assert not passed(summarise([row(**bad)], HEADER))


def test_a_void_trial_keeps_its_verdict_and_few_are_allowed():
    lagged = row(void="it lagged", escapes=["motion after the bound"])
    summary = summarise([row(number=n) for n in range(5)] + [lagged], HEADER)
    (document,) = summary["classes"]
    assert document["void_escapes"][0]["escapes"] == ["motion after the bound"]
    assert summary["escapes"] == 0
    assert passed(summary)
    assert not passed(summarise([row(number=n) for n in range(5)] + [lagged] * 4, HEADER))
    many = [row(number=n) for n in range(300)]
    assert passed(summarise(many + [lagged] * 15, HEADER))
    assert not passed(summarise(many + [lagged] * 17, HEADER))


def test_the_time_before_the_faults_is_clean_and_a_stop_in_it_is_false():
    early = {**row(failure="stopped before the fault: load"), "clean_s": 0.0, "early_stop": True}
    lagged = {**row(void="it lagged"), "early_stop": True}
    summary = summarise([*(row(number=n) for n in range(200)), lagged], HEADER)
    assert summary["clean"]["hours"] == 2.0
    assert summary["clean"]["false_stops"] == 0
    assert summary["clean"]["upper_95_per_hour"] == pytest.approx(-math.log(0.05) / 2)
    assert "in motion for 2.000 h together, with 0 false stops: less than 1.5 per hour" in "\n".join(
        table(summary)
    )
    summary = summarise([*(row(number=n) for n in range(200)), early], HEADER)
    assert summary["clean"]["false_stops"] == 1
    assert not passed(summary)
    nothing = summarise([early], HEADER)
    assert nothing["clean"]["upper_95_per_hour"] is None
    assert "in motion" not in "\n".join(table(nothing))


def test_the_worst_class_is_the_headline():
    summary = summarise([row(number=n) for n in range(300)] + [row("sigint", n) for n in range(60)], HEADER)
    assert summary["worst_class"] == "sigint"
    assert summary["escape_rate_upper_95_worst_class"] == pytest.approx(1 - 0.05 ** (1 / 60))
    assert summary["escape_rate_upper_95_of_this_mix"] == pytest.approx(1 - 0.05 ** (1 / 360))


def test_the_bound_of_a_rate():
    assert upper_rate(0, 1.0) == pytest.approx(-math.log(0.05))
    assert upper_rate(0, 10.0) == pytest.approx(-math.log(0.05) / 10)
    # Exact Poisson bounds, from tables.
    assert upper_rate(2, 1.0) == pytest.approx(6.296, abs=1e-3)


def test_a_false_stop_of_the_soak_fails_it_too():
    assert not passed(summarise([row()], HEADER, {**SOAK, "false_stops": 1}))


def test_quantiles_are_values_that_were_measured():
    assert quantiles([]) is None
    assert quantiles([3.0]) == {"p50": 3.0, "p99": 3.0, "max": 3.0, "n": 1}
    assert quantiles([float(v) for v in range(1, 301)]) == {
        "p50": 150.0, "p99": 297.0, "max": 300.0, "n": 300,
    }  # fmt: skip


def test_the_exact_upper_bound():
    assert exact_upper(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300), rel=1e-9)
    # Clopper and Pearson's one-sided bounds, from tables: 1 of 10, 2 of 30.
    assert exact_upper(1, 10) == pytest.approx(0.3942, abs=1e-4)
    assert exact_upper(2, 30) == pytest.approx(0.1953, abs=1e-4)
    assert exact_upper(0, 0) == exact_upper(5, 5) == 1.0
    assert exact_upper(3, 9000) < 0.001


# What is sent instead of a chunk

ACTIONS = tuple(tuple(0.1 * joint + 0.01 * step for joint in range(6)) for step in range(16))
CHUNK = Chunk(
    chunk_id=7, task_id=1, observation_ns=10**10, frame_arrival_ns=10**10 + 1, inference_start_ns=10**10 + 2,
    inference_end_ns=10**10 + 3, session_run_ns=1, frame_period_ns=33_000_000,
    stamp_source=StampSource.HEADER, dt_ns=50_000_000, actions=ACTIONS,
)  # fmt: skip


@given(st.sampled_from(sorted(corrupt.CORRUPTIONS)), st.integers(0, 1 << 30))
def test_a_corruption_changes_the_chunk_and_can_be_sent(how: str, seed: int):
    spoiled = corrupt.CORRUPTIONS[how](CHUNK, random.Random(seed))
    assert spoiled != CHUNK
    spoiled.pack()


def test_corruptions_are_what_they_say():
    dice = random.Random(1)
    flat = [value for line in corrupt.nan(CHUNK, dice).actions for value in line]
    assert sum(map(math.isnan, flat)) == 1
    assert corrupt.wrong_units(CHUNK, dice).actions[3][2] == pytest.approx(ACTIONS[3][2] * 180 / math.pi)
    assert corrupt.sign_flip(CHUNK, dice).actions[3][2] == -ACTIONS[3][2]
    assert corrupt.stale_stamp(CHUNK, dice).observation_ns == 7 * 10**9
    assert corrupt.future_stamp(CHUNK, dice).inference_end_ns == CHUNK.inference_end_ns + 500_000_000


# The policy


def test_the_sweep_goes_on_from_wherever_it_is():
    for phase in np.linspace(0, 6.2, 40):
        chunk = chunk_at(np.array(pose(phase), np.float32))
        assert chunk.shape == (STEPS, len(CURVE))
        first = np.array(pose(phase))
        step = np.abs(chunk[0] - first) / np.array([1, 1, 1, 1, 1, 50])
        assert step.max() < 0.3


def test_the_sweep_stays_inside_the_limits():
    joints = load_robot("sim_arm").joints
    poses = np.array([pose(phase) for phase in np.linspace(0, 7, 200)])
    for index, joint in enumerate(joints):
        low, high = joint.limits.position
        assert (poses[:, index] >= low).all()
        assert (poses[:, index] <= high).all()
    moved = poses.max(axis=0) - poses.min(axis=0)
    assert (moved[:5] > 0.1).all()


def test_the_graph_computes_the_sweep():
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(sweep_graph(), providers=["CPUExecutionProvider"])
    picture = np.zeros(INPUTS["image.front"][1], np.uint8)
    for phase in np.linspace(-3, 3, 25):
        state = np.array([pose(phase)], np.float32)
        (actions,) = session.run(None, {"image.front": picture, "state": state})
        assert np.abs(actions[0] - chunk_at(state[0])).max() < 1e-3
    centre = np.zeros((1, 6), np.float32)
    centre[0, 4] = CURVE[4].far
    (actions,) = session.run(None, {"image.front": picture, "state": centre})
    assert np.isfinite(actions).all()
