"""The message channel between two processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from holdfast.runtime.channel import Channel, ChannelClosed, capacity, channel_pair
from holdfast.runtime.envelope import encode
from holdfast.runtime.messages import Event, Heartbeat, MessageError, Task

SESSION = 0x1234567890ABCDEF


def make_pair(session: int = SESSION) -> tuple[Channel, Channel]:
    left, right = channel_pair()
    return Channel(left, session), Channel(right, session)


def test_messages_arrive_in_order_with_stamp_and_sequence():
    left, right = channel_pair()
    sender, reader = Channel(left, SESSION, clock=lambda: 42), Channel(right, SESSION)

    assert sender.send(Task(1, "touch the red cube"))
    assert sender.send(Heartbeat())

    envelopes = reader.receive_all()
    assert [envelope.message for envelope in envelopes] == [Task(1, "touch the red cube"), Heartbeat()]
    assert [(envelope.sequence, envelope.stamp_ns) for envelope in envelopes] == [(0, 42), (1, 42)]
    assert reader.receive_all() == []
    assert reader.lost == 0


def test_a_full_buffer_drops_the_newest_and_the_reader_counts_the_gap():
    sender, reader = make_pair()

    sent = 0
    while sender.send(Event(0, "stop", "x" * 1000)):
        sent += 1
    assert not sender.send(Heartbeat())
    assert len(reader.receive_all()) == sent
    assert sender.send(Heartbeat())

    assert [envelope.message for envelope in reader.receive_all()] == [Heartbeat()]
    assert reader.lost == 2


def test_the_last_messages_of_a_closed_peer_are_delivered_before_the_end():
    sender, reader = make_pair()
    sender.send(Heartbeat())
    sender.close()

    assert len(reader.receive_all()) == 1
    with pytest.raises(ChannelClosed):
        reader.receive_all()
    with pytest.raises(ChannelClosed):
        reader.send(Heartbeat())


def test_a_peer_that_dies_with_unread_messages_does_not_hide_its_own():
    sender, reader = make_pair()
    reader.send(Heartbeat())
    sender.send(Task(7, "last words"))
    sender.close()

    assert [envelope.message for envelope in reader.receive_all()] == [Task(7, "last words")]
    with pytest.raises(ChannelClosed):
        reader.receive_all()


def test_a_killed_process_is_seen_as_the_end_of_the_stream():
    ours, theirs = channel_pair()
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=(theirs.fileno(),)
    )
    theirs.close()
    channel = Channel(ours, SESSION)
    assert channel.receive_all() == []

    child.kill()
    child.wait()

    assert channel.wait(10.0)
    with pytest.raises(ChannelClosed):
        channel.receive_all()


def test_a_foreign_session_raises_and_loses_none_of_ours():
    left, right = channel_pair()
    reader = Channel(right, SESSION)
    left.send(encode(Task(1, "mine"), session=SESSION, sequence=0, stamp_ns=0))
    left.send(encode(Task(2, "other"), session=SESSION + 1, sequence=1, stamp_ns=0))
    left.send(encode(Task(3, "mine"), session=SESSION, sequence=1, stamp_ns=0))

    with pytest.raises(MessageError, match="another session"):
        reader.receive_all()
    assert reader.wait(0)
    assert [envelope.message for envelope in reader.receive_all()] == [Task(1, "mine"), Task(3, "mine")]


@pytest.mark.parametrize("datagram", [b"x", b"HF", bytes(64)])
def test_a_malformed_datagram_raises(datagram: bytes):
    left, right = channel_pair()
    left.send(datagram)
    with pytest.raises(MessageError):
        Channel(right, SESSION).receive_all()


def test_a_sequence_that_goes_back_raises():
    left, right = channel_pair()
    for sequence in (5, 4):
        left.send(encode(Heartbeat(), session=SESSION, sequence=sequence, stamp_ns=0))
    reader = Channel(right, SESSION)
    with pytest.raises(MessageError, match="must rise"):
        reader.receive_all()
    assert reader.lost == 5


def test_wait_times_out_and_an_inherited_descriptor_works():
    left, right = channel_pair()
    reader = Channel.from_fd(right.detach(), SESSION)
    assert not reader.wait(0.0)
    Channel(left, SESSION).send(Heartbeat())
    assert reader.wait(1.0)
    assert reader.fileno() >= 0
    reader.close()
    reader.close()
    assert reader.fileno() == -1


def test_the_capacity_is_how_many_messages_wait_and_more_than_the_system_gives_unasked():
    kept = capacity(Heartbeat())
    sender, reader = make_pair()
    assert sum(sender.send(Heartbeat()) for _ in range(kept + 5)) == kept
    assert len(reader.receive_all()) == kept
    left, _right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    assert left.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < sender_buffer(sender)


def sender_buffer(channel: Channel) -> int:
    with socket.socket(fileno=os.dup(channel.fileno())) as copy:
        return copy.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
