"""What control makes of the chunks: which one is under way, how late they come, what is left of it. Pure."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..messages import Chunk, Phase, State

KEPT = 8
"""Chunks and latencies remembered."""
LOST_NS = 200_000_000
"""A chunk that control does not execute that long after it was sent will not be executed any more."""


@dataclass(frozen=True, slots=True)
class Guidance:
    """What a policy needs to continue the chunk under way instead of contradicting it (real-time chunking,
    arXiv 2506.07339): the first `delay` actions will have been carried out before the new chunk arrives."""

    delay: int
    """In steps of the chunk: the largest latency measured of late, rounded up."""
    prefix: NDArray[np.float64]
    """[k, joints]: the actions of the chunk under way from the observation's time on, one step apart,
    absolute, in robot units; k is 0 where nothing is under way."""


class ExecutionView:
    """The policy process's picture of control, from the `State` messages."""

    def __init__(self) -> None:
        self._sent: deque[tuple[Chunk, int]] = deque(maxlen=KEPT)
        self._latencies: deque[int] = deque(maxlen=KEPT)
        self._state: State | None = None
        self._state_ns = 0
        self._task_id = 0

    def begin(self, task_id: int) -> None:
        """A task begins: what was sent for another one does not count."""
        self._task_id = task_id
        self._sent.clear()

    def sent(self, chunk: Chunk, now_ns: int) -> None:
        """A chunk is on its way to control."""
        self._sent.append((chunk, now_ns))

    def add(self, state: State, stamp_ns: int) -> None:
        """A message of control, and when it was sent."""
        before = self._state
        self._state, self._state_ns = state, stamp_ns
        if before is not None and before.chunk_id == state.chunk_id:
            return
        chunk = self._find(state.chunk_id)
        if chunk is not None:
            self._latencies.append(state.first_used_ns - chunk.observation_ns)

    @property
    def latency_ns(self) -> int:
        """The largest of the last measured times from an observation to its first use; 0 before any."""
        return max(self._latencies, default=0)

    def carried_out(self, observation_ns: int) -> bool:
        """Whether an observation shows what became of everything sent so far: the last chunk has ended and
        the arm was commanded still when the picture was taken. For policies that run sequentially."""
        state = self._state
        if state is None or state.phase != Phase.RUN or state.task_id != self._task_id:
            return False
        if not 0 < state.still_since_ns <= observation_ns:
            return False
        if not self._sent:
            return True
        chunk, sent_ns = self._sent[-1]
        if state.chunk_id != chunk.chunk_id:
            return self._state_ns - sent_ns > LOST_NS
        return observation_ns > state.end_ns

    def guidance(self, observation_ns: int, dt_ns: int) -> Guidance:
        """For a chunk that will rest on this observation. A chunk that was just sent counts as under way,
        although control has not had a tick to say so."""
        latency_ns = self.latency_ns
        if not latency_ns and self._sent:
            # Control has not yet used any: so long the last one has taken at least.
            latency_ns = self._sent[-1][1] - self._sent[-1][0].observation_ns
        delay = math.ceil(latency_ns / dt_ns)
        found = self._under_way()
        if found is None:
            return Guidance(delay, np.empty((0, 0)))
        chunk, origin_ns = found
        actions = np.asarray(chunk.actions)
        left = (origin_ns + (len(actions) - 1) * chunk.dt_ns - observation_ns) // dt_ns + 1
        if left <= 0:
            return Guidance(delay, np.empty((0, 0)))
        at = (observation_ns + dt_ns * np.arange(left) - origin_ns) / chunk.dt_ns
        steps = np.arange(len(actions))
        return Guidance(delay, np.column_stack([np.interp(at, steps, joint) for joint in actions.T]))

    def _under_way(self) -> tuple[Chunk, int] | None:
        """The newest chunk that control executes, or is about to, with the time of its action 0."""
        if not self._sent:
            return None
        state, (chunk, sent_ns) = self._state, self._sent[-1]
        if state is not None and state.chunk_id == chunk.chunk_id:
            return chunk, state.origin_ns
        if state is None or self._state_ns - sent_ns <= LOST_NS:
            # As control will put it on the time axis: for an arm that stands it begins when it comes.
            still = state is not None and 0 < state.still_since_ns <= chunk.observation_ns
            return chunk, sent_ns if still else chunk.observation_ns
        older = self._find(state.chunk_id)
        return None if older is None else (older, state.origin_ns)

    def _find(self, chunk_id: int) -> Chunk | None:
        return next((chunk for chunk, _ in self._sent if chunk.chunk_id == chunk_id), None)
