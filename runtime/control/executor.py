"""Where a chunk says that the arm should be: paths over time, and what is being executed. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..messages import Chunk


@dataclass(frozen=True, slots=True)
class Path:
    """One chunk on the time axis: `actions[i]` is commanded at `origin_ns + i * dt_ns`, linear between."""

    chunk_id: int
    observation_ns: int
    origin_ns: int
    dt_ns: int
    actions: tuple[tuple[float, ...], ...]
    """[steps][joints], absolute, in robot units"""

    @property
    def end_ns(self) -> int:
        """The time of the last action; a single action lasts one step."""
        return self.origin_ns + max(1, len(self.actions) - 1) * self.dt_ns


@dataclass(frozen=True, slots=True)
class Bridge:
    """What a path still differs by from the commanded motion, as a quintic that goes to zero (`fusion`)."""

    start_ns: int
    duration_ns: int
    error: tuple[tuple[float, float, float], ...]
    """[joints]: difference of position, velocity and acceleration at the start"""


@dataclass(frozen=True, slots=True)
class Execution:
    """The chunks under execution; a strategy (`strategies`) makes targets of them.

    Its properties are those of the newest chunk.
    """

    paths: tuple[Path, ...]
    """Oldest first. More than one only where the strategy still needs the older ones."""
    since_ns: tuple[int, ...]
    """Per path: when it began to be executed."""
    counts: tuple[float, ...] = ()
    """`ensemble`: how many predictions stand behind each action of the newest path."""
    bridge: Bridge | None = None

    @property
    def newest(self) -> Path:
        return self.paths[-1]

    @property
    def chunk_id(self) -> int:
        return self.newest.chunk_id

    @property
    def observation_ns(self) -> int:
        return self.newest.observation_ns

    @property
    def origin_ns(self) -> int:
        return self.newest.origin_ns

    @property
    def end_ns(self) -> int:
        return self.newest.end_ns

    @property
    def first_used_ns(self) -> int:
        """When the newest chunk began to be executed."""
        return self.since_ns[-1]


@dataclass(frozen=True, slots=True)
class Target:
    """Where the arm should be a little ahead of now, and how fast it should be moving there."""

    position: tuple[float, ...]
    velocity: tuple[float, ...]


def path_of(chunk: Chunk, now_ns: int, still_since_ns: int) -> Path:
    """Puts a chunk on the time axis. Its origin is the observation's stamp; where the arm has been commanded
    still since then, nothing has gone stale and the origin is now, so the first chunk starts at index 0."""
    still = still_since_ns != 0 and still_since_ns <= chunk.observation_ns
    origin = now_ns if still else chunk.observation_ns
    return Path(chunk.chunk_id, chunk.observation_ns, origin, chunk.dt_ns, chunk.actions)


def position_at(path: Path, time_ns: int) -> tuple[float, ...]:
    """The path at one time; before its origin its first point, after its end its last."""
    actions, dt_ns = path.actions, path.dt_ns
    elapsed = time_ns - path.origin_ns
    if elapsed <= 0:
        return actions[0]
    index, rest = divmod(elapsed, dt_ns)
    if index >= len(actions) - 1:
        return actions[-1]
    fraction = rest / dt_ns
    return tuple([x + (y - x) * fraction for x, y in zip(actions[index], actions[index + 1], strict=True)])


def target_at(path: Path, now_ns: int, lookahead_ns: int) -> Target:
    """The target for a smoother that aims `lookahead_ns` ahead on a path."""
    return between(position_at(path, now_ns), position_at(path, now_ns + lookahead_ns), lookahead_ns)


def between(now: tuple[float, ...], ahead: tuple[float, ...], lookahead_ns: int) -> Target:
    """The target `ahead`, with the mean velocity on the way there."""
    seconds = lookahead_ns * 1e-9
    return Target(ahead, tuple([(b - a) / seconds for a, b in zip(now, ahead, strict=True)]))
