"""From a model's text to what `body.Body` asks of it: compiled, with its pairs, drives and reaches. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...drivers.errors import ConfigError
from ...drivers.robots.schema import Robot

Vector = NDArray[np.float64]
Kind = Literal["self_collision", "table_collision"]
SHAPES = ("mjGEOM_PLANE", "mjGEOM_SPHERE", "mjGEOM_CAPSULE", "mjGEOM_BOX")
"""Between these MuJoCo's distances are exact, but for two boxes (tests/runtime/control/test_body.py). How
deep parts overlap is not; but no motion is accepted into an overlap."""
_SLIDE_SPARE = 0.1
"""A joint may rest a little outside its limits at the start: travel is taken so much longer at each end."""


@dataclass(frozen=True, slots=True)
class Drive:
    """What a joint of the robot moves in the model: model = scale * robot + offset."""

    joint: str
    scale: float
    offset: float


@dataclass(frozen=True, slots=True)
class BodyConfig:
    """The robot file's body as plain data, with the model itself: a recording needs no other file."""

    source: str
    """Where the model came from, for people."""
    model: str
    """MJCF or URDF."""
    drives: tuple[Drive | None, ...]
    """In robot joint order; None: a gripper that the model has not."""
    tip: str
    self_clearance_m: float | None
    ignore: tuple[tuple[str, str], ...]
    table: tuple[str, ...]
    table_clearance_m: float | None
    low: tuple[float, float, float] | None
    """The workspace of the tip; None: not checked."""
    high: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two parts that must keep their distance."""

    kind: Kind
    first: str
    second: str
    """Names of their bodies; of a table, its geom's."""
    clearance_m: float
    geoms: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Moved:
    """One coordinate of the model: scale * the robot's joint + offset."""

    robot_joint: int
    scale: float
    offset: float


def body_config(robot: Robot) -> BodyConfig | None:
    """The robot file's body. Raises `ConfigError` where its model cannot be read."""
    body = robot.body
    if body is None:
        return None
    drives: list[Drive | None] = []
    for name in robot.joint_names:
        row = body.joints.get(name)
        if row is not None:
            drives.append(Drive(row.joint or name, row.scale, row.offset))
        else:
            drives.append(None if name in body.joints else Drive(name, 1.0, 0.0))
    box = body.workspace
    return BodyConfig(
        source=body.model,
        model=body.text(),
        drives=tuple(drives),
        tip=body.tip,
        self_clearance_m=body.self_clearance_m,
        ignore=tuple(body.ignore),
        table=tuple(body.table),
        table_clearance_m=body.table_clearance_m,
        low=None if box is None else box.low,
        high=None if box is None else box.high,
    )


def compile_model(mujoco: Any, config: BodyConfig) -> tuple[Any, tuple[Pair, ...]]:
    """The model with nothing but the pairs to compare. Raises `ConfigError`."""
    try:
        spec = mujoco.MjSpec.from_string(config.model)
        # Nothing falls here, but MuJoCo wants a mass in whatever moves.
        spec.compiler.boundmass = spec.compiler.boundinertia = 1.0
        for index, geom in enumerate(spec.geoms):
            geom.name = geom.name or f"geom {index}"
        given = spec.compile()
        pairs = _pairs(mujoco, given, config)
        for geom in spec.geoms:
            geom.contype = geom.conaffinity = 0
        for pair in list(spec.pairs):
            spec.delete(pair)
        for pair in pairs:
            a, b = (given.geom(geom).name for geom in pair.geoms)
            spec.add_pair(geomname1=a, geomname2=b, margin=0.0, gap=0.0)
        return spec.compile(), pairs
    except (ValueError, mujoco.FatalError) as error:
        raise ConfigError(
            f"{config.source} is not a model that MuJoCo can read: {error}. It must be one file without "
            "meshes: describe the arm by capsules, spheres, boxes and planes"
        ) from error


