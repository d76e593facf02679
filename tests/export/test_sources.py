"""What is no checkpoint is refused with a reason, and nothing in a file is ever run."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.export.errors import SourceError
from holdfast.export.models.demo.checkpoint import MODEL
from holdfast.export.sources import demo
from holdfast.export.sources.registry import find_source, locate
from holdfast.export.sources.types import ReadOptions

pytestmark = pytest.mark.export
Save = Callable[..., Path]


def refusal(path: Path, observations: Path | None = None) -> str:
    with pytest.raises(SourceError) as caught:
        demo.read(path, ReadOptions(observations=observations))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_checkpoint_is_read_completely(save: Save) -> None:
    policy = demo.read(save(), ReadOptions())
    assert policy.action.elements[0].name == "shoulder_pan"
    assert [element.relative for element in policy.action.elements] == [True] * 5 + [False]
    assert len(policy.action.normalisation) == 16
    assert policy.components["policy"].outputs[0].shape == [1, 16, 6]
    assert len(policy.observations) == 32
    assert not policy.components["policy"].module.training


class Malicious:
    """Unpickling this creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    torch.save({"format": Malicious(mark)}, tmp_path / "model.pt")
    assert "would run code" in refusal(tmp_path / "model.pt")
    assert not mark.exists()


def test_truncated_and_flipped_files(save: Save) -> None:
    path = save()
    good = path.read_bytes()
    for size in (0, 10, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:size])
        assert "truncated" in refusal(path)
    for at in range(200, len(good), len(good) // 20):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        try:
            demo.read(path, ReadOptions())
        except SourceError:
            continue
        # Only padding between the records of the archive is no part of the checkpoint.
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "somebody.else"}, "not of a family"),
        ({"version": 99}, "version 99"),
        ({"architecture": "other"}, "architecture 'other'"),
        ({"state_dict": None}, "no state_dict"),
        ({"surprise": 1}, "surprise"),
        ({"tasks": []}, "examples"),
        ({"config": {}}, "no network can be built"),
        ({"config": {"vocabulary": 6, "token_length": 6, "steps": 16, "joints": 6, "hidden": 1 << 40}}, ""),
        ({"config": {"vocabulary": 6, "token_length": 6, "steps": -1, "joints": 6}}, ""),
        ({"token_length": 7}, "token_length is 7, its network has 6"),
        ({"vocabulary": {"touch": 1, "cube": 7}}, "largest word id is 7"),
        ({"action_statistics": {"offset": [[0.0] * 6], "scale": [[1.0] * 6]}}, "rows of action offsets is 1"),
        ({"robot_type": 3}, "robot_type"),
        ({"state_statistics": {"offset": [0.0] * 6, "scale": [0.0] * 6}}, "scale"),
        ({"state_statistics": {"offset": [0.0] * 5, "scale": [1.0] * 4}}, "state.normalisation"),
        ({"action_statistics": {"offset": [[0.0] * 6], "scale": [[float("nan")] * 6]}}, "finite"),
    ],
)
def test_wrong_contents(save: Save, changes: dict[str, Any], said: str) -> None:
    assert said in refusal(save(**changes))


def test_weights_that_do_not_fit(save: Save) -> None:
    from .conftest import make_values

    values = make_values()
    weights = values["state_dict"]
    name = "outward.bias"
    for wrong, said in (
        ({**weights, name: torch.full_like(weights[name], float("nan"))}, "not finite"),
        ({**weights, name: weights[name].half()}, "not finite float32"),
        ({**weights, name: torch.zeros(3)}, "outward.bias [3] instead of [96]"),
        ({k: v for k, v in weights.items() if k != name}, "outward.bias"),
    ):
        assert said in refusal(save(values, state_dict=wrong))


def test_other_files(tmp_path: Path, save: Save) -> None:
    path = save()
    with (
        zipfile.ZipFile(path) as archive,
        zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for name in archive.namelist():
            out.writestr(name, archive.read(name))
    assert "compressed archive" in refusal(tmp_path / "z.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    assert "holds a list" in refusal(tmp_path / "list.pt")
    torch.save({"model_state_dict": {}, "optimizer_state_dict": {}}, tmp_path / "training.pt")
    assert "looks like a training checkpoint" in refusal(tmp_path / "training.pt")
    (tmp_path / "notes.txt").write_text("not a checkpoint")
    with pytest.raises(SourceError, match="no checkpoint that this version reads"):
        find_source(tmp_path / "notes.txt")


def test_names_of_shipped_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("demo") == MODEL
    (tmp_path / "demo").mkdir()
    assert locate("demo") == MODEL, "a folder of that name hides nothing"
    (tmp_path / "demo").rmdir()
    (tmp_path / "demo").write_text("a file wins")
    assert locate("demo") == Path("demo")
    with pytest.raises(SourceError, match=r"model\.pt does not exist"):
        locate("model.pt")


def test_flipped_bits_in_the_observations(save: Save, tmp_path: Path) -> None:
    path, other = save(), tmp_path / "other.npz"
    good = (tmp_path / "observations.npz").read_bytes()
    for at in range(5, len(good), len(good) // 40):
        other.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        try:
            demo.read(path, ReadOptions(observations=other))
        except SourceError:
            continue


def test_the_default_task_is_one_that_the_policy_knows(save: Save) -> None:
    assert demo.read(save(), ReadOptions()).task.default == "touch the red cube"
    assert demo.read(MODEL, ReadOptions()).task.default == demo.DEFAULT_TASK


def test_observations_that_cannot_be_used(save: Save, tmp_path: Path) -> None:
    path = save()
    other = tmp_path / "other.npz"
    assert "cannot be read" in refusal(path, other)
    np.savez(other, image=np.zeros([2, 4, 4, 3], np.uint8), state=np.zeros([2, 6]))
    assert "text" in refusal(path, other)
    np.savez(other, image=np.zeros([2, 4, 4, 3], np.uint8), state=np.zeros([2, 7]), text=np.array(["a", "b"]))
    assert "expected uint8 [N, h, w, 3], finite [N, 6]" in refusal(path, other)
    for state in (
        np.zeros(2),
        np.float64(3),
        np.array([[None]]),
        np.zeros([2, 6], "U3"),
        np.full([2, 6], np.nan),
    ):
        np.savez(other, image=np.zeros([2, 4, 4, 3], np.uint8), state=state, text=np.array(["a", "b"]))
        assert str(other) in refusal(path, other)
    np.savez(other, image=np.array([object()]), state=np.zeros([1, 6]), text=np.array(["a"]))
    assert "cannot be read" in refusal(path, other)
