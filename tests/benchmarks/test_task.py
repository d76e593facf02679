"""The closed loop in stepped time: the demo policy does its tasks, and not without its inputs."""

from __future__ import annotations

import argparse
import json

import pytest

pytest.importorskip("mujoco")
pytest.importorskip("torch")

from holdfast.benchmarks import task
from holdfast.benchmarks.closed_loop import SimulatedLoop
from holdfast.benchmarks.policies import TorchPolicy
from holdfast.drivers.simulated.world import World
from holdfast.export.models.demo.checkpoint import MODEL

pytestmark = [pytest.mark.sim, pytest.mark.export]

SEED = 2_000_000


@pytest.fixture(scope="module")
def loop() -> SimulatedLoop:
    return SimulatedLoop(TorchPolicy(MODEL), World(0))


@pytest.mark.parametrize("name", ["touch", "pick"])
def test_the_demo_policy_does_its_tasks(loop, name):
    attempts = [loop.attempt(SEED + seed, name) for seed in range(3)]
    assert [a.stop for a in attempts] == [""] * 3
    assert sum(a.verdict.success for a in attempts) >= 2


def test_an_attempt_is_reproducible(loop):
    assert loop.attempt(SEED, "touch") == loop.attempt(SEED, "touch")


def test_a_blank_picture_fails(loop):
    blank = [loop.attempt(SEED + seed, "pick", check="blank").verdict.success for seed in range(2)]
    assert not any(blank)


def test_another_name_leads_to_another_cube(loop):
    for seed in range(2):
        attempt = loop.attempt(
            SEED + seed, "touch", check="other_name", judge=lambda verdict: bool(verdict.touched)
        )
        assert attempt.named != attempt.colour
        assert attempt.verdict.touched[:1] == (attempt.named,)


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    task.add_arguments(parser)
    return parser.parse_args(words)


def test_the_verb_prints_results_with_their_interval(capsys):
    words = (str(MODEL), "-n", "1", "--delay", "60", "--json", "--processes", "1")
    assert task.main(arguments(*words)) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["task"] for row in rows] == ["touch", "pick"]
    assert all(row["low"] <= row["successes"] / row["attempts"] <= row["high"] for row in rows)


def test_something_that_is_no_policy_is_a_usage_error(tmp_path, capsys):
    path = tmp_path / "model.pt"
    path.write_bytes(b"not a checkpoint")
    assert task.main(arguments(str(path))) == 2
    assert "not a torch file" in capsys.readouterr().err
    assert task.main(arguments(str(tmp_path / "missing.pt"))) == 2
