"""The joint state at a frame's stamp, out of the samples that control sends."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

from ..messages import State

KEPT_NS = 2_000_000_000


class JointHistory:
    """The samples of the last two seconds; pure, fed by the policy loop.

    `period_ns` is the control period: the longest time that a sample may be carried forward.
    """

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._stamps: deque[int] = deque()
        self._positions: deque[tuple[float, ...]] = deque()

    def add(self, state: State) -> None:
        """Takes one sample; an older or repeated stamp is ignored (control re-sends a late sample)."""
        if not state.position or (self._stamps and state.joint_ns <= self._stamps[-1]):
            return
        self._stamps.append(state.joint_ns)
        self._positions.append(state.position)
        while state.joint_ns - self._stamps[0] > KEPT_NS:
            self._stamps.popleft()
            self._positions.popleft()

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest sample."""
        return self._stamps[-1] if self._stamps else None

    @property
    def oldest_ns(self) -> int | None:
        """Stamp of the oldest sample kept."""
        return self._stamps[0] if self._stamps else None

    def at(self, stamp_ns: int) -> tuple[float, ...] | None:
        """Joint positions (robot order and units) at `stamp_ns`, linear between the two samples around it.

        Beyond the newest sample the last slope is continued for at most one control period. None when
        `stamp_ns` lies further ahead, before the oldest sample, or in a gap longer than ten periods.
        """
        index = bisect_left(self._stamps, stamp_ns)
        if index < len(self._stamps) and self._stamps[index] == stamp_ns:
            return self._positions[index]
        if index == 0 or len(self._stamps) < 2:
            return None
        if index == len(self._stamps):
            if stamp_ns - self._stamps[-1] > self._period_ns:
                return None
            index -= 1
        before, after = self._stamps[index - 1], self._stamps[index]
        if after - before > 10 * self._period_ns:
            return None
        share = (stamp_ns - before) / (after - before)
        return tuple(
            a + share * (b - a)
            for a, b in zip(self._positions[index - 1], self._positions[index], strict=True)
        )
