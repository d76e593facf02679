"""After a stop the arm moves again only upon a reset that was accepted and then an order to move: the real
sequence and the real core, joined as supervisor and control join them, under any order of commands."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.runtime.commands import COMMANDS
from holdfast.runtime.control.inbox import Requests
from holdfast.runtime.control.state import Condition, Inbox
from holdfast.runtime.messages import Event, Message, Phase, Reset, Snapshot
from holdfast.runtime.schedulability import Timing
from holdfast.runtime.sequence import Sequence
from holdfast.runtime.stages import Action, Plan, Send, Stage

from .control.world import Bench, chunk

MS = 1_000_000
ORDERS = ("next", "quit")
"""What may move an arm that has been reset: into the task, or to its park pose."""


class Whole:
    """All but the processes. Messages take a tick; the policy is ready `cameras` ticks after a reset."""

    def __init__(self, cameras: int) -> None:
        self.bench = Bench()
        timing = Timing(steps=8, dt_s=0.05, control_period_s=0.01, frame_age_limit_s=0.3)
        plan = Plan(("touch", "pick"), None, 0.0, "wait", "newest", timing)
        self.sequence = Sequence(plan, self.bench.now_ns)
        self.over = False
        self.orders: set[str] = set()
        """Asked for since the last accepted reset."""
        self.still: tuple[float, ...] | None = None
        """Where the arm stands, and has to stay."""
        self.was_reset = False
        self._to_control: list[Message] = []
        self._conditions: list[Condition] = []
        self._reset_line = False
        self._cameras = cameras
        self._ready_in = 0
        self._chunks = 0
        self._hear("control", "connected")
        self._snapshot()
        self._hear("policy", "ready", "{}", 20.0)

    def ask(self, name: str) -> None:
        outcome = self.sequence.ask(name, self.bench.now_ns, "a test")
        if not outcome.refusal:
            self.orders.add(name)
        self._do(outcome.actions)

    def fault(self) -> None:
        self._conditions.append(Condition("load", "elbow"))

    def press_reset(self) -> None:
        """The line that control reads itself."""
        self._reset_line = True

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            if self.over:
                return
            self._tick()

    def _tick(self) -> None:
        requests = Requests(conditions=self._conditions)
        requests.take([SimpleNamespace(message=message) for message in self._to_control])  # type: ignore[misc]
        self._to_control, self._conditions = [], []
        inbox = Inbox(
            chunk=self._next_chunk(),
            arm=requests.arm,
            stop=requests.stop,
            reset=requests.reset or self._reset_line,
            reset_line=self._reset_line and not requests.reset,
            quit=requests.quit,
            conditions=tuple(requests.conditions),
        )
        self._reset_line = False
        known = len(self.bench.notes)
        output = self.bench.tick(inbox)
        for note in self.bench.notes[known:]:
            self._judge(note.code, note.text)
            self._hear("control", note.code, note.text, note.value)
        if self.still is not None and output.setpoint is not None:
            assert output.setpoint == self.still, f"moved without an order; orders: {self.orders}"
        self.over = output.finish is not None
        self._policy()
        self._snapshot()
        self._do(self.sequence.on_time(self.bench.now_ns))

    def _judge(self, code: str, text: str) -> None:
        if code == "stop":
            self.still = None
        elif code == "stopped":
            self.still = self.bench.setpoints[-1]
            self.orders.clear()
            self.was_reset = False
        elif code == "reset" and not text.startswith("refused"):
            self.orders.clear()
            self.was_reset = True
        elif code in ("arming", "parking", "running"):
            if self.still is not None:
                assert self.was_reset, f"{code} although it is latched"
                assert self.orders & set(ORDERS), f"{code} without an order since the reset"
            self.still = None

    def _next_chunk(self) -> Any:
        state = self.bench.state
        self._chunks += 1
        if state.phase != Phase.RUN or state.motion is None or self._chunks % 5:
            return None
        begin = state.motion.position
        rows = [(begin[0] + 0.02 * k, begin[1], begin[2]) for k in range(8)]
        task = state.task_id
        return chunk(rows, chunk_id=self._chunks, observation_ns=self.bench.now_ns - 20 * MS, task_id=task)

    def _policy(self) -> None:
        if self._ready_in:
            self._ready_in -= 1
            if not self._ready_in:
                self._hear("policy", "ready", "reset: the cameras deliver")

    def _hear(self, child: Any, code: str, text: str = "", value: float = 0.0) -> None:
        now_ns = self.bench.now_ns
        self._do(self.sequence.on_event(child, Event(now_ns, code, text, value), now_ns))

    def _snapshot(self) -> None:
        phase = self.bench.state.phase
        seen = Snapshot(phase, 0, 0, 100.0, 100.0, 100.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        self._do(self.sequence.on_snapshot(seen, self.bench.now_ns))

    def _do(self, actions: Any) -> None:
        for action in actions:
            self._carry_out(action)

    def _carry_out(self, action: Action) -> None:
        if isinstance(action, Send) and action.child == "control":
            self._to_control.append(action.message)
        elif isinstance(action, Send) and isinstance(action.message, Reset):
            self._ready_in = self._cameras


def test_reset_and_next_move_the_arm_again():
    """So that the property below is no empty one."""
    whole = Whole(cameras=3)
    whole.run(300)
    assert whole.sequence.stage == Stage.RUNNING
    whole.fault()
    whole.run(100)
    assert whole.still is not None
    whole.ask("next")
    whole.run(20)
    assert whole.sequence.stage == Stage.STOPPED
    whole.press_reset()
    whole.run(20)
    assert whole.sequence.stage == Stage.HELD, "a reset line counts as the key"
    assert whole.sequence.policy_ready, "the cameras are opened anew after it, too"
    assert whole.still is not None
    whole.ask("next")
    whole.run(300)
    assert whole.sequence.stage == Stage.RUNNING
    assert whole.still is None


STEPS = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from(sorted(set(COMMANDS) - {"quit"})), st.sampled_from(("fault", "line", "quit"))
        ),
        st.sampled_from((0, 1, 2, 5, 30, 120)),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=150)
@given(begin=st.integers(0, 250), cameras=st.sampled_from((1, 4, 40)), steps=STEPS)
def test_no_order_of_commands_moves_a_latched_arm(begin: int, cameras: int, steps: list[tuple[str, int]]):
    whole = Whole(cameras)
    whole.run(begin)
    for name, ticks in [("fault", 60), *steps]:
        if name == "fault":
            whole.fault()
        elif name == "line":
            whole.press_reset()
        else:
            whole.ask(name)
        whole.run(ticks)
