"""What to look at after a stop, by its code. The same words stand in docs/troubleshooting.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Advice:
    """What a person can check next for these conditions of the deadline table."""

    codes: tuple[str, ...]
    look_at: str


ADVICE: tuple[Advice, ...] = (
    Advice(
        ("camera_lost",), "the camera's cable and power, its network link, the server that sends its pictures"
    ),
    Advice(("frame_age",), "the camera's cable, link and exposure time; the server that sends its pictures"),
    Advice(
        ("frozen_camera",),
        "the camera and its server: a live sensor never repeats a picture exactly; restart them",
    ),
    Advice(
        ("black_camera",),
        "a cap on the lens, something before it, the light, the exposure: all parts of the picture look the "
        "same",
    ),
    Advice(
        ("joint_state_stale",),
        "motor power, the cables of the daisy chain, another program on the port, the adapter's latency "
        "timer (1 ms)",
    ),
    Advice(
        ("bus_lost", "bus_write_failed"),
        "the adapter's plug and the cable to the motors; another program on the port; `dmesg` says whether "
        "the port went away",
    ),
    Advice(
        ("chunk_stale", "policy_silent"),
        "the computer's load, `--threads`, the report's `session_run` p99.9",
    ),
    Advice(
        ("starved", "starving"),
        "the schedule printed at start: chunks end before the next one arrives; longer chunks, faster "
        "inference, or `--strategy sequential`",
    ),
    Advice(
        ("over_budget",),
        "the stage that is named: its budget in the robot file or bundle, the computer's load",
    ),
    Advice(("policy_lost",), "the policy process died: its log, and `dmesg` for memory that ran out"),
    Advice(("policy_error",), "the text says which; unknown words, or the backend failed"),
    Advice(
        ("non_finite",),
        "the policy produced NaN or infinity: precision, or an input that it was never trained on",
    ),
    Advice(
        ("chunk_bad",),
        "the text says what is wrong: shape or step, export the bundle again; stamps, the camera's clock",
    ),
    Advice(
        ("following_error", "stalled", "not_reached", "load", "current"),
        "what blocks the joint that is named; a weak supply; the gains",
    ),
    Advice(
        ("motor_fault", "temperature"),
        "the motor that is named: let it cool, free the joint, check the supply, then switch it off and on",
    ),
    Advice(("gripper_force",), "what the gripper holds; its `grip` and torque limit in the robot file"),
    Advice(
        ("chunk_far",),
        "the policy begins where the arm is not: another robot or calibration, other units or joint order, "
        "another start pose than in its training; `first_step` in the robot file",
    ),
    Advice(
        ("workspace", "self_collision", "table_collision", "tool_speed"),
        "where the policy was driving the arm; `body` and its clearances in the robot file",
    ),
    Advice(
        ("stop_input", "stop_input_lost"),
        "the stop button: who pressed it, its plug, its cable; then release it",
    ),
    Advice(("voltage",), "the motors' supply: its voltage under load, its cables and plugs"),
    Advice(("position_limit", "stopping_distance"), "the policy drives against a limit"),
    Advice(
        ("missed_in_a_row", "missed_fraction"),
        "control does not get its core: `--rt`, `--cpu`, other load; `vla-bench jitter` measures it",
    ),
    Advice(
        ("supervisor_lost", "supervisor_silent"),
        "vla-run itself was killed or suspended (Ctrl-Z suspends it); `dmesg` for memory that ran out",
    ),
    Advice(("requested",), "a person pressed the space bar, or vla-run asked for it; the text says which"),
    Advice(
        ("internal",),
        "an error of Holdfast itself: its traceback is in control's log; please report it with the recording",
    ),
    Advice(
        ("velocity_limit", "acceleration_limit", "jerk_limit", "no_trajectory", "gate_denied", "protocol"),
        "must not happen, whatever a policy does: an error of Holdfast; please report it, with the recording",
    ),
)

CONTROL_DIED = (
    "look at the arm first; then control's log, where it printed anything, `dmesg` for memory that ran out, "
    "whoever may have killed it"
)
"""Where control ended without a stop."""


def look_at(code: str) -> str:
    """What to check after a stop with this code; empty for a code without advice."""
    return next((row.look_at for row in ADVICE if code in row.codes), "")
