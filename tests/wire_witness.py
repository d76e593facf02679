"""An independent reading of what was commanded on the motor bus.

It shares no code with the driver, the gate or the simulator: frames are parsed here from the recorded bytes,
and limits are computed here from the robot file and the calibration.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import yaml

from .house import ROOT

GOAL, TORQUE = 42, 40
WRITE, SYNC_WRITE = 0x03, 0x83
TICKS_PER_RAD = 4096 / (2 * math.pi)


@dataclass(frozen=True, slots=True)
class Command:
    """One register value that the host sent to one motor."""

    stamp_ns: int
    motor_id: int
    register: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a motor may be told: goal ticks, and ticks from one goal to the next in one period."""

    low: float
    high: float
    step: float


def commands(host_bytes: list[tuple[int, bytes]]) -> list[Command]:
    """All writes in the bytes (stamp, piece) of the host; frames may be cut anywhere."""
    found: list[Command] = []
    data = b""
    for stamp_ns, piece in host_bytes:
        data += piece
        while (start := data.find(b"\xff\xff")) >= 0 and len(data) >= start + 6:
            length = data[start + 3]
            frame = data[start : start + 4 + length]
            if len(frame) < 4 + length:
                break
            assert (sum(frame[2:]) & 0xFF) == 0xFF, (
                f"a frame with a wrong checksum left the host: {frame.hex()}"
            )
            found += _writes(stamp_ns, frame)
            data = data[start + 4 + length :]
    return found


def _writes(stamp_ns: int, frame: bytes) -> list[Command]:
    motor_id, instruction, parameters = frame[2], frame[4], frame[5:-1]
    if instruction == WRITE:
        return [Command(stamp_ns, motor_id, parameters[0], parameters[1:])]
    if instruction == SYNC_WRITE:
        register, size = parameters[0], parameters[1]
        rows = [parameters[i : i + 1 + size] for i in range(2, len(parameters), 1 + size)]
        return [Command(stamp_ns, row[0], register, row[1:]) for row in rows]
    return []


def bounds(robot_name: str, period_s: float = 0.01) -> dict[int, Bounds]:
    """By motor id, from the files alone. A tick of tolerance for rounding."""
    folder = ROOT / "drivers" / "robots"
    robot = yaml.safe_load((folder / f"{robot_name}.yaml").read_text())
    calibration = json.loads((folder / "calibrations" / f"{robot_name}.json").read_text())
    limits = {}
    for joint in robot["joints"]:
        row = calibration[joint["name"]]
        low, high = joint["limits"]["position"]
        if joint.get("gripper"):
            zero, scale = row["range_min"], (row["range_max"] - row["range_min"]) / 100
        else:
            zero, scale = (row["range_min"] + row["range_max"]) / 2, TICKS_PER_RAD
        step = joint["limits"]["velocity"] * period_s * scale
        limits[row["id"]] = Bounds(zero + low * scale - 1, zero + high * scale + 1, step + 1.5)
    return limits


def check_goals(written: list[Command], limits: dict[int, Bounds]) -> int:
    """Asserts that no goal left its bounds nor jumped; returns how many goals were seen."""
    last: dict[int, int] = {}
    count = 0
    for command in written:
        if command.register == TORQUE:
            assert set(command.value) <= {0, 1}, f"torque register := {command.value.hex()}"
            last.pop(command.motor_id, None)
        if command.register != GOAL:
            continue
        goal = int.from_bytes(command.value[:2], "little")
        limit = limits[command.motor_id]
        assert limit.low <= goal <= limit.high, f"{command}: goal {goal} is outside {limit}"
        before = last.get(command.motor_id, goal)
        assert abs(goal - before) <= limit.step, f"{command}: from {before} to {goal} in one write, {limit}"
        last[command.motor_id] = goal
        count += 1
    return count


def host_bytes(path: Path) -> list[tuple[int, bytes]]:
    """What the host sent, from a wire log (its form: docs/simulator.md)."""
    data = path.read_bytes()
    assert data[:8] == b"HFWIRE1\n"
    pieces, at = [], 8
    while at + 12 <= len(data):
        stamp_ns = int.from_bytes(data[at : at + 8], "little")
        length = int.from_bytes(data[at + 10 : at + 12], "little")
        if data[at + 8] == 0:
            pieces.append((stamp_ns, data[at + 12 : at + 12 + length]))
        at += 12 + length
    return pieces
