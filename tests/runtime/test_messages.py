"""The wire contract between the processes."""

from __future__ import annotations

import contextlib
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.runtime import envelope as e
from holdfast.runtime import messages as m

SESSION = 2**64 - 7
floats = st.floats(allow_nan=False, width=64)
texts = st.text(max_size=200)
ids = st.integers(0, 2**32 - 1)
stamps = st.integers(-(2**63), 2**63 - 1)
counts = st.integers(0, 2**40)


@st.composite
def chunks(draw: st.DrawFn) -> m.Chunk:
    joints = draw(st.integers(1, 8))
    rows = draw(st.lists(st.tuples(*[floats] * joints), min_size=1, max_size=20))
    six = [draw(stamps) for _ in range(6)]
    return m.Chunk(
        draw(ids), draw(ids), six[0], six[1], six[2], six[3], six[4], six[5],
        m.StampSource.KERNEL, draw(stamps), tuple(rows),
    )  # fmt: skip


@st.composite
def states(draw: st.DrawFn) -> m.State:
    n = draw(st.integers(0, 8))
    row = st.tuples(*[floats] * n)
    return m.State(
        m.Phase.RUN, draw(ids), draw(ids),
        draw(stamps), draw(stamps), draw(stamps), draw(stamps), draw(stamps),
        draw(row), draw(row), draw(row),
    )  # fmt: skip


anything = st.one_of(
    chunks(),
    states(),
    st.just(m.Heartbeat()),
    st.just(m.Reset()),
    st.builds(m.Quit, st.booleans()),
    st.builds(m.Arm, ids, st.booleans(), st.booleans(), stamps, stamps),
    st.builds(m.Stop, st.booleans(), texts),
    st.builds(m.Fault, texts, texts),
    st.builds(m.Event, stamps, texts, texts, floats),
    st.builds(m.Task, ids, texts),
    st.builds(m.Histogram, texts, *[counts] * 4, st.lists(ids, max_size=420).map(tuple), *[counts] * 4),
)


@given(anything, ids, stamps)
def test_every_message_survives_the_wire(message: m.Message, sequence: int, stamp: int) -> None:
    data = e.encode(message, session=SESSION, sequence=sequence, stamp_ns=stamp)
    assert e.decode(data, session=SESSION) == e.Envelope(SESSION, sequence, stamp, message)


def test_a_snapshot_survives_the_wire() -> None:
    snapshot = m.Snapshot(
        m.Phase.RUN, 1, 2, 99.0, 100.0, 98.0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, (0.5, 1.5), (0.25, 1.25),
        14, 15, 16, 17,
    )  # fmt: skip
    data = e.encode(snapshot, session=1, sequence=0, stamp_ns=0)
    assert e.decode(data, session=1).message == snapshot


@given(st.binary(max_size=400))
def test_random_bytes_are_a_message_error(data: bytes) -> None:
    with pytest.raises(m.MessageError):
        e.decode(data, session=SESSION)


@given(anything, st.data())
def test_a_damaged_body_is_a_message_or_an_error_but_never_a_crash(
    message: m.Message, data: st.DataObject
) -> None:
    raw = bytearray(e.encode(message, session=SESSION, sequence=0, stamp_ns=0))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(raw)))
    for damaged in (bytes(raw), bytes(raw[:cut])):
        with contextlib.suppress(m.MessageError):
            e.decode(damaged, session=SESSION)


def test_another_session_or_version_is_refused() -> None:
    data = e.encode(m.Heartbeat(), session=1, sequence=0, stamp_ns=0)
    with pytest.raises(m.MessageError, match="session"):
        e.decode(data, session=2)
    with pytest.raises(m.MessageError, match="version"):
        e.decode(data[:2] + b"\x09" + data[3:], session=1)


def test_a_chunk_that_claims_more_values_than_it_has_is_refused() -> None:
    chunk = m.Chunk(1, 1, 0, 0, 0, 0, 0, 0, m.StampSource.HEADER, 1, ((1.0, 2.0),))
    data = bytearray(e.encode(chunk, session=1, sequence=0, stamp_ns=0))
    struct.pack_into("<H", data, len(data) - 16 - 4, 9)
    with pytest.raises(m.MessageError):
        e.decode(bytes(data), session=1)


def test_nan_travels_so_that_control_itself_can_refuse_it() -> None:
    chunk = m.Chunk(1, 1, 0, 0, 0, 0, 0, 0, m.StampSource.HEADER, 1, ((math.nan,),))
    back = e.decode(e.encode(chunk, session=1, sequence=0, stamp_ns=0), session=1).message
    assert isinstance(back, m.Chunk)
    assert math.isnan(back.actions[0][0])


def test_an_oversized_message_is_refused() -> None:
    rows = tuple((0.0,) * 100 for _ in range(100))
    chunk = m.Chunk(1, 1, 0, 0, 0, 0, 0, 0, m.StampSource.HEADER, 1, rows)
    with pytest.raises(m.MessageError, match="over"):
        e.encode(chunk, session=1, sequence=0, stamp_ns=0)
