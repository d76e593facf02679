"""The referee of the demo, the numbers it reports, and the verbs of vla-bench."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from holdfast.benchmarks import cli
from holdfast.benchmarks.cyclictest import Lateness, lateness
from holdfast.benchmarks.demo_attempts import Attempt, EventFile, Outcome, Referee, draw_attempts, tally
from holdfast.benchmarks.demo_report import passed, timing_rows
from holdfast.benchmarks.demo_run import DemoError, DemoResult, claimed, export_demo
from holdfast.benchmarks.intervals import share_text, wilson


@dataclass
class Verdict:
    success: bool = False
    wrong_object: bool = False


@dataclass
class FakeScene:
    """The truth channel's answers, as told."""

    answer: Verdict = field(default_factory=Verdict)
    resets: list[int] = field(default_factory=list)

    def reset(self, seed: int, task: str | None = None, colour: str | None = None) -> str:
        self.resets.append(seed)
        return f"{task} the {colour} cube"

    def verdict(self) -> Verdict:
        return self.answer


class Play:
    """A referee with a clock and a scene that the test moves."""

    def __init__(self, count: int = 2) -> None:
        self.now_ns = 0
        self.scene = FakeScene()
        self.finished = 0
        self.referee = Referee(
            draw_attempts(self.scene, count, seed=7),
            self.scene,
            self._finish,
            lambda *_: None,
            lambda: self.now_ns,
        )
        self.scene.resets.clear()

    def _finish(self) -> None:
        self.finished += 1

    def event(self, code: str, task_id: int = 1) -> None:
        self.at(0, {"t_ns": self.now_ns, "code": code, "task_id": task_id})

    def at(self, later_ms: int, *events: dict[str, Any]) -> None:
        self.now_ns += later_ms * 1_000_000
        self.referee.step(iter(events))


def test_attempts_go_round_all_tasks_and_colours() -> None:
    attempts = draw_attempts(FakeScene(), 12, seed=0)
    assert len({(attempt.task, attempt.colour) for attempt in attempts}) == 6
    assert len({attempt.seed for attempt in attempts}) == 12


def test_the_scene_is_set_before_the_task_and_a_success_ends_it_early() -> None:
    play = Play()
    play.event("task_ready")
    assert play.scene.resets == [7]
    play.at(1000)
    play.event("task_start")
    play.scene.answer = Verdict(success=True)
    play.at(1500)
    outcome = play.referee.outcomes[0]
    assert outcome.success
    assert outcome.time_s == pytest.approx(1.5)
    assert play.finished == 1
    play.event("task_end")
    assert play.referee.running is None
    assert len(play.referee.outcomes) == 1


def test_the_wrong_object_ends_the_attempt_as_a_failure() -> None:
    play = Play()
    play.event("task_ready")
    play.at(10)
    play.event("task_start")
    play.scene.answer = Verdict(wrong_object=True)
    play.at(500)
    outcome = play.referee.outcomes[0]
    assert (outcome.success, outcome.wrong_object) == (False, True)
    assert play.finished == 1


def test_time_that_runs_out_is_a_failure_judged_at_the_end() -> None:
    play = Play()
    play.event("task_ready")
    play.at(10)
    play.event("task_start")
    play.at(10_000, {"t_ns": 0, "code": "task_end", "task_id": 1})
    assert not play.referee.outcomes[0].success
    assert play.finished == 0


@pytest.mark.parametrize("ready_first", [False, True], ids=["never set", "set too late"])
def test_a_task_that_began_before_its_scene_was_set_is_void(ready_first: bool) -> None:
    play = Play()
    start = {"t_ns": 5, "code": "task_start", "task_id": 1}
    ready = {"t_ns": 4, "code": "task_ready", "task_id": 1}
    play.at(100, *([ready, start] if ready_first else [start]))
    assert play.referee.outcomes[0].void


def test_the_event_file_yields_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = EventFile(path)
    assert list(events.new()) == []
    path.write_text('{"a": 1}\n{"b"')
    assert list(events.new()) == [{"a": 1}]
    with path.open("a") as file:
        file.write(": 2}\n")
    assert list(events.new()) == [{"b": 2}]


