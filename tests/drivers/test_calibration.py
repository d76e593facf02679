"""Finding LeRobot's calibrations and refusing those that cannot be right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.drivers.calibration import find_calibration, load_calibration
from holdfast.drivers.errors import ConfigError
from holdfast.drivers.robots.schema import load_robot, robot_names
from holdfast.drivers.units import JointUnits

SO101 = load_robot("so101")
GOOD: dict[str, dict[str, object]] = {
    "shoulder_pan": {"id": 1, "drive_mode": 0, "homing_offset": -1470, "range_min": 758, "range_max": 3292},
    "shoulder_lift": {"id": 2, "drive_mode": 0, "homing_offset": 961, "range_min": 862, "range_max": 3231},
    "elbow_flex": {"id": 3, "drive_mode": 0, "homing_offset": 1432, "range_min": 889, "range_max": 3102},
    "wrist_flex": {"id": 4, "drive_mode": 0, "homing_offset": -2047, "range_min": 871, "range_max": 3195},
    "wrist_roll": {"id": 5, "drive_mode": 0, "homing_offset": 44, "range_min": 0, "range_max": 4095},
    "gripper": {"id": 6, "drive_mode": 0, "homing_offset": 1111, "range_min": 2034, "range_max": 3520},
}


def write(path: Path, **changes: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {name: {**row, **changes.get(name, {})} for name, row in GOOD.items()}
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("name", ["so100", "so101"])
def test_a_lerobot_calibration_fits_the_robot_files(tmp_path: Path, name: str) -> None:
    robot = load_robot(name)
    calibration = load_calibration(write(tmp_path / "arm.json"), robot)
    assert [row.id for row in calibration.joints] == [1, 2, 3, 4, 5, 6]
    JointUnits(robot, calibration)


@pytest.mark.parametrize("name", robot_names())
def test_every_robot_file_is_valid(name: str) -> None:
    assert load_robot(name).name == name


@pytest.mark.parametrize(
    ("joint", "change", "words"),
    [
        ("gripper", {"id": 5}, "another robot"),
        ("gripper", {"drive_mode": 2}, "drive_mode"),
        ("gripper", {"homing_offset": 2048}, "homing_offset"),
        ("gripper", {"range_min": 3600}, "wraps the seam"),
        ("gripper", {"range_max": 4096}, "wraps the seam"),
        ("gripper", {"range_min": -20}, "wraps the seam"),
        ("elbow_flex", {"range_min": 0, "range_max": 4095}, "crossed the encoder's seam"),
        ("elbow_flex", {"range_min": 2040, "range_max": 2060}, "not moved"),
        ("elbow_flex", {"range_min": 2040.5}, "whole number"),
        ("elbow_flex", {"range_min": True}, "whole number"),
        ("elbow_flex", {"speed": 3}, "exactly the keys"),
    ],
)
def test_an_implausible_row_is_refused(
    tmp_path: Path, joint: str, change: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_calibration(write(tmp_path / "arm.json", **{joint: change}), SO101)
    assert joint in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"a": 1, "a": 2}', '{"shoulder_pan": {}}', "\xff"])
def test_a_malformed_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "arm.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"arm\.json"):
        load_calibration(path, SO101)


def test_lerobots_folder_is_searched(tmp_path: Path) -> None:
    path = write(tmp_path / "lerobot" / "calibration" / "robots" / "so101_follower" / "mine.json")
    assert find_calibration(SO101, environ={"HF_HOME": str(tmp_path)}).path == path
    own = write(tmp_path / "own" / "robots" / "so_follower" / "other.json")
    both = {"HF_HOME": str(tmp_path), "HF_LEROBOT_CALIBRATION": str(tmp_path / "own")}
    assert find_calibration(SO101, environ=both).path == own


def test_the_default_folder_is_under_home(tmp_path: Path) -> None:
    cache = tmp_path / ".cache" / "huggingface" / "lerobot" / "calibration" / "robots" / "so101_follower"
    path = write(cache / "mine.json")
    assert find_calibration(SO101, environ={"HOME": str(tmp_path)}).path == path


def test_several_are_refused_with_the_list_and_the_id_decides(tmp_path: Path) -> None:
    folder = tmp_path / "robots" / "so101_follower"
    first, second = write(folder / "left.json"), write(folder / "right.json")
    environ = {"HF_LEROBOT_CALIBRATION": str(tmp_path)}
    with pytest.raises(ConfigError, match="--robot-id") as caught:
        find_calibration(SO101, environ=environ)
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)
    assert find_calibration(SO101, robot_id="right", environ=environ).path == second
    with pytest.raises(ConfigError, match="plain name"):
        find_calibration(SO101, robot_id="../right", environ=environ)


def test_none_is_refused_with_the_way_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lerobot-calibrate --robot\.type=so101_follower"):
        find_calibration(SO101, environ={"HOME": str(tmp_path)})


def test_an_explicit_file_goes_first(tmp_path: Path) -> None:
    path = write(tmp_path / "arm.json")
    assert find_calibration(SO101, path, environ={}).path == path
    with pytest.raises(ConfigError, match="does not exist"):
        find_calibration(SO101, tmp_path / "none.json", environ={})


def test_the_robot_files_own_goes_before_lerobots(tmp_path: Path) -> None:
    write(tmp_path / "robots" / "sim_arm" / "mine.json")
    found = find_calibration(load_robot("sim_arm"), environ={"HF_LEROBOT_CALIBRATION": str(tmp_path)})
    assert found.path.name == "sim_arm.json"
