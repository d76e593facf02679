"""The classes of faults: what is broken, what must come of it, and by when. Data; nothing is measured here.

This table was written and committed before the first measurement of the campaign, and the bounds (`bounds`)
are computed from the shipped configuration alone. Where a row had to be corrected later, its history says
why: a bound is never loosened because a measurement missed it.

Outcomes:

- *stop*: a protective stop for one of the reasons; commanded motion has come to rest by the bound plus the
  stopping time; the stop stays latched and the arm holds, torque on, until it is reset; the reset moves
  nothing.
- *park*: a controlled stop, the park pose, torque off, the exit code.
- *coast*: control itself is gone and these motors have no watchdog. Goals end by the bound; the arm goes on
  to the last goal, at most `lead` away, and holds there; the supervisor says so (exit code).
- *contained*: not a fault that anybody could know from inside (the values are wrong but possible). The arm
  stays inside its limits of position and velocity whatever it is asked; if it stops, then for one of the
  reasons.
- *ride_through*: no stop, and the arm is still in motion afterwards.

Whatever the outcome: no goal ever lies outside the limits or further from the last than the velocity allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["stop", "park", "coast", "contained", "ride_through"]
Torque = Literal["held", "off", "others_held", "any"]
Room = Literal["process", "policy output", "camera", "motor bus", "computer", "person"]


@dataclass(frozen=True, slots=True)
class Injection:
    """One way of `inject.WAYS` with its arguments. Several of a class: one is drawn for each trial."""

    way: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def _how(way: str, **arguments: Any) -> tuple[Injection, ...]:
    return (Injection(way, arguments),)


@dataclass(frozen=True, slots=True)
class FaultClass:
    """A row of the table."""

    name: str
    room: Room
    what: str
    how: tuple[Injection, ...]
    outcome: Outcome
    bound: str
    """A key of `bounds.BOUNDS`: by when the fault must have been noticed."""
    reasons: tuple[str, ...] = ()
    """Reason codes of the stop that are right."""
    restart: bool = False
    """Whether the run must be started anew after it."""
    torque: Torque = "held"
    """What the motors must do from the fault to the end; `off`: in the end. `others_held`: all but the one
    that the fault itself makes limp, whose register stays on; `any`: the fault itself decides."""
    lies: bool = False
    """The motor of the fault says that it is where it is not: easing after a stop goes by what it says."""
    exit_codes: tuple[int, ...] = ()
    """Of vla-run, where the fault ends it."""
    goals: str = "last goal"
    """coast: by when control must have sent its last goal (a key of `bounds.BOUNDS`)."""
    then: Injection | None = None
    """What is done once the run has ridden through the fault for `last_s`; the stop is for this."""
    then_at: str = ""
    """An event of the run that `then` waits for instead, and at random up to `last_s` more."""
    system: str = "usual"
    """How the run is started: a key of `rig.VARIANTS`."""
    last_s: float = 1.0
    """How long the fault lasts where nothing ends it."""


_BODY = ("self_collision", "table_collision", "workspace", "tool_speed")
"""Where wrong but possible values may lead."""
_PRESSED = ("stalled", "load", "current", "motor_fault", "following_error")
"""What an arm reports that presses on something."""

PROCESSES = (
    FaultClass(
        "policy_killed", "process", "SIGKILL of the policy process, as the OOM killer does it",
        _how("kill", role="policy"), "stop", "policy silence", ("policy_lost",), restart=True,
    ),
    FaultClass(
        "policy_stopped", "process", "SIGSTOP of the policy process",
        _how("freeze", role="policy"), "stop", "policy silence", ("policy_silent",),
    ),
    FaultClass(
        "policy_livelock", "process", "the policy process computes for ever and nothing comes of it",
        _how("spin", role="policy", seconds=1.3), "stop", "policy silence", ("policy_silent",),
    ),
    FaultClass(
        "policy_memory", "process", "the policy process gets no more memory: every allocation fails",
        _how("memory", role="policy", spare=1 << 20), "stop", "frame age",
        ("policy_lost", "policy_silent", "policy_error", "camera_lost", "frame_age"), restart=True,
    ),
    FaultClass(
        "control_killed", "process", "SIGKILL of the control process",
        _how("kill", role="control"), "coast", "control death", restart=True, exit_codes=(5,),
    ),
    FaultClass(
        "control_stopped", "process", "SIGSTOP of the control process",
        _how("freeze", role="control"), "coast", "control silence", restart=True, exit_codes=(5,),
    ),
    FaultClass(
        "control_livelock", "process", "the control process computes for ever and nothing comes of it",
        _how("spin", role="control", seconds=20.0), "coast", "control silence", restart=True, exit_codes=(5,),
    ),
    FaultClass(
        "control_memory", "process", "the control process gets no more memory: it stops the arm, or is gone",
        _how("memory", role="control", spare=1 << 20), "coast", "control silence", ("internal",),
        restart=True, exit_codes=(4, 5), goals="next tick",
    ),
    FaultClass(
        "supervisor_killed", "process", "SIGKILL of vla-run itself",
        _how("kill", role="run"), "stop", "supervisor silence", ("supervisor_lost", "policy_lost"),
        restart=True,
    ),
    FaultClass(
        "supervisor_stopped", "process", "SIGSTOP of vla-run itself",
        _how("freeze", role="run"), "stop", "supervisor silence", ("supervisor_silent",), restart=True,
    ),
    FaultClass(
        "supervisor_livelock", "process", "vla-run itself computes for ever and nothing comes of it",
        _how("spin", role="run", seconds=6.0), "stop", "supervisor silence", ("supervisor_silent",),
        restart=True,
    ),
    FaultClass(
        "supervisor_memory", "process", "vla-run itself gets no more memory: every allocation fails",
        _how("memory", role="run", spare=1 << 20), "stop", "supervisor silence",
        ("supervisor_lost", "supervisor_silent", "policy_lost", "requested"), restart=True,
    ),
)  # fmt: skip

CHUNKS = (
    FaultClass(
        "chunk_nan", "policy output", "one value of a chunk is NaN",
        _how("chunks", how="nan"), "stop", "next tick", ("chunk_bad",),
    ),
    FaultClass(
        "chunk_infinite", "policy output", "one value of a chunk is infinite",
        _how("chunks", how="infinite"), "stop", "next tick", ("chunk_bad",),
    ),
    FaultClass(
        "chunk_wrong_shape", "policy output", "a step or a joint too many or too few, or no step at all",
        _how("chunks", how="wrong_shape"), "stop", "next tick", ("chunk_bad",),
    ),
    FaultClass(
        "chunk_wrong_units", "policy output", "all values 57.3 times too large: degrees for radians",
        _how("chunks", how="wrong_units"), "contained", "none", (*_BODY, *_PRESSED),
    ),
    FaultClass(
        "chunk_sign_flip", "policy output", "all values with the other sign",
        _how("chunks", how="sign_flip"), "contained", "none", (*_BODY, *_PRESSED),
    ),
    FaultClass(
        "chunk_replayed", "policy output", "the chunk of before again, or the same message twice",
        (Injection("chunks", {"how": "replayed_chunk"}), Injection("chunks", {"how": "replayed_message"})),
        "stop", "next tick", ("chunk_bad", "protocol"),
    ),
    FaultClass(
        "chunk_stale_stamp", "policy output", "the stamps say that the observation is 3 s old",
        _how("chunks", how="stale_stamp"), "stop", "next tick", ("chunk_stale", "chunk_bad"),
    ),
    FaultClass(
        "chunk_future_stamp", "policy output", "the stamps lie 0.5 s in the future",
        _how("chunks", how="future_stamp"), "stop", "next tick", ("chunk_bad",),
    ),
)  # fmt: skip

CAMERAS = (
    FaultClass(
        "camera_frozen", "camera", "the same picture with the same stamp again and again",
        _how("truth", kind="camera_repeat"), "stop", "frame age",
        ("frame_age", "frozen_camera"),
    ),
    FaultClass(
        "camera_frozen_restamped", "camera", "the same picture again and again, with new stamps",
        _how("truth", kind="camera_freeze"), "stop", "frozen", ("frozen_camera",),
    ),
    FaultClass(
        "camera_black", "camera", "black pictures, with new stamps",
        _how("truth", kind="camera_black"), "stop", "frozen", ("black_camera", "frozen_camera"),
    ),
    FaultClass(
        "camera_stalled", "camera", "no more pictures; the connection stays",
        _how("truth", kind="camera_drop"), "stop", "frame age", ("frame_age",),
    ),
    FaultClass(
        "camera_unplugged", "camera", "the connection is cut, a new one is refused",
        _how("truth", kind="camera_unplug"), "stop", "frame age", ("camera_lost", "frame_age"),
    ),
)  # fmt: skip

_EVERY = 3
"""Of the motors' answers, every third is damaged: a bad cable."""