def _pairs(mujoco: Any, model: Any, config: BodyConfig) -> tuple[Pair, ...]:
    """What must keep its distance, as MuJoCo itself would choose: by contype and conaffinity, not the same
    body, not neighbours (here the base has neighbours, too), not what `exclude` or `ignore` name."""
    table = {_id(mujoco, model, "geom", name, config, "table") for name in config.table}
    weld, parent = model.body_weldid, model.body_parentid
    ignored = {(int(s) >> 16, int(s) & 0xFFFF) for s in model.exclude_signature}
    ignored |= {
        tuple(_id(mujoco, model, "body", name, config, "ignore") for name in row) for row in config.ignore
    }
    found = []
    for a in range(model.ngeom):
        for b in range(a + 1, model.ngeom):
            bodies = int(model.geom_bodyid[a]), int(model.geom_bodyid[b])
            wa, wb = int(weld[bodies[0]]), int(weld[bodies[1]])
            if wa == wb or not _meet(model, a, b) or bodies in ignored or bodies[::-1] in ignored:
                continue
            if a in table or b in table:
                kind, clearance = "table_collision", config.table_clearance_m
            else:
                kind, clearance = "self_collision", config.self_clearance_m
                if wa == weld[parent[wb]] or wb == weld[parent[wa]]:
                    continue
            if clearance is None:
                continue
            first, second = (b, a) if a in table else (a, b)
            part, other = (_part(model, geom, geom in table) for geom in (first, second))
            found.append(Pair(kind, part, other, clearance, (first, second)))
    _check_shapes(mujoco, model, found, config)
    _check_table(model, table, found, config)
    return tuple(found)


def _meet(model: Any, a: int, b: int) -> bool:
    return bool(
        model.geom_contype[a] & model.geom_conaffinity[b] or model.geom_contype[b] & model.geom_conaffinity[a]
    )


def _part(model: Any, geom: int, by_geom: bool) -> str:
    body = int(model.geom_bodyid[geom])
    return model.geom(geom).name if by_geom else model.body(body).name if body else "the base"


def _check_shapes(mujoco: Any, model: Any, pairs: Sequence[Pair], config: BodyConfig) -> None:
    exact = {getattr(mujoco.mjtGeom, name).value for name in SHAPES}
    box = mujoco.mjtGeom.mjGEOM_BOX.value
    for pair in pairs:
        kinds = [int(model.geom_type[geom]) for geom in pair.geoms]
        names = " and ".join(model.geom(geom).name for geom in pair.geoms)
        if not exact.issuperset(kinds):
            raise ConfigError(
                f"{config.source}: {names} are compared, but only distances between planes, spheres, "
                "capsules and boxes are exact: describe the part by those"
            )
        if kinds == [box, box]:
            raise ConfigError(
                f"{config.source}: {names} are both boxes, whose distance is not exact: make one of them a "
                "capsule (or the table a plane)"
            )


def _check_table(model: Any, table: set[int], pairs: Sequence[Pair], config: BodyConfig) -> None:
    for geom in table:
        name = model.geom(geom).name
        if model.body_weldid[model.geom_bodyid[geom]] != 0:
            raise ConfigError(f"{config.source}: the table {name} moves; it must be fixed to the base")
        if not any(geom in pair.geoms for pair in pairs):
            raise ConfigError(
                f"{config.source}: nothing is compared with the table {name} (contype, conaffinity)"
            )
    if config.self_clearance_m is not None and not any(pair.kind == "self_collision" for pair in pairs):
        raise ConfigError(f"{config.source}: self_clearance_m, but no two parts are compared with each other")


def _id(mujoco: Any, model: Any, what: str, name: str, config: BodyConfig, key: str) -> int:
    found = mujoco.mj_name2id(model, getattr(mujoco.mjtObj, f"mjOBJ_{what.upper()}"), name)
    if found < 0:
        count = {"geom": model.ngeom, "body": model.nbody, "joint": model.njnt, "site": model.nsite}[what]
        names = ", ".join(filter(None, (getattr(model, what)(i).name for i in range(count))))
        raise ConfigError(
            f"{config.source} has no {what} {name!r}, which the robot file's body.{key} names; it has {names}"
        )
    return found


