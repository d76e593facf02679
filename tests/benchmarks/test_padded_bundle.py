"""A padded bundle gives the policy's own actions, later; how fast this machine is, no test asserts."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from holdfast.benchmarks.padded_bundle import pad_bundle
from holdfast.runtime.backends.registry import load_session
from holdfast.runtime.backends.types import BackendOptions
from holdfast.runtime.bundle.errors import BundleError
from holdfast.runtime.bundle.reading import load_bundle
from tests.runtime.tiny_bundle import STEPS, golden_inputs, write_tiny_bundle


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    actions = np.linspace(-0.1, 0.1, STEPS * 6, dtype=np.float32).reshape(STEPS, 6)
    return write_tiny_bundle(tmp_path / "plain.vla", actions)


def runs(bundle: Path, count: int) -> tuple[list[np.ndarray], list[float]]:
    """Actions and CPU times (ms) of `count` inferences in one session of the runtime's own backend."""
    loaded = load_bundle(bundle)
    graph = loaded.spec.graphs["policy"]
    session = load_session("onnxruntime", loaded.read(graph.file), graph, BackendOptions(1))
    actions, times = [], []
    for _ in range(count):
        start = time.thread_time()
        actions.append(session.run(golden_inputs())["actions"])
        times.append((time.thread_time() - start) * 1e3)
    return actions, times


def test_the_actions_are_the_policys_own_bit_for_bit(plain: Path, tmp_path: Path) -> None:
    padded = pad_bundle(plain, tmp_path / "padded.vla", 5, 15)
    (before,), _ = runs(plain, 1)
    after, _ = runs(padded, 5)
    assert all(np.array_equal(before, actions) for actions in after)


def test_inferences_take_cpu_time_that_varies_between_the_bounds(plain: Path, tmp_path: Path) -> None:
    _, times = runs(pad_bundle(plain, tmp_path / "padded.vla", 4, 40), 40)
    assert min(times) < 20 < max(times)
    assert np.median(times) > 4


def test_the_same_times_are_drawn_in_every_session(plain: Path, tmp_path: Path) -> None:
    padded = pad_bundle(plain, tmp_path / "padded.vla", 2, 40)
    (_, first), (_, second) = runs(padded, 20), runs(padded, 20)
    assert np.corrcoef(first, second)[0, 1] > 0.8


def test_what_cannot_be_padded_is_refused(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="the policy alone takes"):
        pad_bundle(plain, tmp_path / "faster.vla", 1e-6, 5)
    padded = pad_bundle(plain, tmp_path / "padded.vla", 5, 5)
    with pytest.raises(BundleError, match="padded already"):
        pad_bundle(padded, tmp_path / "twice.vla", 10, 10)
    with pytest.raises(BundleError, match="0 < low <= high"):
        pad_bundle(plain, tmp_path / "backwards.vla", 20, 10)
