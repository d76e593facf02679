"""What a LeRobot folder says is read, in both formats; what it does not say, or says twice, is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.export.errors import SourceError
from holdfast.export.sources import act, diffusion
from holdfast.export.sources.lerobot import STATE, policy_type, read_folder
from holdfast.export.sources.lerobot_statistics import Feature, Statistics, split_buffers

pytestmark = pytest.mark.export
FAMILIES = Path(__file__).parent / "families"
NEW, OLD = FAMILIES / "act" / "two_cameras", FAMILIES / "act" / "two_cameras_v03"
VECTOR = Feature("observation.state", "STATE", (2,))


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """A checkpoint that may be damaged."""
    return lambda case: Path(shutil.copytree(case, tmp_path / "policy"))


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def read_all(path: Path) -> None:
    """Everything that a source reads."""
    folder = read_folder(path)
    {"act": act.read_network, "diffusion": diffusion.read_networks}[folder.kind](folder)
    folder.before.affine(folder.vector(STATE))
    folder.after.affine(folder.vector("action"), inverse=True)


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read_all(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_both_formats_say_the_same() -> None:
    new, old = read_folder(NEW), read_folder(OLD)
    assert [camera.name for camera in new.cameras] == ["top", "wrist_cam"]
    assert new.cameras == old.cameras
    assert set(new.tensors) == set(old.tensors)
    for statistics, name, inverse in (("before", STATE, False), ("after", "action", True)):
        a, b = (
            getattr(folder, statistics).affine(folder.vector(name), inverse=inverse) for folder in (new, old)
        )
        assert np.array_equal(a.offset, b.offset)
        assert np.array_equal(a.scale, b.scale)


def test_recognising_never_raises(copy: Callable[[Path], Path]) -> None:
    path = copy(NEW)
    assert policy_type(path) == "act"
    for text in ("", "[]", "{", '{"type": 3}', '{"type": "act"}', "[" * 9000):
        (path / "config.json").write_text(text)
        assert policy_type(path) is None
    assert policy_type(path / "config.json") is None
    assert policy_type(path / "absent") is None


@pytest.mark.parametrize(
    ("mode", "names"),
    [("MIN_MAX", ("min", "max")), ("QUANTILES", ("q01", "q99")), ("QUANTILE10", ("q10", "q90"))],
)
def test_a_range_becomes_minus_one_to_one(mode: str, names: tuple[str, str]) -> None:
    low, high = torch.tensor([-3.0, 4.0]), torch.tensor([5.0, 4.0])
    values = {STATE: dict(zip(names, (low, high), strict=True))}
    affine = Statistics(Path(), {"STATE": mode}, values).affine(VECTOR)
    raw = np.array([[-3.0, 4.0], [5.0, 4.0 + 1e-8]])
    assert np.allclose((raw - affine.offset) / affine.scale, [[-1, -1], [1, 1]], atol=1e-6)
    # As before 0.4: eps is added to the width, but only where values go in.
    old = Statistics(Path(), {"STATE": "MIN_MAX"}, {STATE: {"min": low, "max": high}}, 1e-2, old=True)
    assert np.allclose(old.affine(VECTOR).scale * 2, [8.01, 0.01])
    assert np.allclose(old.affine(VECTOR, inverse=True).scale * 2, [8, 0])


def test_the_epsilon_of_mean_and_spread_is_in_one_direction_only() -> None:
    values = {STATE: {"mean": torch.tensor([1.0, 2.0]), "std": torch.tensor([0.0, 3.0])}}
    statistics = Statistics(Path(), {"STATE": "MEAN_STD"}, values, 1e-3)
    assert statistics.affine(VECTOR).scale.tolist() == [1e-3, 3.001]
    assert statistics.affine(VECTOR, inverse=True).scale.tolist() == [0, 3]


def test_buffers_whose_names_are_ambiguous() -> None:
    one, two = (
        Feature("observation.images.a_b", "VISUAL", (3, 4, 4)),
        Feature("observation.images.a.b", "VISUAL", (3, 4, 4)),
    )
    tensors = {"normalize_inputs.buffer_observation_images_a_b.mean": torch.zeros(3, 1, 1)}
    values, rest = split_buffers(Path(), tensors, [one])
    assert list(values["normalize_inputs"]) == ["observation.images.a_b"]
    assert not rest
    with pytest.raises(SourceError, match="would share their statistics"):
        split_buffers(Path(), tensors, [one, two])
    with pytest.raises(SourceError, match="belong to no feature"):
        split_buffers(Path(), tensors, [VECTOR])


def set_in(*keys: Any, value: Any) -> Callable[[Any], None]:
    def change(table: Any) -> None:
        for key in keys[:-1]:
            table = table[key]
        table[keys[-1]] = value

    return change


CONFIG, BEFORE, AFTER = "config.json", "policy_preprocessor.json", "policy_postprocessor.json"
TOP, PICTURE = "observation.images.top", {"type": "VISUAL", "shape": [3, 8, 8]}
ENV = {"type": "ENV", "shape": [3]}
NORM = ("steps", 3, "config")


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (CONFIG, set_in("type", value=None), "does not say a `type`"),
        (CONFIG, set_in("use_peft", value=True), "adapters"),
        (CONFIG, set_in("dim_model", value=0), "dim_model"),
        (CONFIG, set_in("dim_model", value="16"), "dim_model"),
        (CONFIG, set_in("dim_model", value=24), "do not fit"),
        (CONFIG, set_in("n_heads", value=3), "3 heads"),
        (CONFIG, set_in("chunk_size", value=12), "has shape [11, 16] instead of [12, 16]"),
        (CONFIG, set_in("n_encoder_layers", value=3), "is missing"),
        (CONFIG, set_in("n_encoder_layers", value=1), "is unknown"),
        (CONFIG, set_in("feedforward_activation", value="glu"), "feedforward_activation"),
        (CONFIG, set_in("vision_backbone", value="resnet19"), "resnet19"),
        (CONFIG, set_in("vision_backbone", value="resnet50"), "conv3"),
        (CONFIG, set_in("something_new", value=1), "something_new"),
        (CONFIG, set_in("input_features", value={}), "no input_features"),
        (CONFIG, set_in("input_features", "observation.state", "shape", value=[0]), "observation.state"),
        (CONFIG, set_in("input_features", "observation.state", "type", value="ENV"), "needs pictures"),
        (CONFIG, set_in("input_features", "observation.more", value=ENV), "needs pictures"),
        (CONFIG, set_in("output_features", value={"other": {"type": "ACTION", "shape": [7]}}), "action out"),
        (CONFIG, set_in("input_features", TOP, "shape", value=[1, 36, 48]), "a picture"),
        (CONFIG, set_in("input_features", "observation.images.new", value=PICTURE), "`mean` is missing"),
        (BEFORE, set_in(*NORM, "norm_map", "STATE", value="MEDIAN"), "'MEDIAN', which this version"),
        (BEFORE, set_in(*NORM, "norm_map", value=3), "expected a table"),
        (BEFORE, set_in(*NORM, "eps", value=0), "eps"),
        (BEFORE, set_in("steps", 3, "state_file", value="absent.safetensors"), "absent.safetensors"),
        (BEFORE, set_in("steps", 3, "state_file", value="../../secret"), "would lie in"),
        (BEFORE, set_in("steps", 3, "state_file", value=None), "is missing"),
        (BEFORE, set_in("steps", 2, "registry_name", value="crop"), "'crop'"),
        (BEFORE, set_in("steps", 2, "registry_name", value=None), "a step of its own"),
        (BEFORE, set_in("steps", 2, "config", "float_dtype", value="bfloat16"), "bfloat16"),
        (BEFORE, set_in("steps", 3, "registry_name", value="device_processor"), "0 steps normalizer"),
        (BEFORE, set_in("steps", value=3), "no steps"),
        (BEFORE, set_in("steps", 0, "config", "rename_map", value={"a": "x", "b": "x"}), "ambiguous"),
        (AFTER, set_in("steps", 1, "registry_name", value="clip"), "'clip'"),
        (AFTER, set_in("steps", 0, "config", "norm_map", "ACTION", value="QUANTILES_"), "QUANTILES_"),
    ],
)  # fmt: skip
def test_what_is_refused(
    copy: Callable[[Path], Path], file: str, change: Callable[[Any], None], said: str
) -> None:
    path = copy(NEW)
    edit(path / file, change)
    assert said in refusal(path)


def test_cameras_have_the_names_that_the_robot_gave_them(copy: Callable[[Path], Path]) -> None:
    path = copy(NEW)
    renames = {"observation.images.ceiling": "observation.images.top"}
    edit(path / BEFORE, set_in("steps", 0, "config", "rename_map", value=renames))
    assert [camera.name for camera in read_folder(path).cameras] == ["ceiling", "wrist_cam"]


def test_statistics_that_were_never_set(copy: Callable[[Path], Path]) -> None:
    path = copy(OLD)
    data = bytearray((path / "model.safetensors").read_bytes())
    folder = read_folder(path)
    spread = folder.before.values[STATE]["std"]
    at = data.find(spread.numpy().tobytes())
    data[at : at + 4] = np.float32(np.inf).tobytes()
    (path / "model.safetensors").write_bytes(data)
    assert "`std` of observation.state was never set" in refusal(path)


def test_files_that_are_not_there_or_there_twice(copy: Callable[[Path], Path]) -> None:
    path = copy(OLD)
    shutil.copy(NEW / BEFORE, path)
    assert "statistics twice" in refusal(path)
    (path / BEFORE).unlink()
    (path / "model.safetensors").unlink()
    assert "model.safetensors" in refusal(path)
    (path / "config.json").unlink()
    assert "config.json" in refusal(path)


def test_weights_in_several_files(copy: Callable[[Path], Path]) -> None:
    path = copy(NEW)
    (path / "model.safetensors").rename(path / "a.safetensors")
    names = list(read_folder(NEW).tensors)
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "a.safetensors")}))
    act.read_network(read_folder(path))
    for weight_map, said in (
        (
            {**dict.fromkeys(names, "a.safetensors"), "more": "a.safetensors"},
            "disagree about the weight more",
        ),
        (dict.fromkeys(names, "../a.safetensors"), "does not say"),
        (None, "does not say"),
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        assert said in refusal(path)


SMALL = [FAMILIES / "act" / "options", FAMILIES / "diffusion" / "ddim"]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), case=st.sampled_from(SMALL))
def test_any_damage_gives_a_policy_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, case: Path
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "policy"
    shutil.copytree(case, path)
    file = data.draw(st.sampled_from(sorted(path.iterdir())))
    good = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, min(len(good), 4000) - 1))
    if data.draw(st.booleans()):
        good = good[:at]
    else:
        good[at] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(good)
    said = ""
    try:
        read_all(path)
    except SourceError as error:
        said = str(error)
    assert "\n" not in said
