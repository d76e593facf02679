"""What is told about a recording is what happened on the bench, to the number."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.drivers.feetech import codec
from holdfast.drivers.types import Direction, StampSource
from holdfast.runtime.control.state import Inbox
from holdfast.runtime.messages import Phase
from holdfast.runtime.recorder.account import Account, account_of, as_json
from holdfast.runtime.recorder.evidence import evidence_at
from holdfast.runtime.recorder.facts import STOOD_NS
from holdfast.runtime.recorder.observed import FaultRecord, FrameRecord, InferenceRecord, TaskRecord
from holdfast.runtime.recorder.records import BusRecord, EventRecord
from holdfast.runtime.recorder.story import tell
from holdfast.runtime.recorder.timeline import timeline

from ..control.world import MS, arm
from .flight import Flight


def told(account: Account) -> str:
    return "\n".join(line for section in tell(account) for line in (section.title, *section.lines))


def moving_flight() -> Flight:
    """The first joint at full speed when the flight is looked at."""
    return Flight(goal=0.9).go(25)


def test_the_stop_its_reason_and_its_row_of_the_table() -> None:
    account = account_of(moving_flight().stop("camera_lost", "the cable is off").rest().recording())
    stop = account.stop
    assert stop is not None
    assert (stop.code, stop.text) == ("camera_lost", "the cable is off")
    assert (stop.meaning, stop.reaction, stop.tuned, stop.category) == ("a camera is gone", "stop", False, 2)
    assert stop.phase == "run"
    assert stop.noticed_by == "the policy process"
    assert account.at_ns == stop.at_ns == account.recording.ticks[stop.index].now_ns
    text = told(account)
    assert "Protective stop camera_lost: a camera is gone." in text
    assert "the cable is off" in text
    assert "--reset" in text


def test_a_fault_of_the_policy_is_dated() -> None:
    flight = moving_flight()
    fault = FaultRecord(flight.bench.now_ns + 7 * MS, "camera_lost", "the cable is off")
    account = account_of(flight.stop("camera_lost", "the cable is off").recording(faults=(fault,)))
    assert account.stop is not None
    assert account.stop.noticed_by == "the policy process, 3.0 ms before"


@pytest.mark.parametrize(
    ("sample", "code", "margin", "value", "where"),
    [
        ({"position": (0.2, 0.4, 10.0)}, "following_error", "following error", 0.7, "lift"),
        ({"voltage_v": (7.4, 2.0, 7.4)}, "voltage", "lowest supply", 2.0, "lift"),
        ({"temperature_c": (30.0, 30.0, 80.0)}, "temperature", "hottest motor", 80.0, "grip"),
    ],
)
def test_the_number_that_stopped_it_is_marked(
    sample: dict, code: str, margin: str, value: float, where: str
) -> None:
    flight = Flight().go(1, chunk_every=1000)
    flight.bench.tick(**sample)
    account = account_of(flight.rest(10).recording())
    assert account.stop is not None
    assert account.stop.code == code
    assert account.stop.noticed_by == "control's core, in this tick"
    exceeded = [m for m in account.margins if m.exceeded]
    assert [(m.name, m.where) for m in exceeded] == [(margin, where)]
    assert exceeded[0].value == pytest.approx(value)
    assert "<-- beyond its limit" in told(account)


def test_ages_are_those_that_control_judged() -> None:
    flight = moving_flight()
    for _ in range(9):
        flight.bench.tick(bus=False)
    account = account_of(flight.recording())
    assert account.stop is not None
    assert account.stop.code == "joint_state_stale"
    margin = next(m for m in account.margins if m.exceeded)
    assert (margin.name, margin.value, margin.limit) == ("age of the joint state", 81.0, 80.0)
    bus = account.evidence.bus
    assert (bus.failed, bus.failed_in_a_row) == (8, 8)
    assert bus.last_complete_ns == account.at_ns - 81 * MS


def test_braking_distance_and_time() -> None:
    flight = moving_flight()
    before = flight.bench.setpoints[-1][0]
    speed = (before - flight.bench.setpoints[-2][0]) / 0.01
    account = account_of(flight.stop().rest().recording())
    braking = account.braking
    assert braking is not None
    pan = braking.joints[0]
    assert pan.commanded == before
    assert pan.velocity == pytest.approx(speed)
    assert speed > 0.5, "else there is nothing to brake"
    # The bench's arm is where it was commanded to be one tick later.
    assert pan.braked == pytest.approx(pan.moved, abs=0.02)
    assert pan.braked is not None
    assert pan.braked > 0.01
    assert pan.last == pytest.approx(flight.bench.setpoints[-1][0])
    assert pan.to_limit == pytest.approx(1.0 - flight.bench.setpoints[-1][0])
    assert braking.command_rest_s is not None
    assert braking.arm_stood_s is not None
    assert 0 < braking.command_rest_s <= braking.arm_stood_s < 0.5
    assert [t.phase for t in account.recording.ticks if t.now_ns < account.at_ns][-1] == Phase.RUN


def test_an_arm_that_still_moves_at_the_end_is_not_said_to_stand() -> None:
    flight = moving_flight().stop()
    while flight.bench.state.phase == Phase.STOPPING:
        flight.bench.tick()
    braking = account_of(flight.recording()).braking
    assert braking is not None
    assert braking.command_rest_s is not None
    assert braking.arm_stood_s is None
    assert braking.measured_for_s is not None
    assert braking.measured_for_s < STOOD_NS / 1e9 + braking.command_rest_s


def test_two_stops_and_a_reset_between() -> None:
    flight = moving_flight().stop("chunk_stale", "450 ms old").rest(100)
    flight.bench.tick(Inbox(reset=True))
    flight.bench.tick(Inbox(arm=arm()))
    flight.go(10).stop("policy_lost", "the policy process has ended").rest()
    account = account_of(flight.recording())
    first, second = account.stops
    assert (first.code, second.code) == ("chunk_stale", "policy_lost")
    assert first.reset_ns is not None
    assert second.reset_ns is None
    assert account.at_ns == second.at_ns
    text = told(account)
    assert "A stop earlier: chunk_stale" in text
    assert second.noticed_by == "control, at the end of the policy's channel"


def test_a_request_to_end_is_no_stop() -> None:
    flight = moving_flight()
    flight.bench.tick(Inbox(quit="park"))
    account = account_of(flight.rest(20).recording())
    assert account.stops == ()
    assert account.at_ns == account.quit_ns
    assert "No protective stop. Control was asked to end" in told(account)


def test_control_that_was_killed() -> None:
    flight = moving_flight()
    now = flight.bench.now_ns
    ended = EventRecord(now + 20 * MS, "supervisor", "ended", "control process: killed by SIGKILL", -9.0, 1)
    account = account_of(flight.recording(events=(ended,)))
    assert account.control_died == "control process: killed by SIGKILL"
    assert account.at_ns == now
    text = told(account)
    assert "Control ended without a stop (control process: killed by SIGKILL)" in text
    assert "last goal" in text


def test_control_that_ended_with_a_stop_did_not_die() -> None:
    flight = moving_flight().stop().rest()
    ended = EventRecord(flight.bench.now_ns, "supervisor", "ended", "control process: exit code 4", 4.0, 1)
    assert account_of(flight.recording(events=(ended,))).control_died == ""


def test_a_recording_that_is_replayed_otherwise_tells_what_is_recorded() -> None:
    recording = moving_flight().stop().rest().recording()
    tick = recording.ticks[10]
    ticks = list(recording.ticks)
    ticks[10] = replace(tick, output=replace(tick.output, new_chunk_id=77))
    account = account_of(replace(recording, ticks=tuple(ticks)))
    assert account.stop is not None
    assert account.margins == ()
    text = told(account)
    assert "Replay: DIFFERENT at tick 10" in text
    assert "recorded 77, replayed 0" in text
    assert "Not known: the replay departs" in text


# Evidence


def test_motors_that_leave_requests_unanswered_are_named() -> None:
    flight = moving_flight()
    ids = (1, 2, 3)
    now = flight.bench.now_ns
    records = []

    def say(at_ms: int, direction: Direction, data: bytes) -> None:
        records.append(BusRecord(len(records), now - at_ms * MS, direction, data))

    answers = {i: codec.encode_request(i, 0, bytes(codec.FEEDBACK_LENGTH)) for i in ids}
    for cycle in range(10):
        request = codec.sync_read(ids, codec.FEEDBACK_ADDRESS, codec.FEEDBACK_LENGTH)
        say(205 - 20 * cycle, Direction.SENT, request)
        say(203 - 20 * cycle, Direction.RECEIVED, b"".join(answers[i] for i in ids if i != 2 or cycle < 6))
        say(201 - 20 * cycle, Direction.SENT, codec.encode_goals(ids, (100, 200, 300)))
    bus = evidence_at(flight.recording(bus=tuple(records)), now).bus
    assert bus.silent == (("lift", 4, 10),)


def test_what_a_motor_reports_is_named() -> None:
    flight = Flight().go(1)
    flight.bench.tick(faults=(0, 32 | 4, 0))
    account = account_of(flight.rest(5).recording())
    assert account.stop is not None
    assert account.stop.code == "motor_fault"
    assert account.evidence.bus.faults == (("lift", "overheat, overload (0x24)"),)


def test_the_picture_that_repeats_is_seen_in_what_was_kept() -> None:
    flight = moving_flight()
    now = flight.bench.now_ns
    pictures = [b"one", b"two", b"two", b"two"]
    stamps = [now - (800 - 200 * k) * MS for k in range(4)]
    frames = [
        FrameRecord("front", stamp, StampSource.HEADER, stamp + 5 * MS, k, data)
        for k, (stamp, data) in enumerate(zip(stamps, pictures, strict=True))
    ]
    (camera,) = evidence_at(flight.recording(frames=tuple(frames)), now).cameras
    assert (camera.pictures, camera.last_ns, camera.same_since_ns) == (4, now - 200 * MS, now - 600 * MS)
    early = evidence_at(flight.recording(frames=tuple(frames)), now - 700 * MS).cameras
    assert early[0].same_since_ns is None
    assert early[0].last_ns == now - 800 * MS


def inference(chunk_id: int, end_ns: int, took_ms: int) -> InferenceRecord:
    start = end_ns - took_ms * MS
    seen, came, took = start - 20 * MS, start - 10 * MS, took_ms * MS
    return InferenceRecord(chunk_id, 1, seen, came, start, start, start, end_ns, end_ns, took, end_ns)


def test_the_slow_inference_stands_out() -> None:
    flight = moving_flight()
    now = flight.bench.now_ns
    ends = [(1, 400, 30), (2, 300, 31), (3, 200, 29), (4, 50, 140), (5, -50, 30)]
    inferences = tuple(inference(i, now - before * MS, took) for i, before, took in ends)
    run = {"policy_limits": {"frame_age_ns": 400 * MS}}
    facts = evidence_at(flight.recording(inferences=inferences, run=run), now).inferences
    assert facts is not None
    assert (facts.count, facts.last_chunk, facts.last_ms, facts.median_ms) == (4, 4, 140.0, 30.5)
    assert (facts.worst_ms, facts.worst_end_ns) == (140.0, now - 50 * MS)
    assert facts.largest_gap_ms == 150.0
    assert (facts.last_picture_ms, facts.picture_limit_ms) == (20.0, 400.0)


def test_starvation_and_clamps_of_the_last_seconds() -> None:
    flight = Flight(goal=2.0).go(30)
    flight.bench.run(60)
    flight.go(5)
    evidence = account_of(flight.recording()).evidence
    ((begin, end),) = evidence.starved
    assert 0 < end - begin < 600 * MS
    assert ("pan: lead", 1) in evidence.clamped


# The order of things


def test_the_order_merges_what_repeats_and_says_nothing_twice() -> None:
    flight = moving_flight().stop("camera_lost", "gone").rest()
    at = flight.bench.now_ns
    events = (
        EventRecord(at - 2000 * MS, "control", "guard", "position: checked", 0.0, 1),
        EventRecord(at - 2000 * MS, "control", "rt", "memory locked: ok", 1.0, 1),
        EventRecord(at - 2000 * MS, "control", "rt", "SCHED_FIFO: FAILED, not permitted", 0.0, 1),
        *(EventRecord(at - k * 100 * MS, "control", "bus_error", "motor 3", 0.0, 1) for k in (5, 4, 3)),
        EventRecord(at, "control", "stop", "camera_lost: gone", 2.0, 1),
        EventRecord(at, "policy", "fault", "camera_lost: gone", 0.0, 1),
    )
    faults = (FaultRecord(at - 1, "camera_lost", "gone"),)
    tasks = (TaskRecord(at - 3000 * MS, 1, "touch the cube"), TaskRecord(at, 1, ""))
    entries = timeline(flight.recording(events=events, faults=faults, tasks=tasks))
    codes = [entry.code for entry in entries]
    assert [entry.at_ns for entry in entries] == sorted(entry.at_ns for entry in entries)
    assert codes.count("stop") == 1
    assert codes.count("fault") == 1
    assert "guard" not in codes
    assert [entry.text for entry in entries if entry.code == "rt"] == ["SCHED_FIFO: FAILED, not permitted"]
    (bus,) = [entry for entry in entries if entry.code == "bus_error"]
    assert (bus.count, bus.last_ns - bus.at_ns) == (3, 200 * MS)
    order = [codes.index(code) for code in ("task", "running", "stop", "at_rest", "stopped")]
    assert order == sorted(order)


def test_missed_slots_and_missing_records_are_in_the_order() -> None:
    flight = moving_flight()
    flight.bench.tick(Inbox(slots_late=3, slots_overrun=1))
    entries = timeline(flight.recording(gaps=frozenset({5})))
    texts = {entry.code: entry.text for entry in entries}
    assert texts["missed"] == "4 slots: 3 woke late, 1 after a tick that ran over"
    assert "missing" in texts["gap"]


def test_times_are_times_of_day_where_the_run_says_so() -> None:
    flight = moving_flight().stop()
    day_ns = 1_700_000_000_000_000_000 - flight.bench.now_ns
    run = {"utc_less_monotonic_ns": day_ns, "bundle": {"name": "tiny"}, "robot": {"name": "sim_arm"}}
    assert "2023-11-14 22:13:20.000 UTC" in told(account_of(flight.recording(run=run)))


def test_the_json_has_the_same_facts() -> None:
    account = account_of(moving_flight().stop().rest().recording())
    document = as_json(account)
    assert document["schema"] == "holdfast.explanation"
    assert document["stops"][0]["code"] == "camera_lost"
    assert document["replay"] == {
        "identical": True,
        "ticks": len(account.recording.ticks),
        "states": len(account.recording.states) - 1,
        "skipped": 0,
        "difference": None,
    }
    assert document["braking"]["joints"][0]["name"] == "pan"
    assert document["braking"]["joints"][0]["to_limit"] == pytest.approx(account.braking.joints[0].to_limit)  # pyright: ignore
