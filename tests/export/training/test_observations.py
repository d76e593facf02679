"""Which recorded moments travel with a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("torch")

from holdfast.export.training.demonstrations import Demonstrations
from holdfast.export.training.observations import COUNT, save_observations

pytestmark = [pytest.mark.sim, pytest.mark.export]


def moments(episodes: list[int], texts: list[str]) -> Demonstrations:
    n = len(episodes)
    return Demonstrations(
        image=np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8),
        state=np.arange(n, dtype=np.float32)[:, None] * np.ones((1, 6), np.float32),
        text=np.array(texts),
        action=np.zeros((n, 16, 6), np.float32),
        cube=np.zeros((n, 2), np.float32),
        episode=np.array(episodes),
    )


def test_only_held_out_episodes_and_every_instruction_are_chosen(tmp_path):
    path = tmp_path / "observations.npz"
    texts = ["a"] * 100 + ["b"] * 4 + ["c"] * 10
    count = save_observations(path, moments([9] * 104 + [3] * 10, texts), held_out=10)
    with np.load(path, allow_pickle=False) as recorded:
        assert count == len(recorded["image"]) == COUNT
        assert sorted(set(map(str, recorded["text"]))) == ["a", "b"]
        assert (recorded["text"] == "b").sum() == 4
        np.testing.assert_array_equal(recorded["image"][:, 0, 0, 0], recorded["state"][:, 0])


def test_without_held_out_episodes_it_refuses(tmp_path):
    with pytest.raises(ValueError, match="at least 20"):
        save_observations(tmp_path / "observations.npz", moments([1, 2], ["a", "a"]), held_out=20)
