"""What a person or the supervisor asks for: arm, stop, reset, quit. Pure."""

from __future__ import annotations

from ..messages import Phase
from . import chain
from .config import CoreConfig
from .deadlines import STOP_INPUT_NS
from .quick import replace
from .smoother import Motion
from .state import CoreState, Inbox, Note, StopRecord

_MOVING = (Phase.RETURN, Phase.RUN, Phase.STOPPING)


def take_requests(
    state: CoreState, config: CoreConfig, now_ns: int, inbox: Inbox, notes: list[Note]
) -> CoreState:
    """The state after the requests of one inbox; what they led to is appended to `notes`."""
    if inbox.reset and state.unacknowledged and not inbox.reset_line and not state.latched:
        # The supervisor knows of the reset now: its orders are meant for an arm that was reset.
        state = replace(state, unacknowledged=False)
    elif inbox.reset:
        was_latched = state.latched
        state = _reset(state, config, now_ns, notes)
        if was_latched and not state.latched:
            state = replace(state, unacknowledged=inbox.reset_line)
    if inbox.stop is not None and not state.latched:
        if state.phase in _MOVING:
            notes.append(Note("stopping", inbox.stop.text))
            record = StopRecord(inbox.stop.code, inbox.stop.text, now_ns, latched=False)
            state = replace(state, phase=Phase.STOPPING, stop=record, execution=None)
        else:
            notes.append(Note("holding", inbox.stop.text))
    if inbox.quit is not None:
        # "here" overrides "park"; nothing turns a stop into a move: neither a reset that came with it, nor an
        # end that was asked for before anybody knew of the reset.
        stays = inbox.reset or state.unacknowledged or "here" in (inbox.quit, state.quitting)
        wanted = "here" if stays else "park"
        state = replace(state, quitting=wanted, execution=None)
        parking = state.phase == Phase.RETURN and state.goal_event == "parked"
        if state.phase in (Phase.RUN, Phase.RETURN) and not (parking and wanted == "park"):
            state = replace(state, phase=Phase.STOPPING)
    if (
        inbox.arm is not None
        and not inbox.reset
        and state.quitting is None
        and state.phase in (Phase.HOLD, Phase.RUN)
    ):
        if state.unacknowledged:
            notes.append(Note("void", "an order to move from before the reset"))
            return state
        state = _arm(state, config, now_ns, inbox, notes)
    return state


def begin_return(state: CoreState, config: CoreConfig, pose: tuple[float, ...], event: str) -> CoreState:
    """Into RETURN, towards `pose` within the limits less their margin; `event` when the arm is there."""
    goal = tuple(
        max(low + margin, min(high - margin, value))
        for value, low, high, margin in zip(pose, config.low, config.high, config.margin, strict=True)
    )
    return replace(state, phase=Phase.RETURN, goal=goal, goal_event=event, at_goal_ns=0, settled_ns=0)


def _arm(state: CoreState, config: CoreConfig, now_ns: int, inbox: Inbox, notes: list[Note]) -> CoreState:
    arm = inbox.arm
    assert arm is not None
    state = replace(
        state,
        task_id=arm.task_id,
        chunk_age_limit_ns=arm.chunk_age_limit_ns,
        silence_limit_ns=arm.silence_limit_ns,
        policy_heard_ns=now_ns,
        execution=None,
        followed=False,
        starved=False,
        stop=None,
    )
    if arm.return_to_start:
        notes.append(Note("arming", "moving to the start pose"))
        return begin_return(state, config, config.start_pose, "at_start")
    if arm.follow:
        age, silence = arm.chunk_age_limit_ns / 1e6, arm.silence_limit_ns / 1e6
        text = f"task {arm.task_id}; chunks at most {age:.0f} ms old, silence at most {silence:.0f} ms"
        notes.append(Note("running", text))
        return replace(state, phase=Phase.RUN)
    return state


def _why_no_reset(state: CoreState, config: CoreConfig, now_ns: int) -> str | None:
    if state.phase == Phase.RELEASED:
        return "the stop released the motors; quit, and start again with --reset"
    if state.phase != Phase.STOPPED or state.joint is None:
        return "nothing is latched, or the arm is still moving"
    if state.silent:
        return (
            "the motors were silent and may have lost power, with it their goals and limits; quit, and start "
            "again with --reset"
        )
    if not state.stop_complete:
        return "the arm is still coming to rest; try again"
    age = now_ns - state.joint.stamp_ns
    if age > config.joint_state_max_age_ns:
        return f"the joint state is {age / 1e6:.0f} ms old"
    if state.stop_input_ns and now_ns - state.stop_input_ns < STOP_INPUT_NS:
        return "a stop input is pressed or cannot be read; release it first"
    health = chain.check_health(state.joint, config)
    return health.text if health is not None else None


def _reset(state: CoreState, config: CoreConfig, now_ns: int, notes: list[Note]) -> CoreState:
    """A person's acknowledgement. It never moves the arm: a joint that was pushed away from where it was
    commanded to be is commanded to where it is."""
    reason = _why_no_reset(state, config, now_ns)
    if reason is not None:
        notes.append(Note("reset", f"refused: {reason}"))
        return state
    assert state.motion is not None
    assert state.joint is not None
    notes.append(Note("reset", "the latched stop was reset; the arm holds"))
    held = tuple(
        p if abs(p - c) > lead else c
        for p, c, lead in zip(state.joint.position, state.motion.position, config.lead, strict=True)
    )
    none = (0,) * len(config.joint_names)
    return replace(
        state,
        phase=Phase.HOLD,
        motion=Motion.at_rest(held),
        stop=None,
        goal=None,
        eased=False,
        seen=frozenset(),
        slots=state.slots.restarted(),
        starvation=state.starvation.restarted(),
        overload_since_ns=none,
        overcurrent_since_ns=none,
        gripping_since_ns=none,
        stalled_since_ns=none,
        clamped=(),
        policy_heard_ns=now_ns,
    )
