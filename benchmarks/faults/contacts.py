"""Whether the simulated arm touches itself or its table, where its shafts truly are.

By the simulator's own scene (drivers/simulated/scene.py): not the model that control computes with. The jaws
may touch the table, they grasp what lies on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...drivers.simulated import scene
from ...drivers.simulated.physics import mujoco

NEAR_M = 0.0005
"""Nearer than this is a touch: a tick moves the tip by as much."""
_JAWS = ("jaw_l", "jaw_r")


class Contacts:
    """The scene without its cubes, joints placed one pose after another."""

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        """`ranges`: the calibrated range of each joint in robot order, ticks."""
        self._model = model = scene.build_model()
        self._data = mujoco.MjData(model)
        for colour in scene.COLOURS:
            geom = model.geom(colour).id
            model.geom_contype[geom] = model.geom_conaffinity[geom] = 0
        model.geom_margin[:] = NEAR_M
        self._q = [int(model.joint(name).qposadr[0]) for name in scene.JOINTS]
        self._mirror = int(model.joint("gripper_r").qposadr[0])
        gripper = [name == "gripper" for name in scene.JOINTS]
        self._zero = np.array(
            [low if jaw else (low + high) / 2 for (low, high), jaw in zip(ranges, gripper, strict=True)]
        )
        self._scale = np.array(
            [
                scene.JAW_OPENING_M / (high - low) if jaw else 2 * math.pi / 4096
                for (low, high), jaw in zip(ranges, gripper, strict=True)
            ]
        )

    def among(self, rows: NDArray[np.int32]) -> list[str]:
        """What touches in these poses [poses, joints] (ticks), each pair once."""
        found: dict[str, float] = {}
        for row in rows:
            self._data.qpos[self._q] = (row - self._zero) * self._scale
            self._data.qpos[self._mirror] = self._data.qpos[self._q[-1]]
            mujoco.mj_kinematics(self._model, self._data)
            mujoco.mj_collision(self._model, self._data)
            for index in range(self._data.ncon):
                contact = self._data.contact[index]
                pair = self._pair(int(contact.geom1), int(contact.geom2))
                if pair and contact.dist < found.get(pair, NEAR_M):
                    found[pair] = float(contact.dist)
        return [f"{pair} touch, {depth * 1e3:.1f} mm apart" for pair, depth in sorted(found.items())]

    def _pair(self, one: int, other: int) -> str:
        """Empty for what may touch: neighbours, the jaws each other and the table."""
        model = self._model
        a, b = int(model.geom_bodyid[one]), int(model.geom_bodyid[other])
        names = sorted((self._name(one), self._name(other)))
        if a in (b, model.body_parentid[b]) or b == model.body_parentid[a]:
            return ""
        if all(name in (*_JAWS, "table") for name in names):
            return ""
        return " and ".join(names)

    def _name(self, geom: int) -> str:
        return self._model.geom(geom).name or self._model.body(int(self._model.geom_bodyid[geom])).name
