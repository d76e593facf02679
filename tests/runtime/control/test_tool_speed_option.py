"""`--max-tool-speed` and the robot file's own limit: the smaller counts."""

from __future__ import annotations

import pytest

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.errors import ConfigError
from holdfast.drivers.robots.schema import Robot, load_robot, robot_path
from holdfast.drivers.units import JointUnits
from holdfast.runtime.control.config import CoreConfig, core_config


def robot(**control: float | None) -> Robot:
    made = load_robot("sim_arm")
    return made.model_copy(update={"control": made.control.model_copy(update=control)})


def config_of(made: Robot, option: float | None) -> CoreConfig:
    calibration = find_calibration(load_robot("sim_arm"), robot_folder=robot_path("sim_arm").parent)
    units = JointUnits(made, calibration)
    return core_config(
        made, units, control_hz=None, chunk_steps=8, chunk_dt_ns=50_000_000, tool_speed_m_s=option
    )


@pytest.mark.parametrize(
    ("file", "option", "limit"),
    [(None, None, None), (0.25, None, 0.25), (None, 0.1, 0.1), (0.25, 0.1, 0.1), (0.1, 0.25, 0.1)],
)
def test_the_smaller_counts(file: float | None, option: float | None, limit: float | None):
    config = config_of(robot(tool_speed_m_s=file), option)
    assert config.tool_speed_m_s == limit
    assert config.kinematic.velocity == config_of(robot(tool_speed_m_s=limit), None).kinematic.velocity


def test_without_a_body_it_is_refused():
    with pytest.raises(ConfigError, match="has no body"):
        config_of(robot().model_copy(update={"body": None}), 0.25)
