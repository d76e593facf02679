"""Frames, inferences, hand-overs and ticks in whole nanoseconds, as plainly as possible: what the arithmetic
of `runtime.schedulability` is compared with. It knows times only, no actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pipeline:
    """Cameras with one period and latency but phases of their own, one policy, one control loop."""

    frame_period_ns: int
    frame_latency_ns: int
    phases_ns: tuple[int, ...]
    """Per camera: stamp of its first picture."""
    tick_period_ns: int
    tick_phase_ns: int
    path_ns: int

    def newest(self, camera: int, now_ns: int) -> int:
        """Number of the newest picture that can be used; negative before the first."""
        return (now_ns - self.frame_latency_ns - self.phases_ns[camera]) // self.frame_period_ns

    def stamp_ns(self, camera: int, number: int) -> int:
        return self.phases_ns[camera] + number * self.frame_period_ns

    def chunks(self, start_ns: int, busy_ns: Sequence[int]) -> list[tuple[int, int]]:
        """(observation, arrival at control) of chunks whose inference and hand-over take `busy_ns`.

        As the policy process does: each inference on the newest picture of every camera, all of them newer
        than those of the inference before; it waits for those that are not there yet.
        """
        now_ns = start_ns
        used = [-1] * len(self.phases_ns)
        found = []
        for busy in busy_ns:
            there_ns = [
                self.stamp_ns(camera, last + 1) + self.frame_latency_ns for camera, last in enumerate(used)
            ]
            now_ns = max(now_ns, *there_ns)
            used = [self.newest(camera, now_ns) for camera in range(len(used))]
            observation_ns = min(self.stamp_ns(camera, number) for camera, number in enumerate(used))
            now_ns += busy
            found.append((observation_ns, now_ns))
        return found

    def ages_at_ticks(self, chunks: Sequence[tuple[int, int]]) -> list[tuple[int, bool]]:
        """At every tick from the first arrival to the last: the age of the observation behind the newest
        chunk that is there, and whether the chunk is new in this tick."""
        first_ns, last_ns = chunks[0][1], chunks[-1][1]
        period = self.tick_period_ns
        tick_ns = first_ns + (self.tick_phase_ns - first_ns) % period
        rows, index, used = [], 0, -1
        while tick_ns < last_ns:
            while index + 1 < len(chunks) and chunks[index + 1][1] <= tick_ns:
                index += 1
            rows.append((tick_ns - chunks[index][0], index != used))
            used = index
            tick_ns += period
        return rows

    def starves(self, chunks: Sequence[tuple[int, int]]) -> bool:
        """Whether a tick finds that the path of its chunk has ended."""
        return any(age > self.path_ns for age, _ in self.ages_at_ticks(chunks))
