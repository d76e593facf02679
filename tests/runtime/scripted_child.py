"""A child of the supervisor that only speaks the messages: the arm and the model are left out.

Run as a program with the options of the real processes, after the name of the role.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from holdfast.runtime.channel import Channel, ChannelClosed
from holdfast.runtime.histogram import Recorder
from holdfast.runtime.messages import Arm, Event, Heartbeat, Message, Phase, Quit, Reset, Snapshot, Stop


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("control", "policy"))
    parser.add_argument("--supervisor-fd", type=int, required=True)
    parser.add_argument("--policy-fd", type=int)
    parser.add_argument("--control-fd", type=int)
    args = parser.parse_args()
    settings = json.loads(sys.stdin.read())
    channel = Channel.from_fd(args.supervisor_fd, settings["session"])
    if settings.get("die"):
        print("something terrible happened")
        return int(settings["die"])
    if settings.get("refuse"):
        say(channel, "refused", settings["refuse"])
        return 3
    time.sleep(settings.get("late_s", 0))
    say(channel, "connected" if args.role == "control" else "ready", "{}")
    try:
        return serve(channel, args.role, settings)
    except ChannelClosed:
        return 0


def serve(channel: Channel, role: str, settings: dict[str, Any]) -> int:
    recorder = Recorder("tick")
    beat_ns, gap_ns = time.monotonic_ns(), 0
    while True:
        channel.wait(0.05)
        channel.send(
            Snapshot(Phase.HOLD, 1, 0, 100.0, 99.5, 97.0, 10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, (0.1,), (0.1,))
        )
        recorder.add(1_000_000)
        for envelope in channel.receive_all():
            if isinstance(envelope.message, Heartbeat):
                now_ns = time.monotonic_ns()
                gap_ns, beat_ns = max(gap_ns, now_ns - beat_ns), now_ns
            if isinstance(envelope.message, Quit):
                channel.send(Event(time.monotonic_ns(), "heartbeat_gap", "", gap_ns / 1e9))
                channel.send(recorder.message())
                say(channel, "released", "torque is off")
                return 0
            if isinstance(envelope.message, Reset) and settings.get("reset"):
                # What it says instead of agreeing; "-": nothing.
                code, _, text = settings["reset"].partition("|")
                if code != "-":
                    say(channel, code, text)
            elif isinstance(envelope.message, Reset):
                say(channel, "reset" if role == "control" else "ready", "the latched stop was reset")
            else:
                answer(channel, envelope.message)


def answer(channel: Channel, message: Message) -> None:
    if isinstance(message, Arm) and message.return_to_start:
        say(channel, "arming", "moving to the start pose")
    if isinstance(message, Arm):
        say(channel, "running" if message.follow else "at_start", f"task {message.task_id}")
    elif isinstance(message, Stop):
        say(channel, "stop" if message.latched else "holding", message.reason)


def say(channel: Channel, code: str, text: str) -> None:
    channel.send(Event(time.monotonic_ns(), code, text))


if __name__ == "__main__":
    sys.exit(main())
