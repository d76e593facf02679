"""A small arm for tests of the body, and distances between capsules that share nothing with MuJoCo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.runtime.control.body import Body
from holdfast.runtime.control.body_model import BodyConfig, Drive
from holdfast.runtime.control.config import CoreConfig

from .world import JOINTS, config

CLEARANCE_M = 0.01
UPPER_M, FORE_M, RADIUS_M = 0.3, 0.25, 0.02
POST = ((0.3, 0.3, 0.0), (0.3, 0.3, 0.4))
"""The axis of a post beside the arm, in reach of its hand."""
FLOOR_M = -0.2
MODEL = f"""
<mujoco><compiler angle="radian"/><worldbody>
  <geom name="floor" type="plane" size="1 1 0.1" pos="0 0 {FLOOR_M}"/>
  <geom name="post" type="capsule" size="{RADIUS_M}" fromto="0.3 0.3 0 0.3 0.3 0.4"/>
  <body name="upper">
    <joint name="pan" axis="0 0 1"/>
    <geom name="upper" type="capsule" size="{RADIUS_M}" fromto="0.05 0 0 {UPPER_M} 0 0"/>
    <body name="fore" pos="{UPPER_M} 0 0">
      <joint name="lift" axis="0 -1 0"/>
      <geom name="fore" type="capsule" size="{RADIUS_M}" fromto="0 0 0 {FORE_M} 0 0"/>
      <site name="tip" pos="{FORE_M} 0 0"/>
    </body>
  </body>
</worldbody></mujoco>"""
"""Two links: pan about the vertical, lift upwards. The post is part of the base, the table is the floor."""
SHAPE = BodyConfig(
    source="arm.xml",
    model=MODEL,
    drives=(Drive("pan", 1.0, 0.0), Drive("lift", 1.0, 0.0), None),
    tip="tip",
    self_clearance_m=CLEARANCE_M,
    ignore=(),
    table=("floor",),
    table_clearance_m=CLEARANCE_M,
    low=None,
    high=None,
)


def shaped(**changes: Any) -> BodyConfig:
    return replace(SHAPE, **changes)


def body_of(shape: BodyConfig = SHAPE) -> Body:
    settings = config()
    return Body(shape, JOINTS, settings.low, settings.high)


def with_body(shape: BodyConfig = SHAPE, **changes: object) -> CoreConfig:
    return config(body=shape, **changes)


Point = NDArray[np.float64]


def links(pose: Sequence[float]) -> dict[str, tuple[Point, Point]]:
    """The axes of the two links, by trigonometry."""
    pan, lift = pose[0], pose[1]
    out = np.array((math.cos(pan), math.sin(pan), 0.0))
    elbow = UPPER_M * out
    tip = elbow + FORE_M * (math.cos(lift) * out + np.array((0.0, 0.0, math.sin(lift))))
    return {"upper": (0.05 * out, elbow), "fore": (elbow, tip)}


def expected_distances(pose: Sequence[float]) -> dict[tuple[str, str], float]:
    """Between the surfaces of each link and post or floor."""
    found = {}
    for name, axis in links(pose).items():
        found[name, "floor"] = min(end[2] for end in axis) - FLOOR_M - RADIUS_M
        post = np.array(POST[0]), np.array(POST[1])
        found[name, "the base"] = segment_distance(*axis, *post) - 2 * RADIUS_M
    return found


def segment_distance(a: Point, b: Point, c: Point, d: Point) -> float:
    """Between two segments: the least of the ends' distances and, if it lies on both, the lines'."""
    ends = [_to_segment(a, c, d), _to_segment(b, c, d), _to_segment(c, a, b), _to_segment(d, a, b)]
    u, v, w = b - a, d - c, a - c
    uu, uv, vv, uw, vw = u @ u, u @ v, v @ v, u @ w, v @ w
    across = uu * vv - uv * uv
    if across > 1e-12:
        s, t = (uv * vw - vv * uw) / across, (uu * vw - uv * uw) / across
        if 0 <= s <= 1 and 0 <= t <= 1:
            ends.append(float(np.linalg.norm(w + s * u - t * v)))
    return min(ends)


def _to_segment(p: Point, c: Point, d: Point) -> float:
    along = min(1.0, max(0.0, float((p - c) @ (d - c) / ((d - c) @ (d - c)))))
    return float(np.linalg.norm(p - c - (d - c) * along))
