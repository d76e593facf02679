"""The schedulers are the original's, number by number (golden/make_schedulers.py made the numbers)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from holdfast.runtime.bundle.npz import read_npz
from holdfast.runtime.bundle.schema import Scheduler
from holdfast.runtime.policy.programs.schedulers import Denoiser, betas, timesteps

GOLDEN = read_npz((Path(__file__).parent / "golden" / "schedulers.npz").read_bytes(), 1 << 24)
CASES = sorted({name.split("/")[0] for name in GOLDEN})
ULP = float(np.finfo(np.float32).eps)


def golden(name: str) -> tuple[Scheduler, dict[str, NDArray]]:
    spec = Scheduler.model_validate(json.loads(str(GOLDEN[f"{name}/spec"])))
    return spec, {key.split("/")[1]: array for key, array in GOLDEN.items() if key.startswith(f"{name}/")}


@pytest.mark.parametrize("name", CASES)
def test_betas_and_steps_are_the_originals(name: str) -> None:
    spec, original = golden(name)
    assert timesteps(spec) == original["timesteps"].tolist()
    found = betas(spec)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, original["betas"])


@pytest.mark.parametrize("name", CASES)
def test_every_step_of_an_inference_is_the_originals(name: str) -> None:
    """Fed with the original's predictions and noise, step after step on our own state."""
    spec, original = golden(name)
    assert len(original["noise"]) == spec.draws
    noises = iter(original["noise"][:, None])
    denoiser, x = Denoiser(spec), next(noises)
    for k, prediction in enumerate(original["predictions"]):
        x = denoiser.step(k, x, prediction, noises)
        assert x.dtype == np.float32
        largest = float(np.abs(original["states"][k]).max())
        np.testing.assert_allclose(x, original["states"][k], rtol=0, atol=16 * ULP * max(largest, 1.0))
    assert next(noises, None) is None, "all of the noise has been used"


SPECS = st.builds(
    lambda kind, train, share, eta, offset, schedule, prediction: Scheduler(
        kind=kind,
        train_steps=train,
        inference_steps=max(1, train // share),
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule=schedule,
        prediction=prediction,
        clip_sample=True,
        eta=eta,
        steps_offset=offset if share > 1 else 0,
    ),
    st.sampled_from(["ddpm", "ddim"]),
    st.integers(10, 200),
    st.integers(1, 10),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 1),
    st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"]),
    st.sampled_from(["epsilon", "sample"]),
)


@settings(max_examples=80, deadline=None)
@given(spec=SPECS, seed=st.integers(0, 2**32 - 1))
def test_a_perfect_prediction_leads_to_the_sample(spec: Scheduler, seed: int) -> None:
    """Given the clean sample, or the noise that belongs to it, the last step arrives there."""
    random = np.random.default_rng(seed)
    clean = random.uniform(-0.9, 0.9, (1, 4, 2)).astype(np.float32)
    noises = iter(random.normal(size=(spec.draws, 1, 4, 2)).astype(np.float32))
    denoiser, x = Denoiser(spec), next(noises)
    products = np.cumprod(1 - betas(spec).astype(np.float64))
    for k, t in enumerate(denoiser.timesteps):
        epsilon = (x - np.sqrt(products[t]) * clean) / np.sqrt(1 - products[t])
        prediction = clean if spec.prediction == "sample" else epsilon.astype(np.float32)
        x = denoiser.step(k, x, prediction, noises)
    assert next(noises, None) is None
    if spec.kind == "ddim" and spec.eta == 0:
        np.testing.assert_allclose(x, clean, atol=2e-3)
    assert np.isfinite(x).all()
