"""How chunks that overlap become one motion: the strategies, behind one interface. Pure.

A strategy does two things: `begin` takes a new chunk into what is being executed, `target` says where the arm
should be `lookahead_ns` from now. The time axis is the same for all of them (`executor.Path`): actions are
indexed by the time of their observation, so what has gone stale during inference is skipped. The smoother
follows the target within the robot's limits whatever a strategy asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .executor import Bridge, Execution, Path, Target, between, position_at, target_at
from .spline import bridge_at, difference, spline_at, total

if TYPE_CHECKING:
    from .smoother import Motion

FADE_NS = 60_000_000
"""`crossfade`: how long a new chunk takes to replace the one before, at most."""
REACTION_NS = 200_000_000
"""`crossfade`: an observation that is already so old is followed at once; fading would cost what time is left
to react (docs/strategies.md has the measurement)."""
FUSION_NS = 150_000_000
"""`fusion`: how long the curve takes from where the arm is commanded to be to the new chunk."""
ENSEMBLE_M = 0.01
"""`ensemble`: weights exp(-m i), the oldest prediction (i = 0) first (ACT, arXiv 2304.13705)."""
AVERAGE = 5
"""`average`: so many actions are averaged."""
MOST_PATHS = 32
"""More chunks than overlap in any fade or average; beyond it the oldest is forgotten."""

Begin = Callable[["Execution | None", Path, int, int, "Motion"], Execution]
"""(what was executed, the new path, now_ns, lookahead_ns, the commanded motion) -> what is executed now"""
Aim = Callable[[Execution, int, int], Target]
"""(what is executed, now_ns, lookahead_ns) -> the target"""


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way of executing chunks."""

    meaning: str
    begin: Begin
    target: Aim
    asynchronous: bool = True
    """False: the next chunk is inferred after this one has been carried out; the arm holds meanwhile."""


def _alone(before: Execution | None, path: Path, now_ns: int, lookahead_ns: int, motion: Motion) -> Execution:
    return Execution((path,), (now_ns,))


def _follow(execution: Execution, now_ns: int, lookahead_ns: int) -> Target:
    return target_at(execution.newest, now_ns, lookahead_ns)


def _together(before: Execution | None, path: Path, now_ns: int, keep_ns: int) -> Execution:
    """The new path after those before that were still followed at `keep_ns`; alone where they ran out."""
    if before is None or now_ns > before.end_ns:
        return Execution((path,), (now_ns,))
    first = max((k for k, since in enumerate(before.since_ns) if since <= keep_ns), default=0)
    first = max(first, len(before.paths) + 1 - MOST_PATHS)
    return Execution((*before.paths[first:], path), (*before.since_ns[first:], now_ns))


def _fade_in(
    before: Execution | None, path: Path, now_ns: int, lookahead_ns: int, motion: Motion
) -> Execution:
    return _together(before, path, now_ns, now_ns - FADE_NS)


def _fade(execution: Execution, now_ns: int, lookahead_ns: int) -> Target:
    paths, ahead_ns = execution.paths, now_ns + lookahead_ns
    # The first one to be followed: the newest of those that have replaced all before them.
    first, shares = len(paths) - 1, []
    while first > 0 and (share := _share(paths[first], execution.since_ns[first], now_ns)) < 1.0:
        shares.append(share)
        first -= 1
    here, ahead = position_at(paths[first], now_ns), position_at(paths[first], ahead_ns)
    for path, share in zip(paths[first + 1 :], reversed(shares), strict=True):
        here = _blend(here, position_at(path, now_ns), share)
        ahead = _blend(ahead, position_at(path, ahead_ns), share)
    return between(here, ahead, lookahead_ns)


def _share(path: Path, since_ns: int, now_ns: int) -> float:
    """How far a chunk has replaced those before it: 0 to 1, with even ends."""
    age_ns = since_ns - path.observation_ns
    fade_ns = min(FADE_NS, REACTION_NS - age_ns)
    if now_ns - since_ns >= fade_ns:
        return 1.0
    x = (now_ns - since_ns) / fade_ns
    return x * x * (3 - 2 * x)


def _blend(a: tuple[float, ...], b: tuple[float, ...], share: float) -> tuple[float, ...]:
    return tuple([x + (y - x) * share for x, y in zip(a, b, strict=True)])


def _average_in(
    before: Execution | None, path: Path, now_ns: int, lookahead_ns: int, motion: Motion
) -> Execution:
    return _together(before, path, now_ns, now_ns - (AVERAGE - 1) * path.dt_ns)