def moved_by(mujoco: Any, model: Any, config: BodyConfig, joint_names: Sequence[str]) -> tuple[Moved, ...]:
    """What drives each coordinate of the model. A joint that `equality` couples to another goes along with
    it. Raises `ConfigError` for joints that nothing drives: their place would not be known."""
    kinds = {mujoco.mjtJoint.mjJNT_HINGE.value, mujoco.mjtJoint.mjJNT_SLIDE.value}
    if not kinds.issuperset(model.jnt_type.tolist()):
        raise ConfigError(
            f"{config.source}: only hinges and slides can be driven, but it has ball or free joints"
        )
    rows: dict[int, Moved] = {}
    for robot_joint, drive in enumerate(config.drives):
        if drive is not None:
            joint = _id(mujoco, model, "joint", drive.joint, config, f"joints.{joint_names[robot_joint]}")
            if joint in rows:
                raise ConfigError(f"{config.source}: two joints of the robot drive {drive.joint}")
            rows[joint] = Moved(robot_joint, drive.scale, drive.offset)
    for index in range(model.neq):
        if model.eq_type[index] != mujoco.mjtEq.mjEQ_JOINT.value or model.eq_obj2id[index] < 0:
            continue
        follower, leader = int(model.eq_obj1id[index]), int(model.eq_obj2id[index])
        c0, c1, *bent = model.eq_data[index, :5].tolist()
        if leader in rows and follower not in rows and not any(bent):
            row = rows[leader]
            start, of_leader = model.qpos0[follower], model.qpos0[leader]
            offset = start + c0 + c1 * (row.offset - of_leader)
            rows[follower] = Moved(row.robot_joint, c1 * row.scale, float(offset))
    idle = [model.joint(joint).name for joint in range(model.njnt) if joint not in rows]
    if idle:
        raise ConfigError(
            f"{config.source}: no joint of the robot drives {', '.join(idle)}; name one under body.joints, "
            "couple it in the model (equality), or take the joint out"
        )
    return tuple(rows[joint] for joint in range(model.njnt))


