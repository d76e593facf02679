"""The sequence of a run, played without a process and without time passing."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.runtime.commands import COMMANDS
from holdfast.runtime.exit_codes import ExitCode
from holdfast.runtime.messages import Arm, Event, Phase, Quit, Reset, Snapshot, Stop, Task
from holdfast.runtime.schedulability import Timing, schedule
from holdfast.runtime.sequence import Sequence
from holdfast.runtime.stages import Action, Child, End, Journal, Plan, Save, Send, Stage

S = 1_000_000_000
M = TypeVar("M")


class Play:
    """A sequence with a clock; every call moves time on a little."""

    def __init__(self, *tasks: str, **plan: Any) -> None:
        values: dict[str, Any] = {
            "duration_s": 5.0,
            "pause_s": 0.0,
            "on_stop": "exit",
            "strategy": "newest",
            "timing": Timing(steps=17, dt_s=0.05, control_period_s=0.01, frame_age_limit_s=0.3),
            **plan,
        }
        self.now = S
        self.sequence = Sequence(Plan(tasks=tasks or ("touch",), **values), self.now)
        self.actions: list[Action] = []

    def wait(self, seconds: float) -> list[Action]:
        """Lets time pass, with control alive."""
        end = self.now + int(seconds * S)
        actions: list[Action] = []
        while self.now < end:
            self.now = min(end, self.now + S // 2)
            self.sequence.on_snapshot(snapshot(), self.now)
            actions += self.sequence.on_time(self.now)
        return self._keep(actions)

    def hear(self, child: Child, code: str, text: str = "", value: float = 0.0) -> list[Action]:
        self.now += 1
        return self._keep(self.sequence.on_event(child, Event(self.now, code, text, value), self.now))

    def tick(self) -> list[Action]:
        """A snapshot of control."""
        self.now += 1
        return self._keep(self.sequence.on_snapshot(snapshot(), self.now))

    def exit(self, child: Child, status: int) -> list[Action]:
        self.now += 1
        return self._keep(self.sequence.on_exit(child, status, self.now))

    def signal(self, number: int) -> list[Action]:
        self.now += 1
        return self._keep(self.sequence.on_signal(number, self.now))

    def key(self, key: str) -> list[Action]:
        self.now += 1
        return self._keep(self.sequence.on_key(key, self.now))

    def ready_for_control(self) -> None:
        self.hear("control", "connected")
        self.tick()

    def ready(self) -> list[Action]:
        self.ready_for_control()
        return self.hear("policy", "ready", "{}", 20.0)

    def run(self) -> Play:
        """Until the first task is under way."""
        self.ready()
        self.hear("control", "at_start")
        self.wait(0.6)
        assert self.sequence.stage == Stage.RUNNING
        return self

    def end(self) -> ExitCode:
        """Both children end as they are asked to."""
        self.exit("control", 4 if self.sequence.verdict.stops else 0)
        self.exit("policy", 0)
        assert self.sequence.stage == Stage.DONE
        return self.sequence.verdict.exit_code

    def _keep(self, actions: list[Action]) -> list[Action]:
        self.actions += actions
        return actions


def snapshot() -> Snapshot:
    return Snapshot(Phase.HOLD, 0, 0, 100.0, 100.0, 100.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def sent(actions: list[Action], kind: type[M], child: Child = "control") -> list[M]:
    return [
        a.message for a in actions if isinstance(a, Send) and a.child == child and isinstance(a.message, kind)
    ]


def journal(actions: list[Action]) -> list[str]:
    return [action.code for action in actions if isinstance(action, Journal)]


def test_it_waits_for_both_children_and_moves_to_the_start_pose_first():
    play = Play()
    assert journal(play.hear("policy", "ready", "{}", 20.0)) == ["schedule"] * 4
    assert play.hear("control", "connected") == []
    (arm,) = sent(play.tick(), Arm)
    assert (arm.task_id, arm.return_to_start, arm.follow) == (1, True, False)


def test_the_limits_follow_from_the_measured_inference_time():
    timing = Timing(steps=201, dt_s=0.05, control_period_s=0.01, frame_age_limit_s=0.3)
    play = Play(timing=timing)
    play.hear("policy", "ready", "{}", 200.0)
    assert play.hear("control", "connected") == []
    (arm,) = sent(play.tick(), Arm)
    found = schedule(replace(timing, inference_s=0.2), "newest")
    assert arm.chunk_age_limit_ns == pytest.approx(found.chunk_age_limit_s * S) == pytest.approx(0.715 * S)
    assert arm.silence_limit_ns == pytest.approx(found.silence_limit_s * S) == pytest.approx(0.6 * S)


def test_what_was_measured_of_the_pictures_counts():
    play = Play()
    shown = play.hear("policy", "ready", '{"frame_period_ms": 100.0, "frame_latency_ms": 50.0}', 20.0)
    first = next(action.text for action in shown if isinstance(action, Journal))
    assert first.startswith("frame: 50 ms on its way + 100 ms period (measured) = at most 150 ms old")
    assert play.sequence.schedule is not None
    assert play.sequence.schedule.frame_s == pytest.approx(0.15)


def test_a_policy_that_must_starve_is_refused_before_torque_with_the_arithmetic():
    play = Play()
    play.ready_for_control()
    shown = play.hear("policy", "ready", "{}", 500.0)
    assert journal(shown) == ["schedule"] * 4
    assert sent(play.actions, Arm) == []
    assert sent(shown, Quit) == [Quit(park=True)]
    play.exit("control", 0)
    play.exit("policy", 0)
    assert play.sequence.verdict.exit_code == ExitCode.REFUSED
    assert "newest chunks cannot be scheduled: a chunk ends up to" in play.sequence.verdict.reason
    assert "--strategy sequential" in play.sequence.verdict.reason


def test_the_same_policy_runs_sequentially():
    play = Play(strategy="sequential")
    play.ready_for_control()
    (arm,) = sent(play.hear("policy", "ready", "{}", 2800.0), Arm)
    assert arm.chunk_age_limit_ns == pytest.approx((0.3 + 2 * 2.8 + 0.015) * S)


def test_tasks_follow_each_other_with_a_return_and_a_pause_between():
    play = Play("touch", "pick", pause_s=2.0)
    play.ready()
    assert journal(play.hear("control", "at_start")) == ["task_ready"]
    assert sent(play.wait(1.9), Task, "policy") == []
    started = play.wait(0.5)
    assert sent(started, Task, "policy") == [Task(1, "touch")]
    assert sent(started, Arm)[0].follow
    ended = play.wait(5.0)
    assert sent(ended, Task, "policy") == [Task(1, "")]
    assert [stop.latched for stop in sent(ended, Stop)] == [False]
    (arm,) = sent(play.hear("control", "holding"), Arm)
    assert (arm.task_id, arm.return_to_start) == (2, True)
    play.hear("control", "at_start")
    play.wait(8.0)
    assert sent(play.hear("control", "holding"), Quit) == [Quit(park=True)]
    assert sent(play.exit("control", 0), Quit, "policy") == [Quit()]
    play.exit("policy", 0)
    assert play.sequence.verdict.exit_code == ExitCode.FINISHED
    assert [record.outcome for record in play.sequence.records] == ["time is up"] * 2
    wanted = [*["schedule"] * 4, *["task_ready", "task_start", "task_end"] * 2]
    assert journal(play.actions) == wanted


@pytest.mark.parametrize("end", [lambda play: play.signal(signal.SIGUSR1), lambda play: play.key("n")])
def test_a_task_can_be_ended_early(end: Any):
    play = Play(duration_s=None).run()
    assert play.wait(1000.0) == []
    assert sent(end(play), Stop)[0].latched is False


@pytest.mark.parametrize("ask", [lambda play: play.signal(signal.SIGUSR2), lambda play: play.key("w")])
def test_a_person_can_have_a_recording_at_any_time_and_nothing_else_changes(ask: Any):
    for play in (Play(), Play().run()):
        stage = play.sequence.stage
        assert ask(play) == [Save()]
        assert play.sequence.stage == stage
    assert play.sequence.verdict.reason == ""


def test_ending_a_task_twice_does_nothing_more():
    play = Play("touch", "pick").run()
    play.signal(signal.SIGUSR1)
    assert play.signal(signal.SIGUSR1) == []


@pytest.mark.parametrize("child", ["control", "policy"])
def test_a_refusal_ends_the_run_with_its_reason(child: Child):
    play = Play()
    play.hear(child, "refused", "the robot does not fit")
    play.exit(child, 3)
    play.exit("policy" if child == "control" else "control", 0)
    assert play.sequence.stage == Stage.DONE
    assert play.sequence.verdict.exit_code == ExitCode.REFUSED
    assert play.sequence.verdict.reason == "the robot does not fit"


def test_the_policys_own_reason_counts_not_that_it_is_gone():
    play = Play()
    play.hear("control", "refused", "policy_lost: the policy process has ended")
    play.hear("policy", "refused", "bundle is damaged")
    play.exit("policy", 3)
    play.exit("control", 3)
    assert play.sequence.verdict.reason == "bundle is damaged"
    assert play.sequence.verdict.exit_code == ExitCode.REFUSED


def test_a_policy_that_crashes_while_loading_is_an_internal_error():
    play = Play()
    play.hear("control", "refused", "policy_lost: the policy process has ended")
    play.exit("policy", -9)
    play.exit("control", 3)
    assert play.sequence.verdict.exit_code == ExitCode.INTERNAL
    assert "SIGKILL" in play.sequence.verdict.reason


def test_a_refused_start_that_left_torque_on_is_no_refusal_before_torque() -> None:
    play = Play()
    play.ready()
    play.hear("control", "refused", "arming failed, some motors may hold torque")
    play.exit("control", ExitCode.PROTECTIVE_STOP)
    play.exit("policy", 0)
    assert play.sequence.verdict.exit_code == ExitCode.PROTECTIVE_STOP
    assert "arming failed" in play.sequence.verdict.reason


def test_a_protective_stop_pauses_the_policy_and_ends_the_run():
    play = Play().run()
    actions = play.hear("control", "stop", "following_error: elbow")
    assert sent(actions, Task, "policy") == [Task(1, "")]
    assert sent(actions, Quit) == [Quit(park=False)]
    assert play.end() == ExitCode.PROTECTIVE_STOP
    assert "following_error" in play.sequence.verdict.reason


def test_at_a_terminal_it_waits_and_a_person_resets_and_goes_on():
    play = Play(on_stop="wait").run()
    assert sent(play.hear("control", "stop", "frozen_camera: front"), Quit) == []
    assert play.wait(1000.0) == []
    assert play.key("n") == []
    reset = play.key("r")
    assert sent(reset, Reset) == sent(reset, Reset, "policy") == [Reset()]
    assert play.hear("control", "reset", "refused: still moving") == []
    assert play.sequence.stage == Stage.STOPPED
    play.hear("control", "reset", "the latched stop was reset; the arm holds")
    assert play.wait(1000.0) == []
    assert journal(play.key("n")) == ["fault"]
    play.hear("policy", "ready", "reset: the cameras deliver")
    (arm,) = sent(play.key("n"), Arm)
    assert (arm.task_id, arm.return_to_start) == (1, True)
    play.hear("control", "at_start")
    play.wait(6.0)
    play.hear("control", "holding")
    assert play.sequence.stage == Stage.QUITTING
    play.exit("control", 0)
    play.exit("policy", 0)
    assert play.sequence.verdict.exit_code == ExitCode.FINISHED


def test_a_policy_that_is_still_not_ready_is_asked_again():
    play = Play(on_stop="wait").run()
    play.hear("policy", "fault", "camera_lost: front")
    play.hear("control", "stop", "camera_lost: front")
    play.key("r")
    play.hear("control", "reset", "the latched stop was reset; the arm holds")
    play.hear("policy", "fault", "still not ready: front")
    assert sent(play.key("n"), Arm) == []
    again = play.key("r")
    assert (sent(again, Reset), sent(again, Reset, "policy")) == ([Reset()], [Reset()])
    play.hear("policy", "ready")
    assert len(sent(play.key("n"), Arm)) == 1


def test_the_space_bar_is_a_protective_stop():
    (stop,) = sent(Play().run().key(" "), Stop)
    assert stop.latched


def test_a_reset_line_that_control_reads_itself_counts_as_the_key():
    play = Play(on_stop="wait").run()
    play.hear("control", "stop", "stop_input: the button is pressed")
    assert play.hear("control", "reset", "refused: the button is pressed") == []
    reset = play.hear("control", "reset", "the latched stop was reset; the arm holds")
    # To control: that the supervisor knows of it; what it orders now is no order from before the stop.
    assert (sent(reset, Reset), sent(reset, Reset, "policy")) == ([Reset()], [Reset()])
    assert play.sequence.stage == Stage.HELD
    assert "still opening its cameras" in play.sequence.ask("next", play.now).refusal
    play.hear("policy", "ready")
    assert len(sent(play.key("n"), Arm)) == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_a_reset_does_not_send_the_arm_to_its_park_pose(number: int):
    """A lost terminal, say: somebody may have their hands at the arm. Only who asks for the end means it."""
    play = Play(on_stop="wait").run()
    play.hear("control", "stop", "load: elbow")
    play.key("r")
    play.hear("control", "reset", "the latched stop was reset; the arm holds")
    assert sent(play.signal(number), Quit) == [Quit(park=False)]


def test_a_person_who_ends_a_run_after_a_reset_has_the_arm_parked():
    play = Play(on_stop="wait").run()
    play.hear("control", "stop", "load: elbow")
    play.key("r")
    play.hear("control", "reset", "the latched stop was reset; the arm holds")
    assert sent(play.key("q"), Quit) == [Quit(park=True)]


def test_a_stop_asked_for_of_a_stopped_arm_is_sent_all_the_same():
    """A reset may be on its way, or have been made at a reset input."""
    play = Play(on_stop="wait").run()
    play.hear("control", "stop", "load: elbow")
    play.key("r")
    (stop,) = sent(play.key(" "), Stop)
    assert stop.latched


def test_a_stop_is_taken_while_a_reset_arm_waits_for_its_order():
    play = Play(on_stop="wait").run()
    play.hear("control", "stop", "load: elbow")
    play.key("r")
    play.hear("control", "reset", "the latched stop was reset; the arm holds")
    (stop,) = sent(play.key(" "), Stop)
    assert stop.latched
    play.hear("control", "stop", "requested: a person pressed the space bar")
    assert play.sequence.stage == Stage.STOPPED
    assert play.key("n") == []


def test_a_stop_before_torque_ends_the_run_and_nothing_moves():
    play = Play()
    play.ready_for_control()
    assert sent(play.key(" "), Quit) == [Quit(park=True)]
    play.hear("policy", "ready", "{}", 20.0)
    play.exit("control", 0)
    play.exit("policy", 0)
    assert sent(play.actions, Arm) == []
    assert play.sequence.verdict.exit_code == ExitCode.REFUSED
    assert play.sequence.verdict.reason == "a person asked for a stop before torque was given"


def test_ending_a_run_that_is_stopped_moves_nothing():
    for end in (lambda play: play.key("q"), lambda play: play.signal(signal.SIGTERM)):
        play = Play(on_stop="wait").run()
        play.hear("control", "stop", "load: elbow")
        assert sent(end(play), Quit) == [Quit(park=False)]


def test_a_command_does_what_its_key_does():
    """In every stage that a run comes through; what does nothing has a reason."""
    stages = {
        Stage.STARTING: lambda play: None,
        Stage.RETURNING: lambda play: play.ready(),
        Stage.RUNNING: lambda play: play.run(),
        Stage.ENDING: lambda play: play.run().signal(signal.SIGUSR1),
        Stage.STOPPED: lambda play: play.run().hear("control", "stop", "load: elbow"),
        Stage.QUITTING: lambda play: play.run().key("q"),
        Stage.LEAVING: lambda play: (play.run().key("q"), play.exit("control", 0)),
        Stage.DONE: lambda play: (play.run().key("q"), play.exit("control", 0), play.exit("policy", 0)),
    }
    for stage, prepare in stages.items():
        for name, command in COMMANDS.items():
            one, other = Play(on_stop="wait"), Play(on_stop="wait")
            prepare(one)
            prepare(other)
            assert one.sequence.stage == stage
            one.now = other.now = one.now + 1
            outcome = one.sequence.ask(name, one.now)
            if command.key:
                assert list(outcome.actions) == other.sequence.on_key(command.key, other.now), (stage, name)
            assert bool(outcome.refusal) == (stage not in command.stages), (stage, name)
            if outcome.refusal:
                assert (list(outcome.actions), one.sequence.stage) == ([], stage)


def test_a_policy_killed_in_motion_ends_in_a_protective_stop_even_after_a_reset():
    play = Play(on_stop="wait").run()
    (stop,) = sent(play.exit("policy", -9), Stop)
    assert stop.latched
    play.hear("control", "stop", "policy_lost: the policy process has ended")
    play.key("r")
    play.hear("control", "reset", "the latched stop was reset; the arm holds")
    assert sent(play.key("n"), Quit) == [Quit(park=False)]
    play.exit("control", 0)
    assert play.sequence.stage == Stage.DONE
    assert play.sequence.verdict.exit_code == ExitCode.PROTECTIVE_STOP


def test_control_that_dies_is_an_internal_error_that_says_what_the_motors_do():
    play = Play().run()
    assert sent(play.exit("control", -9), Quit, "policy") == [Quit()]
    play.exit("policy", 0)
    assert play.sequence.verdict.exit_code == ExitCode.INTERNAL
    assert "keep their last goal" in play.sequence.verdict.reason


def test_control_that_hangs_is_killed_after_the_policy():
    play = Play(duration_s=None).run()
    play.now += 6 * S
    ends = [a for a in play.sequence.on_time(play.now) if isinstance(a, End)]
    assert [(end.child, end.now) for end in ends] == [("policy", True), ("control", True)]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, ExitCode.INTERRUPTED),
        (signal.SIGTERM, ExitCode.TERMINATED),
        (signal.SIGHUP, ExitCode.HANGUP),
    ],
)
def test_a_signal_parks_and_gives_its_code(number: int, code: ExitCode):
    play = Play().run()
    assert sent(play.signal(number), Quit) == [Quit(park=True)]
    assert play.end() == code
    assert play.sequence.records[0].outcome.startswith("ended by")


def test_a_second_signal_stops_in_place_and_a_third_changes_nothing():
    play = Play().run()
    play.signal(signal.SIGINT)
    assert sent(play.signal(signal.SIGINT), Quit) == [Quit(park=False)]
    assert sent(play.signal(signal.SIGINT), Quit) == []
    assert play.end() == ExitCode.INTERRUPTED


def test_a_stop_while_parking_counts_more_than_the_signal():
    play = Play().run()
    play.signal(signal.SIGTERM)
    play.hear("control", "stop", "load: elbow")
    assert play.end() == ExitCode.PROTECTIVE_STOP


def test_a_signal_before_the_policy_is_ready_ends_it_at_once():
    play = Play()
    assert sent(play.signal(signal.SIGTERM), Quit) == [Quit(park=True)]
    assert play.exit("control", 0) == [End("policy")]
    play.exit("policy", -15)
    assert play.sequence.verdict.exit_code == ExitCode.TERMINATED


@pytest.mark.parametrize(
    ("prepare", "seconds"),
    [
        (lambda play: play.hear("control", "connected"), 181),
        (lambda play: play.ready(), 61),
        (lambda play: play.run().signal(signal.SIGUSR1), 11),
        (lambda play: play.run().signal(signal.SIGTERM), 61),
    ],
)
def test_every_wait_has_a_deadline(prepare: Any, seconds: float):
    play = Play()
    prepare(play)
    actions = play.wait(seconds)
    assert "late" in journal(actions)
    assert End("policy", True) in actions
    assert Quit(park=False) in sent(actions, Quit)
    assert End("control", True) in play.wait(11)
    play.exit("policy", -9)
    play.exit("control", -9)
    assert play.sequence.stage == Stage.DONE
    assert play.sequence.verdict.exit_code == ExitCode.INTERNAL


def test_a_policy_that_does_not_leave_is_killed():
    play = Play().run()
    play.signal(signal.SIGTERM)
    play.exit("control", 0)
    assert End("policy", True) in play.wait(4)


CODES = ["connected", "ready", "at_start", "holding", "refused", "reset", "running", "starved"]


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("event"), st.sampled_from(["control", "policy"]), st.sampled_from(CODES)),
            st.tuples(st.just("key"), st.sampled_from("nrq x"), st.none()),
            st.tuples(st.just("signal"), st.sampled_from([2, 15, 1, 10]), st.none()),
            st.tuples(st.just("wait"), st.floats(0.1, 20), st.none()),
        ),
        max_size=25,
    )
)
def test_after_a_protective_stop_nothing_asks_for_motion_until_a_person_has_reset(steps: list[tuple]):
    play = Play("touch", "pick", on_stop="wait").run()
    play.hear("control", "stop", "load: elbow")
    was_reset = False
    for kind, first, second in steps:
        if kind == "event":
            was_reset = was_reset or (first, second) == ("control", "reset")
            actions = play.hear(first, second)
        elif kind == "key":
            actions = play.key(first)
        elif kind == "signal":
            actions = play.signal(first)
        else:
            actions = play.wait(first)
        if not was_reset:
            assert sent(actions, Arm) == []
            assert [task for task in sent(actions, Task, "policy") if task.text] == []
