"""Where the arm should be now: a chunk read at a time. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..messages import Chunk


@dataclass(frozen=True, slots=True)
class Execution:
    """A chunk being executed: `actions[i]` is commanded at `origin_ns + i * dt_ns`, linear between."""

    chunk_id: int
    observation_ns: int
    origin_ns: int
    dt_ns: int
    actions: tuple[tuple[float, ...], ...]
    """[steps][joints]"""

    @property
    def end_ns(self) -> int:
        return self.origin_ns + (len(self.actions) - 1) * self.dt_ns


@dataclass(frozen=True, slots=True)
class Target:
    """Where the path is a little ahead of now, and the mean velocity on the way there."""

    position: tuple[float, ...]
    velocity: tuple[float, ...]


def begin(chunk: Chunk, now_ns: int, still_since_ns: int) -> Execution:
    """Starts a chunk. Its origin is the observation's stamp; where the arm has been commanded still since
    then, nothing has gone stale and the origin is now, so the first chunk starts at its index 0."""
    still = still_since_ns != 0 and still_since_ns <= chunk.observation_ns
    origin = now_ns if still else chunk.observation_ns
    return Execution(chunk.chunk_id, chunk.observation_ns, origin, chunk.dt_ns, chunk.actions)


def position_at(execution: Execution, time_ns: int) -> tuple[float, ...]:
    """The path at one time; before its origin its first point, after its end its last."""
    elapsed = min(max(0, time_ns - execution.origin_ns), execution.end_ns - execution.origin_ns)
    index = min(elapsed // execution.dt_ns, max(0, len(execution.actions) - 2))
    fraction = (elapsed - index * execution.dt_ns) / execution.dt_ns
    a, b = execution.actions[index], execution.actions[min(index + 1, len(execution.actions) - 1)]
    return tuple([x + (y - x) * fraction for x, y in zip(a, b, strict=True)])


def target_at(execution: Execution, now_ns: int, lookahead_ns: int) -> Target | None:
    """The target for a smoother that aims `lookahead_ns` ahead; None when the chunk has run out."""
    if now_ns > execution.end_ns:
        return None
    now, ahead = position_at(execution, now_ns), position_at(execution, now_ns + lookahead_ns)
    seconds = lookahead_ns * 1e-9
    return Target(ahead, tuple([(b - a) / seconds for a, b in zip(now, ahead, strict=True)]))
