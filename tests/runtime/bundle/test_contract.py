"""The contract check shows both sides and refuses every mismatch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.drivers.robots.schema import load_robot
from holdfast.runtime.bundle.contract import check_contract, match_cameras, require_contract
from holdfast.runtime.bundle.errors import BundleMismatch
from holdfast.runtime.bundle.schema import Bundle

from .programs import make_pose

ROBOT = load_robot("sim_arm")


def build(spec: dict[str, Any]) -> Bundle:
    listing = [
        {"path": p, "bytes": 0, "sha256": "0" * 64} for p in ("graphs/policy.onnx", "golden/observations.npz")
    ]
    return Bundle.model_validate({"format": "holdfast.bundle", "version": 2, **spec, "files": listing})


def rename_joints(spec: dict[str, Any], names: list[str]) -> None:
    for part in ("state", "action"):
        for element, name in zip(spec[part]["elements"], names, strict=True):
            element["name"] = name


def test_a_fitting_bundle_meets_every_row(spec: dict[str, Any]) -> None:
    rows = check_contract(build(spec), ROBOT, ["front"])
    assert [row.what for row in rows if not row.ok] == []
    require_contract(build(spec), rows)


SWAPPED = ["shoulder_lift", "shoulder_pan", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]


@pytest.mark.parametrize(
    ("change", "bad", "both"),
    [
        (lambda s: s.update(robot_type="so101"), {"robot type"}, ("so101", "sim_arm")),
        (lambda s: rename_joints(s, SWAPPED), {"joints of the action", "joints of the state"},
         ("shoulder_lift, shoulder_pan", "shoulder_pan, shoulder_lift")),
        (lambda s: s["action"]["elements"][0].update(unit="m"), {"units of the action"},
         ("shoulder_pan m", "shoulder_pan rad")),
        (lambda s: s["state"]["elements"][5].update(unit="rad"), {"units of the state"},
         ("gripper rad", "gripper 0_100_of_range")),
        (make_pose, {"action space"}, ("ee_delta", "joint_position")),
        (lambda s: s["action"].update(dt_s=0.005), {"rate"}, ("200 Hz", "100 Hz")),
    ],
)  # fmt: skip
def test_each_mismatch_is_named_with_both_sides(
    spec: dict[str, Any], change: Callable[[Any], object], bad: set[str], both: tuple[str, str]
) -> None:
    change(spec)
    rows = check_contract(build(spec), ROBOT, ["front"])
    assert {row.what for row in rows if not row.ok} == bad
    with pytest.raises(BundleMismatch) as caught:
        require_contract(build(spec), rows)
    assert all(side in str(caught.value) for side in both)
    assert "\n" not in str(caught.value)


def test_degrees_and_percent_are_convertible(spec: dict[str, Any]) -> None:
    for part in ("state", "action"):
        spec[part]["elements"][0]["unit"] = "deg"
        spec[part]["elements"][1]["unit"] = "pm100_of_range"
    assert all(row.ok for row in check_contract(build(spec), ROBOT, ["front"]))


def test_control_hz_overrides_the_robot_file(spec: dict[str, Any]) -> None:
    row = next(r for r in check_contract(build(spec), ROBOT, ["front"], control_hz=10) if r.what == "rate")
    assert not row.ok
    assert "--control-hz 20" in row.fix
    assert all(row.ok for row in check_contract(build(spec), ROBOT, ["front"], control_hz=20))


@pytest.mark.parametrize(
    ("given", "expected"),
    [(["front"], {"front": 0}), ([None], {"front": 0}), ([""], {"front": 0}), ([], None), (["wrist"], None),
     (["front", "wrist"], None), ([None, None], None)],
)  # fmt: skip
def test_cameras_of_a_single_camera_bundle(
    spec: dict[str, Any], given: Sequence[str | None], expected: object
) -> None:
    assert match_cameras(build(spec), given) == expected


def test_two_cameras_need_their_names(spec: dict[str, Any]) -> None:
    spec["cameras"].append({**spec["cameras"][0], "name": "wrist"})
    inputs = spec["graphs"]["policy"]["inputs"]
    inputs.append({**inputs[0], "name": "image.wrist"})
    assert match_cameras(build(spec), ["wrist", "front"]) == {"front": 1, "wrist": 0}
    assert match_cameras(build(spec), [None, "front"]) is None
    row = check_contract(build(spec), ROBOT, [None, None])[-1]
    assert "--camera front=SOURCE --camera wrist=SOURCE" in row.fix


def test_reading_a_bundle_needs_neither_torch_nor_onnxruntime(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, holdfast.runtime.bundle.reading, holdfast.runtime.bundle.contract; "
        "print([m for m in ('torch', 'onnxruntime', 'cv2', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
