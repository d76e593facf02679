"""The policy process in stepped time: back-to-back inference on the newest frame, of a given duration.

Of the policy's network only what it computes is taken; when its chunk arrives follows from the delay alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..drivers.simulated.world import World
from ..export.training.demonstrations import Sensor
from ..runtime.control.state import CoreState
from ..runtime.messages import Chunk, StampSource
from .policies import Policy

FRAME_HZ = 30
TASK_ID = 1
Check = Literal["none", "blank", "stale", "other_name"]
"""Ways to take information away: a grey picture, the episode's first picture for ever, or an instruction that
names another cube (success then still means the cube of the episode)."""
Schedule = Literal["back_to_back", "sequential", "from_arrival"]
"""`back_to_back`: the next observation is the newest frame as soon as a chunk has arrived. `sequential`: it
is taken once that chunk has been carried out and the arm is commanded still. `from_arrival`: back to back,
but every chunk claims that its observation is from the moment of its arrival, so its first action is
commanded then: what a loop does that does not know its own latency."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What the camera and the joints showed at one time."""

    stamp_ns: int
    snapshot: NDArray[np.float64]
    position: tuple[float, ...]


class SteppedPolicy:
    """Call `poll` once per tick of control. A chunk arrives its delay after the stamp of its frame."""

    def __init__(
        self,
        policy: Policy,
        sensor: Sensor,
        text: str,
        check: Check,
        delay_ms: tuple[int, int],
        rng: np.random.Generator,
        schedule: Schedule = "back_to_back",
    ) -> None:
        """The delay is drawn evenly between the two bounds for every chunk."""
        self._policy, self._sensor, self._text, self._check = policy, sensor, text, check
        self._delay_ms, self._rng, self._schedule = delay_ms, rng, schedule
        self._frames = 0
        self._newest: Frame | None = None
        """Not used yet."""
        self._first: NDArray[np.uint8] | None = None
        self._waiting: Chunk | None = None
        """It arrives at its `inference_end_ns`."""
        self._count = 0
        self._observed_ns = 0

    @property
    def observed_ns(self) -> int:
        """Stamp of the frame behind the chunk that arrived last, whatever that chunk says."""
        return self._observed_ns

    def poll(self, world: World, position: Sequence[float], now_ns: int, state: CoreState) -> Chunk | None:
        """The chunk that arrives in this tick, if any. `state` is control's after the tick before."""
        if now_ns * FRAME_HZ // 1_000_000_000 > self._frames:
            self._frames = now_ns * FRAME_HZ // 1_000_000_000
            self._newest = Frame(now_ns, world.snapshot(), tuple(position))
        arrived = self._arrived(now_ns)
        if arrived is not None and self._schedule == "sequential":
            return arrived  # control has not taken it yet: `state` knows nothing of it
        if self._waiting is None and self._newest is not None and self._may_begin(self._newest, state):
            self._waiting = self._infer(self._newest)
            self._newest = None
            # Without a delay the chunk is there in the tick of its frame.
            arrived = self._arrived(now_ns) or arrived
        return arrived

    def _arrived(self, now_ns: int) -> Chunk | None:
        chunk = self._waiting
        if chunk is None or now_ns < chunk.inference_end_ns:
            return None
        self._waiting = None
        self._observed_ns = chunk.observation_ns
        if self._schedule == "from_arrival":
            return replace(
                chunk,
                observation_ns=now_ns,
                frame_arrival_ns=now_ns,
                inference_start_ns=now_ns,
                inference_end_ns=now_ns,
            )
        return chunk

    def _may_begin(self, frame: Frame, state: CoreState) -> bool:
        if self._schedule != "sequential":
            return True
        ended = state.execution is None or state.execution.end_ns < frame.stamp_ns
        return ended and 0 < state.still_since_ns <= frame.stamp_ns

    def _infer(self, frame: Frame) -> Chunk:
        picture = self._sensor.picture_of(frame.snapshot)
        if self._check == "blank":
            picture = np.full_like(picture, 128)
        if self._check == "stale":
            self._first = picture if self._first is None else self._first
            picture = self._first
        targets = self._policy.chunk(picture, frame.position, self._text)
        self._count += 1
        delay_ns = round(self._rng.uniform(*self._delay_ms)) * 1_000_000
        return Chunk(
            chunk_id=self._count,
            task_id=TASK_ID,
            observation_ns=frame.stamp_ns,
            frame_arrival_ns=frame.stamp_ns,
            inference_start_ns=frame.stamp_ns,
            inference_end_ns=frame.stamp_ns + delay_ns,
            session_run_ns=delay_ns,
            frame_period_ns=1_000_000_000 // FRAME_HZ,
            stamp_source=StampSource.HEADER,
            dt_ns=round(self._policy.dt_s * 1e9),
            actions=tuple(tuple(float(value) for value in row) for row in targets),
        )