BUS = (
    FaultClass(
        "bus_dropped_bytes", "motor bus", "every third answer lacks a byte",
        _how("truth", kind="drop_byte", every=_EVERY), "ride_through", "none",
    ),
    FaultClass(
        "bus_garbled", "motor bus", "every third answer has a flipped bit",
        _how("truth", kind="corrupt", every=_EVERY), "ride_through", "none",
    ),
    FaultClass(
        "bus_late", "motor bus", "three answers come 50 ms late, and what follows queues behind them",
        _how("truth", kind="late", ms=50, count=3), "ride_through", "none",
    ),
    FaultClass(
        "bus_duplicated", "motor bus", "every third answer comes twice",
        _how("truth", kind="duplicate", every=_EVERY), "ride_through", "none",
    ),
    FaultClass(
        "bus_wrong_id", "motor bus", "every third answer bears another motor's id",
        _how("truth", kind="wrong_id", every=_EVERY), "ride_through", "none",
    ),
    FaultClass(
        "bus_bad_for_good", "motor bus", "all answers are short, garbled, late or of another id",
        (
            Injection("truth", {"kind": "drop_byte", "every": 1}),
            Injection("truth", {"kind": "corrupt", "every": 1}),
            Injection("truth", {"kind": "late", "ms": 50, "count": 1_000_000}),
            Injection("truth", {"kind": "wrong_id", "every": 1}),
        ),
        "stop", "joint state", ("joint_state_stale",), restart=True,
    ),
    FaultClass(
        "bus_unplugged", "motor bus", "the serial port vanishes",
        _how("truth", kind="unplug"), "stop", "next read",
        ("bus_lost", "bus_write_failed", "joint_state_stale"), restart=True, system="serial",
    ),
    FaultClass(
        "motor_silent", "motor bus", "one motor neither hears nor answers",
        _how("motor", kind="servo_silent"), "stop", "joint state", ("joint_state_stale",), restart=True,
    ),
    FaultClass(
        "motor_power_lost", "motor bus", "all motors lose their power: silent and limp",
        _how("truth", kind="power_loss"), "stop", "joint state", ("joint_state_stale",),
        restart=True, torque="any",
    ),
    FaultClass(
        "motor_stuck_encoder", "motor bus", "one motor reports the same position for ever; its own loop "
        "still sees",
        _how("motor", kind="stuck_encoder", arm_only=True), "contained", "none", (*_PRESSED, *_BODY),
        lies=True, last_s=1.5,
    ),
    FaultClass(
        "motor_overload", "motor bus", "one motor reports overload and lets go",
        _how("motor", kind="overload"), "stop", "next read", ("motor_fault",), restart=True,
        torque="others_held",
    ),
    FaultClass(
        "motor_temperature", "motor bus", "one motor is too hot: it says so, or its register does",
        (
            Injection("motor", {"kind": "error_bits", "bits": 4}),
            Injection("motor", {"kind": "temperature", "celsius": 68}),
        ),
        "stop", "next read", ("motor_fault", "temperature"),
    ),
    FaultClass(
        "motor_voltage_sag", "motor bus", "one motor's supply falls to 4.2 V, or it says that it is too low",
        (
            Injection("motor", {"kind": "voltage", "volts": 4.2}),
            Injection("motor", {"kind": "error_bits", "bits": 1}),
        ),
        "stop", "next read", ("motor_fault", "voltage"),
    ),
)  # fmt: skip

