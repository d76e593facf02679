"""The arm's shape: where its tip is, how near its parts come to each other and to the table.

Kinematics and distances are MuJoCo's, on a model that has nothing else: no forces, no state. Every query
places the joints anew and depends on nothing before it, so equal inputs give equal outputs. Units: m; joints
in the robot's. Frame: the model's world, which is the arm's base. Pure: the model comes as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...drivers.errors import ConfigError
from ...drivers.physics import load_mujoco
from .body_model import BodyConfig, Pair, Reach, compile_model, model_ranges, moved_by, per_robot_joint

_EVERYTHING_M = 100.0
"""A margin within which every distance is found."""


@dataclass(frozen=True, slots=True)
class Near:
    """How near a pair is, and where."""

    pair: int
    """Into `Body.pairs`."""
    distance_m: float
    """Negative where they overlap."""
    point: tuple[float, float, float]
    """The middle between them."""


class Body:
    """Scratch memory of MuJoCo, filled anew by every query.

    Raises `ConfigError` for a model that does not load or does not fit the robot, or where MuJoCo is missing.
    """

    def __init__(
        self, config: BodyConfig, joint_names: Sequence[str], low: Sequence[float], high: Sequence[float]
    ) -> None:
        """`low`, `high`: the position limits of the robot's joints."""
        mujoco = load_mujoco()
        self.config = config
        self.pairs: tuple[Pair, ...]
        """What is compared: parts of the arm with each other, moving parts with the table."""
        self._model, self.pairs = compile_model(mujoco, config)
        self._data = mujoco.MjData(self._model)
        self._kinematics, self._collision = mujoco.mj_kinematics, mujoco.mj_collision
        self._moved = moved_by(mujoco, self._model, config, joint_names)
        self._drives = [(row.robot_joint, row.scale, row.offset) for row in self._moved]
        self._pair_of = {pair.geoms: index for index, pair in enumerate(self.pairs)}
        self._pair_of |= {pair.geoms[::-1]: index for index, pair in enumerate(self.pairs)}
        self._clearance = np.array([pair.clearance_m for pair in self.pairs])
        self._qpos, self._margin = self._data.qpos, self._model.pair_margin
        self._kinematics(self._model, self._data)
        site = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_SITE, config.tip)
        body = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_BODY, config.tip)
        if site < 0 and body < 0:
            raise ConfigError(
                f"{config.source} has neither a site nor a body {config.tip!r}, the robot file's body.tip"
            )
        self._tip = self._data.site_xpos[site] if site >= 0 else self._data.xpos[body]
        reach = Reach(mujoco, self._model, self._data, model_ranges(self._moved, low, high))
        at = (
            (int(self._model.site_bodyid[site]), self._model.site_pos[site])
            if site >= 0
            else (body, np.zeros(3))
        )
        rows = [*reach.of_pairs(self.pairs), reach.of_point(*at, 0.0)]
        self.reach = np.array([per_robot_joint(row, self._moved, len(joint_names)) for row in rows])
        """[pairs + 1, robot joints]: m per unit of a joint by which a pair's distance changes at most, in any
        pose; in the last row the same for the place of the tip."""
        self._away, self._change = np.zeros(len(joint_names)), np.zeros(len(rows))
        self._pair_change = self._change[:-1]

    def tip(self, position: Sequence[float]) -> tuple[float, float, float]:
        """Where the tip is."""
        self._place(position)
        x, y, z = self._tip.tolist()
        return x, y, z

    def clear(self, position: Sequence[float], away: Sequence[float]) -> bool:
        """Whether every pair keeps its clearance and the tip stays in the workspace, at `position` and
        wherever else no joint is farther from there than `away`."""
        self._place(position)
        change = self._change_within(away)
        np.add(self._clearance, self._pair_change, out=self._margin)
        if self._touching():
            return False
        low, high = self.config.low, self.config.high
        if low is None or high is None:
            return True
        more, (x, y, z) = change.item(-1), self._tip.tolist()
        return (
            low[0] + more <= x <= high[0] - more
            and low[1] + more <= y <= high[1] - more
            and low[2] + more <= z <= high[2] - more
        )

    def change(self, away: Sequence[float]) -> tuple[float, ...]:
        """How much the distance of each pair, and last the place of the tip, can change where no joint moves
        by more than `away`."""
        return tuple(self._change_within(away).tolist())

    def near(self, position: Sequence[float], more_m: Sequence[float] | float = 0.0) -> list[Near]:
        """The pairs that are nearer than their clearance and `more_m` (one for each, or all), in order."""
        self._place(position)
        np.add(self._clearance, more_m, out=self._margin)
        if not self._touching():
            return []
        nearest: dict[int, Near] = {}
        contact = self._data.contact
        for (a, b), distance, (x, y, z) in zip(
            contact.geom.tolist(), contact.dist.tolist(), contact.pos.tolist(), strict=True
        ):
            pair = self._pair_of[a, b]
            if pair not in nearest or distance < nearest[pair].distance_m:
                nearest[pair] = Near(pair, distance, (x, y, z))
        return [nearest[pair] for pair in sorted(nearest)]

    def distances(self, position: Sequence[float]) -> tuple[float, ...]:
        """The distance of every pair, in the order of `pairs`."""
        found = {near.pair: near.distance_m for near in self.near(position, _EVERYTHING_M)}
        return tuple(found[pair] for pair in range(len(self.pairs)))

    def rooms(self, position: Sequence[float]) -> tuple[float, ...]:
        """From the tip to each side of the workspace (low x, y, z, high x, y, z), negative outside; empty
        where there is no workspace."""
        low, high = self.config.low, self.config.high
        if low is None or high is None:
            return ()
        tip = self.tip(position)
        return (
            *[x - a for x, a in zip(tip, low, strict=True)],
            *[b - x for x, b in zip(tip, high, strict=True)],
        )

    def describe(self, near: Near) -> str:
        """For people: which parts, how near, where."""
        row = self.pairs[near.pair]
        x, y, z = (round(1e3 * value) for value in near.point)
        return (
            f"{row.first} and {row.second} would be {near.distance_m * 1e3:.1f} mm apart at ({x}, {y}, {z}) "
            f"mm, the clearance is {row.clearance_m * 1e3:g} mm"
        )

    def describe_side(self, position: Sequence[float], side: int) -> str:
        """For people: how the tip lies to a side of the workspace (an index into `rooms`)."""
        low, high, axis = self.config.low, self.config.high, side % 3
        assert low is not None
        assert high is not None
        return (
            f"the tip would be at {'xyz'[axis]} = {self.tip(position)[axis] * 1e3:.1f} mm, the workspace is "
            f"{low[axis] * 1e3:g} .. {high[axis] * 1e3:g} mm"
        )

    def _place(self, position: Sequence[float]) -> None:
        self._qpos[:] = [scale * position[i] + offset for i, scale, offset in self._drives]
        self._kinematics(self._model, self._data)

    def _change_within(self, away: Sequence[float]) -> NDArray[np.float64]:
        self._away[:] = away
        return self.reach.dot(self._away, out=self._change)

    def _touching(self) -> bool:
        """MuJoCo lists what is nearer than its margin; where it lists nothing, all is well."""
        self._collision(self._model, self._data)
        return self._data.ncon > 0
