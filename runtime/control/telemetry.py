"""Everything that control says: events, state, snapshots, histograms. Never blocks, never stops the loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from ...drivers.types import JointState
from ..budgets import Budgets
from ..channel import Channel, ChannelClosed
from ..messages import Chunk, Event, Message, Phase, Snapshot, State
from .clock import Wake
from .measure import Rates, Recorders
from .state import Condition, CoreState, Note

_SNAPSHOT_NS = 100_000_000
_HISTOGRAM_NS = 1_000_000_000
_REPEAT_NS = {
    "clamped": 200_000_000,
    "bus_error": 200_000_000,
    "starved": 200_000_000,
    "resumed": 200_000_000,
    "starving": 5_000_000_000,
    "over_budget": 5_000_000_000,
}
"""Events that come again and again: how far apart they are reported at least; counters count them all."""
_VARIANT = {"clamped": lambda text: text, "over_budget": lambda text: text.partition(":")[0]}
"""What tells two of them apart: joint and reason; the stage. Texts with numbers would never repeat."""


class Telemetry:
    """The loop's mouth. A lost peer is noticed by the inbox; here it only ends the talking."""

    def __init__(
        self, supervisor: Channel, policy: Channel, clock: Callable[[], int], budgets: Budgets | None = None
    ) -> None:
        self._supervisor = supervisor
        self._policy = policy
        self._clock = clock
        self.rates = Rates()
        self.stages = Recorders(budgets or Budgets())
        self.bus_errors = 0
        self.closed: set[str] = set()
        """Peers that have gone."""
        self.refused = ""
        """Why the core refused before torque, if it did."""
        self._frame_age_ns = 0
        self._reported_ns: dict[tuple[str, str], int] = {}
        self._next_snapshot_ns = 0
        self._next_histogram_ns = 0

    def report(self, note: Note) -> None:
        """An event for the supervisor."""
        now = self._clock()
        if note.code == "refused":
            self.refused = note.text
        if note.code == "reset" and not note.text.startswith("refused"):
            self.stages.restart_windows()
        repeat_ns = _REPEAT_NS.get(note.code)
        if repeat_ns is not None:
            key = (note.code, _VARIANT[note.code](note.text) if note.code in _VARIANT else "")
            if now - self._reported_ns.get(key, -repeat_ns) < repeat_ns:
                return
            self._reported_ns[key] = now
        self._send("supervisor", self._supervisor, Event(now, note.code, note.text, note.value))

    def chunk_used(self, chunk: Chunk, sent_ns: int, wake: Wake, now_ns: int) -> None:
        """The first setpoint of a chunk has been written."""
        total = now_ns - chunk.frame_arrival_ns
        waited = max(0, wake.wake_ns - sent_ns)
        self.stages.add("camera_to_wire", total)
        self.stages.add("camera_to_wire_own", total - chunk.session_run_ns - waited)
        self.stages.add("chunk_age", now_ns - chunk.observation_ns)
        self._frame_age_ns = chunk.inference_end_ns - chunk.observation_ns

    def armed(self, now_ns: int) -> None:
        """The time that arming took is no tick of the loop."""
        self.rates.restart(now_ns)
        self.stages.restart_windows()

    def tick_done(self, state: CoreState, measured: JointState | None, now_ns: int) -> list[Condition]:
        """State to the policy; at their times, snapshot and histograms to the supervisor. Returns the stages
        of an armed arm that are over their budget too often, once a second."""
        if _executes(state):
            self.stages.add("action_age", _age_ns(state, now_ns))
        if measured is not None:
            message = State(
                state.phase,
                state.task_id,
                *_execution(state),
                measured.stamp_ns,
                state.still_since_ns,
                measured.position,
                measured.velocity,
                state.motion.position if state.motion else measured.position,
            )
            self._send("policy", self._policy, message)
        if now_ns >= self._next_snapshot_ns:
            self._next_snapshot_ns = now_ns + _SNAPSHOT_NS
            self._snapshot(state, measured, now_ns)
        if now_ns < self._next_histogram_ns:
            return []
        self._next_histogram_ns = now_ns + _HISTOGRAM_NS
        histograms, overruns = self.stages.second()
        for histogram in histograms:
            self._send("supervisor", self._supervisor, histogram)
        return [Condition("over_budget", text) for text in overruns] if state.motion is not None else []

    def last_words(self, state: CoreState, measured: JointState | None) -> None:
        """The final counters and histograms."""
        self._snapshot(state, measured, self._clock())
        for recorder in self.stages.all.values():
            if recorder.count:
                self._send("supervisor", self._supervisor, recorder.message())

    def _send(self, name: str, channel: Channel, message: Message) -> None:
        if name not in self.closed:
            with contextlib.suppress(ChannelClosed):
                channel.send(message)

    def _snapshot(self, state: CoreState, measured: JointState | None, now_ns: int) -> None:
        counters, execution = state.counters, state.execution
        recently, recently_ns = state.starvation.in_window(now_ns)
        position = measured.position if measured else ()
        snapshot = Snapshot(
            phase=state.phase,
            task_id=state.task_id,
            chunk_id=execution.chunk_id if execution else 0,
            rate_now_hz=self.rates.now_hz,
            rate_average_hz=self.rates.average_hz,
            rate_worst_second_hz=self.rates.worst_hz,
            ticks=state.slots.total,
            missed_late=state.slots.late,
            missed_overrun=state.slots.overrun,
            starved=state.starvation.times,
            clamped=counters.clamped,
            rejected_chunks=counters.rejected_chunks,
            bus_errors=self.bus_errors,
            skipped_chunks=counters.superseded_chunks + counters.other_task_chunks,
            frame_age_ns=self._frame_age_ns,
            chunk_age_ns=_age_ns(state, now_ns) if _executes(state) else 0,
            joint_age_ns=now_ns - measured.stamp_ns if measured else 0,
            position=position,
            commanded=state.motion.position if state.motion and measured else position,
            worst_second_ns=self.rates.worst_second_ns,
            starved_ns=state.starvation.total_ns(now_ns),
            starved_recently=recently,
            starved_recently_ns=recently_ns,
        )
        self._send("supervisor", self._supervisor, snapshot)


def _executes(state: CoreState) -> bool:
    """Whether this tick follows a chunk: none is left where it has run out."""
    return state.phase == Phase.RUN and state.execution is not None and not state.starved


def _age_ns(state: CoreState, now_ns: int) -> int:
    assert state.execution is not None
    return now_ns - state.execution.observation_ns


def _execution(state: CoreState) -> tuple[int, int, int, int]:
    """Id, origin, end and first use of the newest chunk under execution; zeros for none."""
    execution = state.execution
    if execution is None:
        return 0, 0, 0, 0
    newest = execution.newest
    return newest.chunk_id, newest.origin_ns, newest.end_ns, execution.first_used_ns