def _average(execution: Execution, now_ns: int, lookahead_ns: int) -> Target:
    """The mean of the last five actions, a step apart, each of the chunk that was followed at its time."""
    here, ahead = _mean_at(execution, now_ns), _mean_at(execution, now_ns + lookahead_ns)
    return between(here, ahead, lookahead_ns)


def _mean_at(execution: Execution, time_ns: int) -> tuple[float, ...]:
    dt_ns = execution.newest.dt_ns
    rows = []
    for step in range(AVERAGE):
        then = time_ns - step * dt_ns
        followed = max((k for k, since in enumerate(execution.since_ns) if since <= then), default=0)
        rows.append(position_at(execution.paths[followed], then))
    return tuple([sum(column) / AVERAGE for column in zip(*rows, strict=True)])


def _ensemble_in(
    before: Execution | None, path: Path, now_ns: int, lookahead_ns: int, motion: Motion
) -> Execution:
    """Every action becomes the weighted mean of all predictions for its time, in the recursive form: the mean
    so far counts with the sum of its weights. Older means are read between their steps."""
    steps = len(path.actions)
    if before is None or now_ns > before.end_ns:
        return Execution((path,), (now_ns,), counts=(1.0,) * steps)
    old = before.newest
    actions, counts = [], []
    for step, new in enumerate(path.actions):
        time_ns = path.origin_ns + step * path.dt_ns
        if not old.origin_ns <= time_ns <= old.end_ns:
            actions.append(new)
            counts.append(1.0)
            continue
        seen = _count_at(before, time_ns)
        share = math.exp(-ENSEMBLE_M * seen) / _weights(seen + 1)
        actions.append(_blend(position_at(old, time_ns), new, share))
        counts.append(seen + 1)
    blended = Path(path.chunk_id, path.observation_ns, path.origin_ns, path.dt_ns, tuple(actions))
    return Execution((blended,), (now_ns,), counts=tuple(counts))


def _count_at(execution: Execution, time_ns: int) -> float:
    """How many predictions stand behind the action at (or just before) one time."""
    path = execution.newest
    return execution.counts[min((time_ns - path.origin_ns) // path.dt_ns, len(execution.counts) - 1)]


def _weights(count: float) -> float:
    """Sum of exp(-m i) for i = 0 .. count - 1."""
    return (1 - math.exp(-ENSEMBLE_M * count)) / (1 - math.exp(-ENSEMBLE_M))


def _fuse_in(
    before: Execution | None, path: Path, now_ns: int, lookahead_ns: int, motion: Motion
) -> Execution:
    """The curve begins where the arm is commanded to be now, with its velocity and acceleration; the
    difference to the new chunk's own curve goes to zero. So it does not matter what was followed before."""
    duration_ns = min(FUSION_NS, path.end_ns - now_ns)
    if duration_ns <= 0:
        return Execution((path,), (now_ns,))
    commanded = tuple(zip(motion.position, motion.velocity, motion.acceleration, strict=True))
    bridge = Bridge(now_ns, duration_ns, difference(commanded, spline_at(path, now_ns)))
    return Execution((path,), (now_ns,), bridge=bridge)


def _fuse(execution: Execution, now_ns: int, lookahead_ns: int) -> Target:
    time_ns = now_ns + lookahead_ns
    curve, bridge = spline_at(execution.newest, time_ns), execution.bridge
    if bridge is not None and time_ns < bridge.start_ns + bridge.duration_ns:
        curve = total(curve, bridge_at(bridge, time_ns))
    return Target(tuple([p for p, _, _ in curve]), tuple([v for _, v, _ in curve]))


STRATEGIES: dict[str, Strategy] = {
    "sequential": Strategy(
        "one chunk after another; the arm holds while the next is inferred", _alone, _follow, False
    ),
    "newest": Strategy("the newest chunk at once, less what has gone stale", _alone, _follow),
    "crossfade": Strategy(
        "the newest chunk, faded in over 60 ms where its observation is young", _fade_in, _fade
    ),
    "ensemble": Strategy(
        "the weighted mean of all predictions for the same time, the oldest first", _ensemble_in, _follow
    ),
    "average": Strategy("the mean of the last five actions that were followed", _average_in, _average),
    "fusion": Strategy(
        "the newest chunk as a smooth curve that a polynomial joins to the commanded motion", _fuse_in, _fuse
    ),
}
DEFAULT = "crossfade"
"""Less jerk than `newest` wherever that costs no success, and the same beyond (docs/strategies.md)."""


def allowed(steps: int) -> list[str]:
    """The strategies for chunks of so many steps: a single action can only be carried out by itself."""
    return [name for name, strategy in STRATEGIES.items() if steps > 1 or not strategy.asynchronous]
