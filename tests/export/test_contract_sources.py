"""Names, units, order and rate from files beside the checkpoint; whatever is left open is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.export.errors import SourceError
from holdfast.export.sources.contract import (
    DatasetInfo,
    RobotContract,
    joint_name,
    read_contract_file,
    read_dataset,
    read_robot_contract,
)
from holdfast.export.sources.types import ReadOptions
from holdfast.runtime.bundle.schema import Normalisation

pytestmark = pytest.mark.export
NAMES = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
ACTION = [{"name": n, "unit": "deg" if n != "gripper" else "0_100_of_range"} for n in NAMES]
FULL = {"robot_type": "so101", "rate_hz": 30, "space": "joint_position", "action": ACTION}


def info(version: str = "v3.0", **changes: Any) -> dict[str, Any]:
    """As LeRobot writes it; the names of format 2.0 stood under one key."""
    names: Any = [f"{name}.pos" for name in NAMES]
    if version == "v2.0":
        names = {"motors": [f"main_{name}" for name in NAMES]}
    joints = {"dtype": "float32", "shape": [6], "names": names}
    return {
        "codebase_version": version,
        "robot_type": "so101",
        "fps": 30,
        "features": {
            "action": joints,
            "observation.state": joints,
            "observation.images.front": {
                "dtype": "video",
                "shape": [480, 640, 3],
                "names": ["height", "width", "channels"],
            },
            "observation.images.wrist": {"dtype": "image", "shape": [480, 640, 3], "names": None},
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        },
        **changes,
    }


@pytest.fixture
def files(tmp_path: Path) -> Any:
    """Options of files with some contents; None leaves one away."""

    def write(contract: Any = None, dataset: Any = None, **more: Any) -> ReadOptions:
        options: dict[str, Any] = dict(more)
        if contract is not None:
            options["contract"] = tmp_path / "contract.yaml"
            options["contract"].write_text(
                contract if isinstance(contract, str) else yaml.safe_dump(contract)
            )
        if dataset is not None:
            options["dataset"] = tmp_path / "data"
            (tmp_path / "data" / "meta").mkdir(parents=True, exist_ok=True)
            text = dataset if isinstance(dataset, str) else json.dumps(dataset)
            (tmp_path / "data" / "meta" / "info.json").write_text(text)
        return ReadOptions(**options)

    return write


def read(options: ReadOptions, actions: int = 6, states: int = 6) -> RobotContract:
    return read_robot_contract(options, actions, states)


def refusal(options: ReadOptions, actions: int = 6, states: int = 6) -> str:
    with pytest.raises(SourceError) as caught:
        read(options, actions, states)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_contract_says_it_all(files: Any) -> None:
    found = read(files(FULL))
    assert (found.robot_type, found.space, found.origin) == ("so101", "joint_position", "contract.yaml")
    assert found.dt_s == pytest.approx(1 / 30)
    assert [element.name for element in found.action] == NAMES
    assert [element.unit for element in found.state] == [row["unit"] for row in ACTION]
    assert not any(element.relative for element in found.action)
    norm = Normalisation(source="identity", offset=[0.0] * 6, scale=[1.0] * 6)
    assert found.action_contract(16, norm).steps == 16
    state = found.state_contract(norm)
    assert state is not None
    assert [element.name for element in state.elements] == NAMES
    assert found.state_contract(None) is None


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_the_dataset_says_robot_and_rate_and_vouches_for_the_order(files: Any, version: str) -> None:
    less = {key: value for key, value in FULL.items() if key not in ("robot_type", "rate_hz")}
    found = read(files(less, info(version)))
    assert found.robot_type == "so101"
    assert found.dt_s == pytest.approx(1 / 30)
    assert found.origin == "contract.yaml and data"
    swapped = {**less, "action": [ACTION[1], ACTION[0], *ACTION[2:]]}
    assert "the order is that of the policy's numbers" in refusal(files(swapped, info(version)))


def test_the_dataset_alone_has_no_units(files: Any) -> None:
    said = refusal(files(None, info()))
    assert "a LeRobot dataset says no units" in said
    assert "{name: shoulder_pan, unit: deg}" in said
    assert "--contract" in said


def test_nothing_at_all_says_what_to_write(files: Any) -> None:
    said = refusal(files())
    assert "names, units and order of the 6 actions are not known" in said
    assert "pm100_of_range" in said


@pytest.mark.parametrize(
    ("contract", "dataset", "said"),
    [
        ({**FULL, "robot_type": None}, None, "the robot type is not known"),
        ({**FULL, "rate_hz": None}, None, "the time between two actions, in s, is not known"),
        ({**FULL, "robot_type": "so100"}, info(), "'so100' by the contract and 'so101' by the dataset"),
        ({**FULL, "rate_hz": 50}, info(), "the time between two actions, in s, is 0.02 by the contract"),
        ({**FULL, "dt_s": 0.02}, None, "rate_hz and dt_s"),
        ({**FULL, "action": ACTION[:5]}, None, "names 5 elements of the actions, the policy has 6"),
        ({**FULL, "state": ACTION[:5]}, None, "names 5 elements of the states, the policy has 6"),
        ({**FULL, "state": [{**ACTION[0], "relative": True}]}, None, "never relative"),
        ({**FULL, "action": [{"name": "a"}]}, None, "action.0.unit"),
        ({**FULL, "action": [{"name": "a", "unit": "degrees"}]}, None, "action.0.unit"),
        ({**FULL, "space": "joint"}, None, "space"),
        ({**FULL, "space": "joint_delta"}, None, "say it of gripper"),
        ({**FULL, "surprise": 1}, None, "surprise"),
        ("[1, 2", None, "is no YAML"),
        ("just text", None, "not valid"),
        ("", None, "not valid"),
        ("!!python/object/apply:os.system ['true']", None, "is no YAML"),
        ("[" * 2000, None, "contract"),
        (FULL, "{", "is no description"),
        (FULL, "[]", "is no description"),
        (FULL, {"fps": 30}, "is no description"),
        (FULL, info(fps="thirty"), "not a text and a number"),
        (FULL, info(fps=0), "no rate"),
        (FULL, info(robot_type=7), "not a text and a number"),
        (FULL, info(features={"action": {"dtype": "float32", "shape": [6], "names": [1, 2]}}),
         "expected a list"),
        (FULL, info(features={"action": {"dtype": "float32", "shape": [5], "names": NAMES}}), "ambiguous"),
        (FULL, info(features={"action": {"dtype": "float32", "shape": [2], "names": ["a", "a.pos"]}}),
         "ambiguous"),
    ],
)  # fmt: skip
def test_what_is_missing_or_contradicts_itself(files: Any, contract: Any, dataset: Any, said: str) -> None:
    assert said in refusal(files(contract, dataset))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(ReadOptions(contract=tmp_path / "no.yaml"))
    assert "info.json cannot be read" in refusal(ReadOptions(dataset=tmp_path))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    assert "no text" in refusal(ReadOptions(contract=tmp_path / "bytes.yaml"))


def test_the_command_line_may_name_the_robot(files: Any) -> None:
    assert read(files({**FULL, "robot_type": None}, robot_type="so100")).robot_type == "so100"


def test_deltas_are_relative_unless_an_element_says_otherwise(files: Any) -> None:
    rows = [*ACTION[:5], {**ACTION[5], "relative": False}]
    found = read(files({**FULL, "space": "joint_delta", "action": rows}))
    assert [element.relative for element in found.action] == [True] * 5 + [False]


def test_actions_of_the_tool_have_their_convention(files: Any) -> None:
    names = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
    units = ["m"] * 3 + ["rad"] * 3 + ["normalised_gripper"]
    rows = [{"name": n, "unit": u, "relative": n != "gripper"} for n, u in zip(names, units, strict=True)]
    pose = {"frame": "base", "rotation": "rpy"}
    found = read(files({**FULL, "space": "ee_delta", "action": rows, "pose": pose}), 7, 0)
    norm = Normalisation(source="identity", offset=[0.0] * 7, scale=[1.0] * 7)
    assert found.action_contract(1, norm).pose is not None
    assert found.state == ()


def test_cameras_of_a_dataset(files: Any) -> None:
    found = read_dataset(files(None, info()).dataset)
    assert found.cameras == ("front", "wrist")
    assert isinstance(found, DatasetInfo)


def test_names_of_lerobot() -> None:
    assert joint_name("main_shoulder_pan") == joint_name("shoulder_pan.pos") == "shoulder_pan"
    assert joint_name("gripper") == "gripper"


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_are_read_or_refused_in_one_line(data: st.DataObject, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    contract, dataset = json.loads(json.dumps([FULL, info()]))
    for tree in (
        contract,
        dataset,
        dataset["features"],
        dataset["features"]["action"],
        contract["action"][0],
    ):
        if data.draw(st.booleans()):
            tree[data.draw(st.sampled_from(sorted(tree)))] = data.draw(_plain)
    (folder / "meta").mkdir()
    (folder / "meta" / "info.json").write_text(json.dumps(dataset))
    (folder / "c.yaml").write_text(json.dumps(contract))
    try:
        read_robot_contract(ReadOptions(contract=folder / "c.yaml", dataset=folder), 6, 6)
        read_contract_file(folder / "c.yaml")
    except SourceError as error:
        lines = str(error).splitlines()
    else:
        lines = ["read"]
    assert len(lines) == 1