COMPUTER = (
    FaultClass(
        "cpu_hog", "computer", "two programs that compute on control's core for 1 s, at normal priority",
        _how("hog", programs=2), "ride_through", "none",
    ),
    FaultClass(
        "memory_pressure", "computer", "a program takes 512 MB on control's core again and again for 1 s",
        _how("swallow", megabytes=512), "ride_through", "none",
    ),
    FaultClass(
        "disk_full", "computer", "no byte can be written to state folder, recordings and events; then a "
        "person stops the arm",
        _how("fill_disk"), "stop", "person", ("requested",), restart=True, system="small disk",
        then=Injection("ask", {"command": "stop"}),
    ),
    FaultClass(
        "clock_step", "computer", "the wall clock jumps by a day or an hour, forwards or back (libfaketime)",
        (
            Injection("step_clock", {"seconds": 86_400}),
            Injection("step_clock", {"seconds": -86_400}),
            Injection("step_clock", {"seconds": 3_600}),
            Injection("step_clock", {"seconds": -3_600}),
        ),
        "ride_through", "none", restart=True, system="fake clock", last_s=2.2,
    ),
)  # fmt: skip

PERSONS = (
    FaultClass(
        "sigint", "person", "SIGINT to vla-run", _how("signal", name="SIGINT"),
        "park", "person", restart=True, torque="off", exit_codes=(130,),
    ),
    FaultClass(
        "sigterm", "person", "SIGTERM to vla-run", _how("signal", name="SIGTERM"),
        "park", "person", restart=True, torque="off", exit_codes=(143,),
    ),
    FaultClass(
        "sighup", "person", "SIGHUP to vla-run", _how("signal", name="SIGHUP"),
        "park", "person", restart=True, torque="off", exit_codes=(129,),
    ),
    FaultClass(
        "terminal_closed", "person", "the window in which vla-run runs is closed", _how("hang_up"),
        "park", "person", restart=True, torque="off", exit_codes=(129,),
    ),
    FaultClass(
        "stop_input_pressed", "person", "the stop input is pressed",
        _how("press"), "stop", "next tick", ("stop_input",),
    ),
    FaultClass(
        "stop_input_unplugged", "person", "the stop input vanishes",
        _how("unplug_input"), "stop", "next tick", ("stop_input_lost",),
    ),
    FaultClass(
        "stop_key", "person", "a person presses the space bar",
        _how("key", keys=" "), "stop", "person", ("requested",),
    ),
)  # fmt: skip

PARKING = (
    FaultClass(
        "park_motor_silent", "motor bus", "SIGTERM; while the arm parks, one motor neither hears nor answers",
        _how("signal", name="SIGTERM"), "stop", "joint state", ("joint_state_stale",),
        restart=True, exit_codes=(4,), then=Injection("motor", {"kind": "servo_silent"}), then_at="parking",
        last_s=0.05,
    ),
    FaultClass(
        "park_stop_input", "person", "SIGTERM; while the arm parks, the stop input is pressed",
        _how("signal", name="SIGTERM"), "stop", "next tick", ("stop_input",),
        restart=True, exit_codes=(4,), then=Injection("press"), then_at="parking", last_s=0.1,
    ),
)  # fmt: skip

CLASSES: tuple[FaultClass, ...] = (*PROCESSES, *CHUNKS, *CAMERAS, *BUS, *COMPUTER, *PERSONS, *PARKING)
BY_NAME: dict[str, FaultClass] = {row.name: row for row in CLASSES}

NIGHTLY = {False: 300, True: 60}
"""Trials of a class at nightly size, by whether it needs a restart."""
