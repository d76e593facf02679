"""What control was given and gave comes back bit for bit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.drivers.types import Direction, JointState
from holdfast.runtime.control.clock import Wake
from holdfast.runtime.control.config import CoreConfig
from holdfast.runtime.control.smoother import KinematicLimits
from holdfast.runtime.control.state import CoreState, Inbox, Note, Output
from holdfast.runtime.control.strategies import STRATEGIES
from holdfast.runtime.messages import Chunk, Phase, Snapshot
from holdfast.runtime.recorder import codec
from holdfast.runtime.recorder.kinds import RecordingError
from holdfast.runtime.recorder.records import EventRecord

from ..control.world import Bench, chunk, config
from .arbitrary import FLOATS, INTS, arbitrary

JOINTS = 3
ROW = st.tuples(*[FLOATS] * JOINTS)
U32 = st.integers(0, 2**32 - 1)
MANY = settings(max_examples=150, deadline=None)


def per_joint(kind: type) -> dict[str, st.SearchStrategy]:
    """The fields that have a value for each joint."""
    rows = {n: get_args(hint) for n, hint in get_type_hints(kind).items() if get_args(hint)[1:] == (...,)}
    return {name: st.tuples(*[arbitrary(element)] * JOINTS) for name, (element, _) in rows.items()}


joint_states = arbitrary(JointState, **per_joint(JointState))
chunks = arbitrary(Chunk, actions=st.lists(ROW, min_size=1, max_size=4).map(tuple))
counts = {"superseded": U32, "slots_run": U32, "slots_late": U32, "slots_overrun": U32}
inboxes = arbitrary(Inbox, chunk=st.none() | chunks, **counts)
outputs = arbitrary(Output, setpoint=st.none() | ROW, target=st.none() | ROW, new_chunk_id=U32)
since_boot = st.integers(0, 2**62)
wakes = st.none() | arbitrary(Wake, slot_ns=since_boot, wake_ns=since_boot)


def exactly(value: object) -> str:
    """Python's repr tells every double from every other, and the zeros apart."""
    return repr(value)


@MANY
@given(INTS, wakes, st.none() | joint_states, inboxes, st.sampled_from(Phase), outputs)
def test_a_tick(
    now_ns: int, wake: Wake | None, joint: JointState | None, inbox: Inbox, phase: Phase, output: Output
):
    ticks = codec.TickCodec(JOINTS)
    body = ticks.encode(now_ns, wake, joint, inbox, phase, output)
    tick = ticks.decode(5, body, inbox.chunk)
    given_back = (tick.now_ns, tick.joint, tick.inbox, tick.phase, tick.output)
    assert exactly(given_back) == exactly((now_ns, joint, inbox, phase, output))
    if wake is not None:
        assert (tick.slot_ns, tick.late_ns) == (wake.slot_ns, wake.wake_ns - wake.slot_ns)
    assert ticks.has_chunk(body) == (inbox.chunk is not None)


def test_a_tick_in_which_nothing_rare_happens_has_no_json():
    ticks = codec.TickCodec(JOINTS)
    row = (0.1, -0.0, 1e-320)
    joint = JointState(1, row, row, row, row, row, row, (0, 0, 32))
    inbox = Inbox(heard_policy=True, heard_supervisor=True, slots_late=1)
    body = ticks.encode(1, None, joint, inbox, Phase.RUN, Output(row, target=row))
    assert len(body) == ticks.usual_bytes
    with_note = Output(row, (Note("clamped", "pan: lead"),), target=row)
    assert len(ticks.encode(1, None, joint, inbox, Phase.RUN, with_note)) > ticks.usual_bytes


def test_a_tick_without_its_chunk_is_refused():
    ticks = codec.TickCodec(JOINTS)
    inbox = Inbox(chunk=chunk([(0.0,) * JOINTS], chunk_id=1, observation_ns=1))
    body = ticks.encode(1, None, None, inbox, Phase.RUN, Output(None))
    with pytest.raises(RecordingError, match="without its chunk"):
        ticks.decode(1, body, None)


@pytest.mark.parametrize("body", [b"", b"\0" * 20, b"\xff" * 400])
def test_a_tick_of_nonsense_is_refused(body: bytes):
    with pytest.raises(RecordingError):
        codec.TickCodec(JOINTS).decode(1, body, None)


@MANY
@given(arbitrary(CoreState))
def test_a_state(state: CoreState):
    again = codec.decode_state(codec.encode_state(state))
    assert again == state
    # A set has no order.
    assert exactly(replace(again, seen=frozenset())) == exactly(replace(state, seen=frozenset()))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_real_state_in_the_middle_of_chunks(strategy: str):
    bench = Bench()
    bench.core = type(bench.core)(config(strategy=strategy, ema_s=0.05))
    bench.start()
    for k in range(8):
        rows = [(0.01 * i + 0.003 * k, 1 / 3, 10.0 + i) for i in range(8)]
        bench.tick(Inbox(chunk=chunk(rows, chunk_id=k + 1, observation_ns=bench.now_ns)))
        bench.run(6)
    assert bench.state.execution is not None
    assert exactly(codec.decode_state(codec.encode_state(bench.state))) == exactly(bench.state)


def test_a_text_that_is_no_unicode_and_numbers_that_are_not_finite():
    motion = Bench().state.motion
    assert motion is not None
    odd = replace(motion, velocity=(math.inf, -math.inf, -0.0))
    state = CoreState(motion=odd, goal_event="a path with \udc80 in it")
    assert exactly(codec.decode_state(codec.encode_state(state))) == exactly(state)


@MANY
@given(
    arbitrary(
        CoreConfig,
        kinematic=arbitrary(KinematicLimits, **per_joint(KinematicLimits)),
        **per_joint(CoreConfig),
    )
)
def test_a_configuration(any_config: CoreConfig):
    assert exactly(codec.decode_config(codec.encode_config(any_config))) == exactly(any_config)


def test_records_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch):
    preamble = codec.encode_config(config())
    monkeypatch.setattr(codec, "FORMAT", codec.FORMAT + 1)
    with pytest.raises(RecordingError, match="another version"):
        codec.decode_config(preamble)


@pytest.mark.parametrize("preamble", [b"", b"[]", b"{}", b'{"format": 1, "layout": 2, "config": 3}', b"\xff"])
def test_a_head_of_nonsense_is_refused(preamble: bytes):
    with pytest.raises(RecordingError):
        codec.decode_config(preamble)


@MANY
@given(arbitrary(EventRecord), arbitrary(Snapshot), st.sampled_from(Direction), st.binary())
def test_events_snapshots_and_bytes(
    event: EventRecord, snapshot: Snapshot, direction: Direction, data: bytes
):
    assert exactly(codec.decode_event(codec.encode_event(event))) == exactly(event)
    assert exactly(codec.decode_snapshot(codec.encode_snapshot(snapshot))) == exactly(snapshot)
    bus = codec.decode_bus(3, 4, codec.encode_bus(direction, data))
    assert (bus.direction, bus.data) == (direction, data)


@pytest.mark.parametrize("body", [b"", b"\x07abc"])
def test_bytes_in_no_direction_are_refused(body: bytes):
    with pytest.raises(RecordingError):
        codec.decode_bus(1, 1, body)


@pytest.mark.parametrize("decode", [codec.decode_state, codec.decode_event, codec.decode_snapshot])
@pytest.mark.parametrize("body", [b"", b"[1]", b'{"phase": "x"}', b"\xff\xfe"])
def test_json_of_nonsense_is_refused(decode, body: bytes):
    with pytest.raises(RecordingError):
        decode(body)
