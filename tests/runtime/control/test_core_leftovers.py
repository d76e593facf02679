"""The core where something is missing, left over, or comes again: no sample, no torque, no task."""

from __future__ import annotations

import pytest

from holdfast.runtime.control.core import ControlCore
from holdfast.runtime.control.deadlines import REACTIONS
from holdfast.runtime.control.quick import replace
from holdfast.runtime.control.smoother import Motion
from holdfast.runtime.control.state import Condition, CoreState, Inbox, Note, StopRecord
from holdfast.runtime.messages import Phase

from .test_core import HERE, ramp
from .test_core_exact import bench_with, following, hit
from .world import MS, Bench, chunk, config, joint_state

COUNTED = [code for code, row in REACTIONS.items() if row.kind == "count"]
HEARD = Inbox(heard_policy=True, heard_supervisor=True)


@pytest.mark.parametrize("code", COUNTED)
def test_what_is_only_counted_is_told_and_changes_nothing(code: str) -> None:
    bench = following()
    execution, told = bench.state.execution, len(bench.notes)
    hit(bench, code)
    assert bench.notes[told:] == [Note(code, "x")]
    assert (bench.state.phase, bench.state.stop, bench.state.silent) == (Phase.RUN, None, False)
    assert (bench.state.execution, bench.state.held_by) == (execution, ())


def test_released_is_for_good_and_stays_on_record_as_it_was() -> None:
    bench = following(bench_with(stop_category=0, reactions={"camera_lost": "stop_1"}))
    hit(bench, "camera_lost")
    stop, told = bench.state.stop, bench.codes().count("stopped")
    released = [bench.tick().release for _ in range(60)]
    assert (sum(released), bench.state.phase) == (1, Phase.RELEASED)
    output = hit(bench, "motor_fault")
    assert (bench.state.phase, bench.state.stop) == (Phase.RELEASED, stop)
    assert bench.codes().count("stopped") == told + 1
    assert (output.release, output.setpoint) == (False, None)


@pytest.mark.parametrize(("age_ns", "silent"), [(80 * MS, False), (80 * MS + 1, True)])
def test_without_any_sample_the_silence_is_as_long_as_the_clock_has_run(age_ns: int, silent: bool) -> None:
    core = ControlCore(config())
    state = replace(core.energised(CoreState(), joint_state(HERE, 0), 1), joint=None)
    state, _ = core.step(state, age_ns, None, Inbox(conditions=(Condition("requested", "x"),)))
    assert state.latched
    assert state.silent is silent


@pytest.mark.parametrize("phase", [Phase.HOLD, Phase.STOPPING, Phase.STOPPED, Phase.RELEASED])
def test_a_chunk_that_is_left_over_is_followed_in_no_other_phase(phase: Phase) -> None:
    bench = following()
    before = bench.state.motion
    assert before is not None
    stop = StopRecord("requested", "x", bench.now_ns, latched=True)
    bench.state = replace(bench.state, phase=phase, stop=stop)
    output = bench.tick()
    assert output.target is None
    assert bench.state.motion == bench.core.smoother.brake(before)


def test_without_a_sample_to_clamp_by_no_target_is_followed() -> None:
    bench = Bench(now_ns=MS)
    bench.start()
    bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=1, observation_ns=bench.now_ns)))
    bench.run(2)
    before = bench.state.motion
    assert before is not None
    assert before.velocity[0] > 0
    state, output = bench.core.step(replace(bench.state, joint=None), bench.now_ns + 10 * MS, None, HEARD)
    assert not state.latched
    assert output.target is not None
    assert state.motion == bench.core.smoother.brake(before)


@pytest.mark.parametrize("rows", [ramp(0.9), ramp(0.9)[:3]])
def test_a_chunk_that_comes_after_the_end_of_its_task_is_nothing(rows: list[tuple[float, ...]]) -> None:
    bench = following()
    bench.tick(Inbox(stop=Condition("requested", "done")))
    bench.run(60)
    assert bench.state.phase == Phase.HOLD
    counters = bench.state.counters
    late = chunk(rows, chunk_id=2, observation_ns=bench.now_ns)
    output = bench.tick(Inbox(chunk=late))
    assert (bench.state.counters, bench.state.execution, bench.state.stop) == (counters, None, None)
    assert (bench.state.last_chunk_id, output.new_chunk_id) == (1, 0)


def test_a_malformed_chunk_stops_also_where_it_is_of_another_task() -> None:
    bench = following()
    new = chunk(ramp(0.9)[:3], chunk_id=2, observation_ns=bench.now_ns, task_id=9)
    bench.tick(Inbox(chunk=new))
    assert bench.stop_code() == "chunk_bad"
    assert (bench.state.counters.rejected_chunks, bench.state.counters.other_task_chunks) == (1, 0)


def test_the_chunk_that_ends_a_starvation_is_named() -> None:
    bench = following()
    bench.run(60)
    assert (bench.state.phase, bench.state.starved) == (Phase.RUN, True)
    told = len(bench.notes)
    for chunk_id in (2, 3):
        bench.tick(Inbox(chunk=chunk(ramp(0.9), chunk_id=chunk_id, observation_ns=bench.now_ns)))
        assert not bench.state.starved
    resumed = [note for note in bench.notes[told:] if note.code == "resumed"]
    assert resumed == [Note("resumed", "chunk 2")]


def test_a_setpoint_that_is_refused_is_not_commanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a generator that jumps: the arm brakes from where it was commanded to be."""
    bench = following()
    before, smoother = bench.state.motion, bench.core.smoother
    assert before is not None
    jump = Motion.at_rest((before.position[0] + 0.5, *before.position[1:]))
    monkeypatch.setattr(smoother, "toward", lambda *_: jump)
    output = bench.tick()
    assert bench.stop_code() == "velocity_limit"
    assert bench.state.motion == smoother.brake(before)
    assert output.setpoint == smoother.brake(before).position
