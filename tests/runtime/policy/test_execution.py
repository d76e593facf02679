"""The policy process and its chunks: measured latency, what is left of one, when to look again."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.runtime.messages import Chunk, Phase, StampSource, State
from holdfast.runtime.policy.execution import LOST_NS, ExecutionView

MS = 1_000_000
DT = 50 * MS
ZEROS = (0.0, 0.0)


def chunk(chunk_id: int, observation_ns: int, steps: int = 8) -> Chunk:
    rows = tuple((float(i), 10.0 * i) for i in range(steps))
    return Chunk(chunk_id, 1, observation_ns, 0, 0, 0, 0, 33 * MS, StampSource.HEADER, DT, rows)


def state(
    chunk_id: int = 0,
    origin_ns: int = 0,
    end_ns: int = 0,
    first_used_ns: int = 0,
    still_since_ns: int = 0,
    phase: Phase = Phase.RUN,
    task_id: int = 1,
) -> State:
    return State(
        phase, task_id, chunk_id, origin_ns, end_ns, first_used_ns, 0, still_since_ns, ZEROS, ZEROS, ZEROS
    )


def view() -> ExecutionView:
    made = ExecutionView()
    made.begin(1)
    return made


def test_latency_is_measured_from_the_observation_to_the_first_use():
    seen = view()
    assert seen.latency_ns == 0
    for chunk_id, latency in ((1, 80), (2, 120), (3, 60)):
        observed = chunk_id * 1000 * MS
        seen.sent(chunk(chunk_id, observed), observed + 50 * MS)
        seen.add(state(chunk_id, observed, observed + 7 * DT, observed + latency * MS), 0)
    assert seen.latency_ns == 120 * MS


def test_what_was_sent_for_another_task_does_not_count():
    seen = view()
    seen.sent(chunk(1, 1000 * MS), 1000 * MS)
    seen.begin(2)
    seen.add(state(1, 1000 * MS, 2000 * MS, 1100 * MS), 0)
    assert seen.latency_ns == 0


def test_the_prefix_is_what_is_left_of_the_chunk_under_way_from_the_observation_on():
    seen = view()
    seen.sent(chunk(1, 1000 * MS), 1050 * MS)
    seen.add(state(1, 1000 * MS, 1000 * MS + 7 * DT, 1080 * MS), 0)
    guidance = seen.guidance(1000 * MS + 2 * DT + DT // 2, DT)
    assert guidance.delay == 2, "80 ms are two steps of 50 ms"
    assert guidance.prefix[:, 0] == pytest.approx([2.5, 3.5, 4.5, 5.5, 6.5])
    assert guidance.prefix[:, 1] == pytest.approx([25, 35, 45, 55, 65])


def test_a_chunk_whose_origin_was_moved_is_read_at_the_origin_that_control_gave_it():
    """The first chunk starts when it comes, not when its picture was taken."""
    seen = view()
    seen.sent(chunk(1, 1000 * MS), 1050 * MS)
    seen.add(state(1, 1100 * MS, 1100 * MS + 7 * DT, 1100 * MS), 0)
    assert seen.guidance(1200 * MS, DT).prefix[0] == pytest.approx((2.0, 20.0))


@pytest.mark.parametrize("running", [False, True])
def test_without_a_chunk_under_way_there_is_no_prefix(running: bool):
    seen = view()
    if running:
        seen.sent(chunk(1, 1000 * MS), 1050 * MS)
        seen.add(state(1, 1000 * MS, 1000 * MS + 7 * DT, 1080 * MS), 0)
    assert seen.guidance(1000 * MS + 8 * DT, DT).prefix.size == 0


def test_a_chunk_that_was_just_sent_is_the_one_that_the_next_must_continue():
    """Back to back: the next inference begins before a tick of control can have reported the last chunk."""
    seen = view()
    seen.sent(chunk(1, 1000 * MS), 1050 * MS)
    seen.add(state(1, 1000 * MS, 1000 * MS + 7 * DT, 1060 * MS), 1060 * MS)
    seen.sent(chunk(2, 1060 * MS), 1120 * MS)
    assert seen.guidance(1060 * MS + DT, DT).prefix[0] == pytest.approx((1.0, 10.0))
    seen.add(state(1, 1000 * MS, 1000 * MS + 7 * DT, 1060 * MS), 1120 * MS + LOST_NS + 1)
    assert seen.guidance(1060 * MS + DT, DT).prefix[0] == pytest.approx((2.2, 22.0)), "it was not taken"


def test_a_chunk_that_was_just_sent_to_an_arm_that_stands_begins_when_it_comes():
    """As `executor.path_of` has it; the next picture may be older than that."""
    seen = view()
    seen.add(state(still_since_ns=900 * MS), 1240 * MS)
    seen.sent(chunk(1, 1000 * MS), 1250 * MS)
    guidance = seen.guidance(1240 * MS, DT)
    assert guidance.prefix[0] == pytest.approx((0.0, 0.0))
    assert guidance.prefix[1] == pytest.approx((0.8, 8.0))
    assert guidance.delay == 5, "no latency has been measured yet, but 250 ms have passed"


def test_the_prefix_has_the_new_chunks_rate():
    seen = view()
    seen.sent(chunk(1, 0), 0)
    seen.add(state(1, 0, 7 * DT, 1), 0)
    prefix = seen.guidance(DT, 25 * MS).prefix
    assert prefix[:, 0] == pytest.approx(np.arange(1.0, 7.01, 0.5))


def test_a_sequential_policy_looks_once_its_chunk_has_ended_and_the_arm_stands():
    seen = view()
    assert not seen.carried_out(1000 * MS), "control has said nothing yet"
    seen.add(state(still_since_ns=900 * MS), 0)
    assert seen.carried_out(1000 * MS), "the first picture"
    assert not seen.carried_out(899 * MS), "taken while the arm moved"
    seen.sent(chunk(1, 1000 * MS), 1050 * MS)
    seen.add(state(still_since_ns=900 * MS), 1060 * MS)
    assert not seen.carried_out(1060 * MS), "sent, but not yet begun"
    end = 1060 * MS + 7 * DT
    seen.add(state(1, 1060 * MS, end, 1060 * MS, still_since_ns=0), 1200 * MS)
    assert not seen.carried_out(1200 * MS), "under way"
    seen.add(state(1, 1060 * MS, end, 1060 * MS, still_since_ns=1100 * MS), 1300 * MS)
    assert not seen.carried_out(1300 * MS), "the chunk itself pauses, but has not ended"
    seen.add(state(1, 1060 * MS, end, 1060 * MS, still_since_ns=end + 20 * MS), end + 50 * MS)
    assert not seen.carried_out(end + 10 * MS), "ended, but not yet at rest"
    assert seen.carried_out(end + 20 * MS)


def test_a_chunk_that_control_did_not_take_is_not_waited_for():
    seen = view()
    seen.sent(chunk(1, 1000 * MS), 1050 * MS)
    seen.add(state(still_since_ns=900 * MS), 1050 * MS + LOST_NS)
    assert not seen.carried_out(1060 * MS)
    seen.add(state(still_since_ns=900 * MS), 1050 * MS + LOST_NS + 1)
    assert seen.carried_out(1060 * MS)


@pytest.mark.parametrize("change", [{"phase": Phase.STOPPED}, {"phase": Phase.HOLD}, {"task_id": 2}])
def test_a_sequential_policy_waits_until_control_follows_its_task(change: dict):
    seen = view()
    seen.add(state(still_since_ns=900 * MS, **change), 0)
    assert not seen.carried_out(1000 * MS)
