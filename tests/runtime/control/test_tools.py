"""What the checks of a setpoint work with: the limits with their slack, and poses that the body refuses."""

from __future__ import annotations

import pytest

from holdfast.drivers.errors import ConfigError
from holdfast.runtime.control.smoother import Motion
from holdfast.runtime.control.tools import Tools

from .shapes import FORE_M, UPPER_M, shaped, with_body
from .world import MS, config


def test_the_limits_are_exceeded_by_a_millionth_at_most() -> None:
    made = Tools.of(config())
    assert made.body is None
    assert made.most.velocity == pytest.approx((2.000003, 2.000003, 300.000301), rel=1e-12)
    assert made.most.acceleration == pytest.approx((15.000016, 15.000016, 2000.002001), rel=1e-12)
    assert made.most.jerk == pytest.approx((300.000301, 300.000301, 40000.040001), rel=1e-12)


def test_the_smoother_has_the_period_of_the_core() -> None:
    moving = Motion((0.0, 0.0, 0.0), (0.1, 0.0, 0.0), (0.0, 0.0, 0.0))
    for ms in (5, 10):
        after = Tools.of(config(dt_ns=ms * MS)).smoother.brake(moving)
        assert after.velocity[0] == pytest.approx(0.1 - 300.0 * (ms * 1e-3) ** 2 / 2)


def test_a_pose_at_the_very_side_of_the_workspace_is_inside() -> None:
    reach_m = UPPER_M + FORE_M
    assert Tools.of(with_body(shaped(low=(-1.0, -1.0, -1.0), high=(reach_m, 1.0, 1.0)))).body is not None


def test_a_pose_too_near_to_something_refuses_the_start():
    down = (0.0, -0.6, 0.0)
    with pytest.raises(ConfigError, match=r"at the park pose .* fore and floor would be 38\.8 mm apart"):
        Tools.of(with_body(shaped(table_clearance_m=0.05), park_pose=down))


def test_a_pose_outside_the_workspace_refuses_the_start():
    with pytest.raises(
        ConfigError, match=r"at the start pose .* x = 550\.0 mm, the workspace is -100 \.\. 500 mm"
    ):
        Tools.of(with_body(shaped(low=(-0.1, -1.0, -1.0), high=(0.5, 1.0, 1.0))))
