"""From a LeRobot folder and a contract to a `Policy`: what neither of them says is not made up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from holdfast.export.errors import SourceError
from holdfast.export.sources import act, diffusion
from holdfast.export.sources.lerobot import read_folder
from holdfast.export.sources.lerobot_policy import LEAST_SCALE

from .families.suite import FAMILIES, Case

pytestmark = pytest.mark.export
ACT, DIFFUSION = Case(FAMILIES / "act" / "options", 5, 5), Case(FAMILIES / "diffusion" / "ddim", 5, 9)
BEFORE = "policy_preprocessor.json"


def test_names_units_and_rate_are_the_contracts(tmp_path: Path) -> None:
    policy = diffusion.read(DIFFUSION.path, DIFFUSION.read_options(tmp_path))
    assert policy.robot_type == "test_arm"
    assert [element.name for element in policy.action.elements] == [f"joint_{i}" for i in range(5)]
    assert policy.state is not None
    assert len(policy.state.elements) == 9
    assert policy.action.dt_s == 0.05
    assert policy.history is not None
    assert (policy.history.steps, policy.history.dt_s) == (3, 0.05)
    assert [(camera.name, camera.height, camera.width) for camera in policy.cameras] == [
        ("left", 41, 53),
        ("right", 41, 53),
    ]
    assert policy.evidence.kind == "synthetic"
    assert "contract.yaml" in policy.notes


def test_an_element_that_never_moved_stays_at_its_mean(tmp_path: Path) -> None:
    path = tmp_path / "policy"
    case = Case(FAMILIES / "act" / "two_cameras", 7, 9)
    shutil.copytree(case.path, path)
    spread = read_folder(path).after.values["action"]["std"].numpy().copy()
    file = path / "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
    still = spread.copy()
    still[2] = 0
    data = file.read_bytes()
    assert data.count(spread.tobytes()) == 1
    file.write_bytes(data.replace(spread.tobytes(), still.tobytes()))
    policy = act.read(path, case.read_options(tmp_path))
    scale = np.array(policy.action.normalisation[0].scale)
    assert scale[2] == LEAST_SCALE
    assert np.allclose(np.delete(scale, 2), np.delete(spread, 2))


def test_temporal_ensembling_proposes_a_strategy(tmp_path: Path) -> None:
    path = tmp_path / "policy"
    shutil.copytree(ACT.path, path)
    options = ACT.read_options(tmp_path)
    assert act.read(path, options).execution is None
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "temporal_ensemble_coeff": 0.01}))
    hint = act.read(path, options).execution
    assert hint is not None
    assert hint.strategy == "ensemble"


@pytest.mark.parametrize("name", ["two words", "-", ""])
def test_a_camera_that_cannot_be_called_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / "policy"
    shutil.copytree(ACT.path, path)
    steps = json.loads((path / BEFORE).read_text())
    steps["steps"][0]["config"]["rename_map"] = {f"observation.images.{name}": "observation.images.front"}
    (path / BEFORE).write_text(json.dumps(steps))
    with pytest.raises(SourceError, match="cannot be called so") as caught:
        act.read(path, ACT.read_options(tmp_path))
    assert "\n" not in str(caught.value)
