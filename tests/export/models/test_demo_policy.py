"""The demo policy's network and the checkpoint that comes with Holdfast."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from holdfast.drivers.robots.schema import load_robot
from holdfast.export.models.demo.checkpoint import MODEL, OBSERVATIONS
from holdfast.export.models.demo.keypoint_vla import KeypointVLA, KeypointVLAConfig
from holdfast.export.sources.demo import read_checkpoint

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def checkpoint():
    return read_checkpoint(MODEL)


def inputs(batch: int = 2):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (batch, 96, 96, 3), generator=generator, dtype=torch.uint8)
    return image, torch.rand(batch, 6, generator=generator) * 2 - 1


def test_an_instruction_of_padding_alone_gives_finite_actions(checkpoint):
    image, state = inputs()
    with torch.inference_mode():
        out = checkpoint.network(image, state, torch.zeros(2, 6, dtype=torch.int64))
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
        first, second = checkpoint.network, read_checkpoint(MODEL).network
        assert torch.equal(first(image, state, tokens), second(image, state, tokens))


def test_the_checkpoint_says_everything_about_its_inputs_and_outputs(checkpoint):
    robot = load_robot("sim_arm")
    header = checkpoint.header
    contract = header.action_contract
    assert contract.names == list(robot.joint_names)
    assert contract.units == [joint.unit for joint in robot.joints]
    assert contract.relative == [True] * 5 + [False]
    assert np.shape(header.action_statistics.scale) == (16, 6)
    assert header.camera.name == "front"
    words = {word for task in header.tasks for word in task.split()}
    assert words == set(header.vocabulary)
    assert sorted(header.vocabulary.values()) == list(range(1, len(words) + 1))
    assert len(header.training["data_sha256"]) == 64
    assert header.training["command"].startswith("vla-train fit")


def test_the_recorded_observations_fit_the_network(checkpoint):
    with np.load(OBSERVATIONS, allow_pickle=False) as recorded:
        image, state, text = recorded["image"], recorded["state"], recorded["text"]
    assert len(image) >= 32
    assert image.dtype == np.uint8
    assert image.shape[1:] == (96, 96, 3)
    assert state.shape == (len(image), 6)
    assert {len(image), len(text)} == {len(image)}
    assert set(map(str, text)) <= set(checkpoint.header.tasks)
    assert len(np.unique(image.reshape(len(image), -1), axis=0)) == len(image)
    assert OBSERVATIONS.stat().st_size < 1_500_000
    assert MODEL.stat().st_size < 6_000_000