def result(successes: int, trials: int, *, exit_code: int = 0, void: int = 0) -> DemoResult:
    attempt = Attempt(0, "touch", "red", "touch the red cube")
    outcomes = [Outcome(attempt, i < successes, void="late" if i < void else "") for i in range(trials)]
    return DemoResult(outcomes, exit_code, {}, "not there")


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (result(20, 24), True),
        (result(19, 24), False),
        (result(24, 24, exit_code=4), False),
        (result(23, 23), False),
        (result(24, 24, void=1), False),
    ],
    ids=["83 %", "79 %", "protective stop", "an attempt missing", "a void attempt"],
)
def test_the_demo_passes_only_when_all_of_it_went_well(given: DemoResult, verdict: bool) -> None:
    assert passed(given, 24) is verdict


def test_the_tally_counts_by_task_and_in_all() -> None:
    assert tally(result(2, 3).outcomes)["touch red"] == {
        "trials": 3,
        "successes": 2,
        "wrong_object": 0,
        "void": 0,
    }


def report(missed: int) -> dict[str, Any]:
    stage = {"p50_ms": 4.0, "p99_ms": 9.0}
    return {
        "stages": {"wake_late": stage, "camera_to_wire_own": stage},
        "deadlines": {
            "ticks": 1000,
            "missed": missed,
            "missed_fraction": missed / 1000,
            "missed_by": {"woke_late": missed, "tick_overran": 0},
            "starved": 0,
            "rejected_chunks": 0,
        },
        "rates": {"average_hz": 100.0, "worst_second_hz": 99.0},
        "stops": [],
    }


@pytest.mark.parametrize(("missed", "ok"), [(14, True), (16, False)])
def test_missed_slots_are_judged_beside_cyclictest(missed: int, ok: bool) -> None:
    rows = {row.what: row for row in timing_rows(report(missed), Lateness(1000, 0.01, 20.0, 90.0, 900.0))}
    assert rows["missed slots"].ok is ok
    assert rows["frame to wire, own share, p50"].ok is True


def test_without_cyclictest_missed_slots_are_shown_but_not_judged() -> None:
    rows = {row.what: row for row in timing_rows(report(14), "not installed")}
    assert rows["missed slots"].ok is None
    assert "not installed" in rows["  cyclictest"].measured


def test_lateness_of_a_histogram_counts_what_lies_beyond_it() -> None:
    """The one beyond the histogram slept through ten periods at least, after the slot it was late for."""
    seen = lateness({20: 96, 400: 1, 600: 2}, overflows=1, max_us=123456.0)
    assert seen == Lateness(100, 13 / 110, 20.0, 600.0, 123456.0)


def test_lateness_counts_the_slots_that_were_slept_through_as_control_counts_its_own() -> None:
    seen = lateness({20: 98, 600: 1, 25_000: 1}, overflows=0, max_us=25_000.0)
    assert seen.missed_share == 4 / 102


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"), [(0, 0, 0.0, 1.0), (24, 24, 0.862, 1.0), (20, 24, 0.641, 0.933)]
)
def test_wilson_intervals(successes: int, trials: int, low: float, high: float) -> None:
    """Values from Wilson's formula, as statsmodels' proportion_confint(method="wilson") gives them."""
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-3)


def test_a_share_is_shown_with_its_interval() -> None:
    assert share_text(20, 24) == "20/24 = 83 % (95 % interval 64 % to 93 %)"


def test_an_unknown_verb_is_refused_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fly"]) == 2
    assert "footprint" in capsys.readouterr().err


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    with claimed(tmp_path), pytest.raises(DemoError, match="another run"), claimed(tmp_path):
        pass
    with claimed(tmp_path):
        pass


def test_an_export_leaves_the_note_of_the_last_bundle_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        given.update(options)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    assert export_demo(tmp_path, quiet=True) == tmp_path / "demo.vla"
    assert given["env"]["XDG_STATE_HOME"] == str(tmp_path / "state")