class Reach:
    """How far the points of a model move when one of its joints does: at most, in whatever pose.

    From a point outwards to the base: behind a hinge it can be anywhere on a cylinder about that hinge, of
    which only the extent along the axis and the radius are kept; so the result bounds and is seldom far off.
    """

    def __init__(self, mujoco: Any, model: Any, data: Any, ranges: Sequence[tuple[float, float]]) -> None:
        """`data`: with the kinematics of any pose. `ranges`: of each joint of the model, in its units."""
        self._types = mujoco.mjtGeom
        self._hinge = mujoco.mjtJoint.mjJNT_HINGE.value
        self._model, self._data = model, data
        self._ranges = [
            (low - _SLIDE_SPARE * (high - low), high + _SLIDE_SPARE * (high - low)) for low, high in ranges
        ]

    def of_point(self, body: int, point: Vector, ball_m: float) -> dict[int, float]:
        """Joint -> m per unit of it, of a ball about a point of a body."""
        model = self._model
        anchor, axis = np.array(point, float), np.array((0.0, 0.0, 1.0))
        low = high = radius = 0.0
        found: dict[int, float] = {}
        while body > 0:
            first = int(model.body_jntadr[body])
            for joint in reversed(range(first, first + int(model.body_jntnum[body]))):
                turn = model.jnt_axis[joint]
                cosine = abs(float(axis @ turn))
                sine = math.sqrt(max(0.0, 1.0 - cosine * cosine))
                if model.jnt_type[joint] == self._hinge:
                    ends = [anchor + z * axis - model.jnt_pos[joint] for z in (low, high)]
                    along = [float(end @ turn) for end in ends]
                    aside = [
                        float(np.linalg.norm(end - x * turn)) for end, x in zip(ends, along, strict=True)
                    ]
                    low, high = min(along) - radius * sine, max(along) + radius * sine
                    radius += max(aside)
                    anchor, axis = model.jnt_pos[joint], turn
                    found[joint] = radius + ball_m
                else:
                    start = float(model.qpos0[joint])
                    a, b = (end - start for end in self._ranges[joint])
                    anchor = anchor + turn * (a + b) / 2
                    low, high = low - (b - a) / 2 * cosine, high + (b - a) / 2 * cosine
                    radius += (b - a) / 2 * sine
                    found[joint] = 1.0
            rotation = _rotation(model.body_quat[body])
            anchor, axis = model.body_pos[body] + rotation @ anchor, rotation @ axis
            body = int(model.body_parentid[body])
        return found

    def of_pairs(self, pairs: Sequence[Pair]) -> list[dict[int, float]]:
        """For each pair, joint -> m per unit of it by which their distance changes at most."""
        reaches = {geom: self._of_geom(geom) for pair in pairs for geom in pair.geoms}
        rows = []
        for pair in pairs:
            a, b = (reaches[geom] for geom in pair.geoms)
            # A joint that moves both does not change how they lie to each other.
            changing = sorted(a.keys() ^ b.keys())
            rows.append({j: (a[j] if j in a else b[j]) * self._towards(pair, j) for j in changing})
        return rows

    def _of_geom(self, geom: int) -> dict[int, float]:
        model = self._model
        size, rotation = model.geom_size[geom], _rotation(model.geom_quat[geom])
        ball, corners = 0.0, [np.zeros(3)]
        kind = model.geom_type[geom]
        if kind == self._types.mjGEOM_BOX.value:
            signs = np.array(np.meshgrid(*[(-1.0, 1.0)] * 3)).reshape(3, 8).T
            corners = list(signs * size)
        elif kind == self._types.mjGEOM_CAPSULE.value:
            ball, half = float(size[0]), np.array((0.0, 0.0, size[1]))
            corners = [-half, half]
        elif kind == self._types.mjGEOM_SPHERE.value:
            ball = float(size[0])
        most: dict[int, float] = {}
        for corner in corners:
            point = model.geom_pos[geom] + rotation @ corner
            for joint, reach in self.of_point(int(model.geom_bodyid[geom]), point, ball).items():
                most[joint] = max(most.get(joint, 0.0), reach)
        return most

    def _towards(self, pair: Pair, joint: int) -> float:
        """Which share of a joint's motion can change the distance to a plane: a joint that stands on the base
        and turns about the plane's normal changes it not at all."""
        model, data = self._model, self._data
        plane = next((g for g in pair.geoms if model.geom_type[g] == self._types.mjGEOM_PLANE.value), None)
        body = int(model.jnt_bodyid[joint])
        on_base = model.body_weldid[model.body_parentid[body]] == 0 and model.body_jntadr[body] == joint
        if plane is None or not on_base or model.body_weldid[model.geom_bodyid[plane]] != 0:
            return 1.0
        normal, axis = data.geom_xmat[plane].reshape(3, 3)[:, 2], data.xaxis[joint]
        if model.jnt_type[joint] == self._hinge:
            return float(np.linalg.norm(np.cross(normal, axis)))
        return abs(float(normal @ axis))


def _rotation(quaternion: Vector) -> Vector:
    w, x, y, z = quaternion.tolist()
    return np.array(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        )
    )


def model_ranges(
    moved: Sequence[Moved], low: Sequence[float], high: Sequence[float]
) -> list[tuple[float, float]]:
    """The range of each joint of the model, in its units, from the robot's limits."""
    rows = []
    for row in moved:
        ends = sorted(row.scale * limit[row.robot_joint] + row.offset for limit in (low, high))
        rows.append((ends[0], ends[1]))
    return rows


def per_robot_joint(by_joint: Mapping[int, float], moved: Sequence[Moved], joints: int) -> tuple[float, ...]:
    """m per unit of each of the robot's joints."""
    weights = [0.0] * joints
    for joint, row in enumerate(moved):
        weights[row.robot_joint] += abs(row.scale) * by_joint.get(joint, 0.0)
    return tuple(weights)
