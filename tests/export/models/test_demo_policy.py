"""The demo policy's network and the checkpoint that comes with Holdfast."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from holdfast.drivers.robots.schema import load_robot
from holdfast.export.models.demo.checkpoint import (
    MODEL,
    OBSERVATIONS,
    CheckpointError,
    build_model,
    load_checkpoint,
)
from holdfast.export.models.demo.keypoint_vla import KeypointVLA, KeypointVLAConfig
from holdfast.runtime.bundle.schema import ImageSpec

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(MODEL)


def inputs(batch: int = 2):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (batch, 96, 96, 3), generator=generator, dtype=torch.uint8)
    return image, torch.rand(batch, 6, generator=generator) * 2 - 1


def test_an_instruction_of_padding_alone_gives_finite_actions(checkpoint):
    image, state = inputs()
    with torch.inference_mode():
        out = build_model(checkpoint)(image, state, torch.zeros(2, 6, dtype=torch.int64))
    assert out.shape == (2, 16, 6)
    assert torch.isfinite(out).all()


def test_every_token_matters_to_an_untrained_network_and_padding_does_not():
    torch.manual_seed(0)
    model = KeypointVLA(KeypointVLAConfig(vocabulary=9, token_length=4, steps=16, joints=6)).eval()
    image, state = inputs(1)
    with torch.inference_mode():
        one = model(image, state, torch.tensor([[1, 2, 3, 0]]))
        other = model(image, state, torch.tensor([[1, 2, 4, 0]]))
        model.words.place[3] += 1.0
        same = model(image, state, torch.tensor([[1, 2, 3, 0]]))
    assert not torch.allclose(one, other)
    torch.testing.assert_close(one, same)


def test_the_same_inputs_give_the_same_actions(checkpoint):
    image, state = inputs()
    tokens = torch.ones(2, 6, dtype=torch.int64)
    with torch.inference_mode():
        first, second = build_model(checkpoint), build_model(checkpoint)
        assert torch.equal(first(image, state, tokens), second(image, state, tokens))


def test_the_checkpoint_says_everything_about_its_inputs_and_outputs(checkpoint):
    robot = load_robot("sim_arm")
    contract = checkpoint["action_contract"]
    assert contract["names"] == list(robot.joint_names)
    assert contract["units"] == [joint.unit for joint in robot.joints]
    assert contract["relative"] == [True] * 5 + [False]
    assert np.shape(checkpoint["action_statistics"]["scale"]) == (16, 6)
    assert ImageSpec.model_validate(checkpoint["camera"]).name == "front"
    words = {word for task in checkpoint["tasks"] for word in task.split()}
    assert words == set(checkpoint["vocabulary"])
    assert sorted(checkpoint["vocabulary"].values()) == list(range(1, len(words) + 1))
    assert len(checkpoint["training"]["data_sha256"]) == 64
    assert checkpoint["training"]["command"].startswith("vla-train fit")


def test_the_recorded_observations_fit_the_network(checkpoint):
    with np.load(OBSERVATIONS, allow_pickle=False) as recorded:
        image, state, text = recorded["image"], recorded["state"], recorded["text"]
    assert len(image) >= 32
    assert image.dtype == np.uint8
    assert image.shape[1:] == (96, 96, 3)
    assert state.shape == (len(image), 6)
    assert {len(image), len(text)} == {len(image)}
    assert set(map(str, text)) <= set(checkpoint["tasks"])
    assert len(np.unique(image.reshape(len(image), -1), axis=0)) == len(image)
    assert OBSERVATIONS.stat().st_size < 1_500_000
    assert MODEL.stat().st_size < 6_000_000


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half an archive"])
def test_something_else_than_a_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        load_checkpoint(path)


def test_a_checkpoint_of_another_version_is_refused(tmp_path, checkpoint):
    path = tmp_path / "model.pt"
    torch.save({**checkpoint, "version": 2}, path)
    with pytest.raises(CheckpointError, match="version 2"):
        load_checkpoint(path)
