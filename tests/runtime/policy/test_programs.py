"""The programs run their graphs in order, fed by name; the graphs are functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from holdfast.runtime.bundle.schema import Bundle, Diffusion, Flow, observed
from holdfast.runtime.policy.errors import NonFiniteAction
from holdfast.runtime.policy.programs.base import Prefix, Runner
from holdfast.runtime.policy.programs.flow import prefix_weights, times
from holdfast.runtime.policy.programs.registry import make_runner
from holdfast.runtime.policy.programs.schedulers import Denoiser

from ..bundle.programs import diffusion_spec, flow_spec, tokens_spec, validate

Arrays = Mapping[str, NDArray[Any]]
Function = Callable[[Arrays], dict[str, NDArray[Any]]]


class Graph:
    """Checks that it is fed as declared, keeps what it was fed, and answers by a function."""

    def __init__(self, spec: Bundle, name: str, function: Function, log: list[str]) -> None:
        self.spec, self.name, self.function, self.log = spec.graphs[name], name, function, log
        self.fed: list[Arrays] = []

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        given = {name: (str(a.dtype), list(a.shape)) for name, a in inputs.items()}
        assert given == {t.name: (t.dtype, t.shape) for t in self.spec.inputs}
        self.log.append(self.name)
        self.fed.append({name: np.array(a) for name, a in inputs.items()})
        zeros = {t.name: np.zeros(t.shape, t.dtype) for t in self.spec.outputs}
        return zeros | self.function(inputs)


class Rig:
    def __init__(self, values: dict[str, Any], **functions: Function) -> None:
        self.spec = validate(values)
        self.log: list[str] = []
        self.graphs = {
            name: Graph(self.spec, name, functions.get(name, lambda _: {}), self.log)
            for name in self.spec.graphs
        }
        self.watched: list[str] = []
        spec = self.spec
        self.runner: Runner = make_runner(
            spec.program,
            spec.graphs,
            self.graphs,
            spec.action,
            lambda name, inputs, outputs: self.watched.append(name),
        )
        tensors = observed(spec.cameras, spec.history, spec.state, spec.task).values()
        self.feed = {t.name: np.full(t.shape, 2, t.dtype) for t in tensors}
        shape = spec.program.noise_shape(spec.action)
        self.noise = None if shape is None else np.full(shape, 0.5, np.float32)


def test_flow_runs_vision_and_prefill_once_and_integrates_the_velocity() -> None:
    """With the velocity x - 3 t the Euler steps can be done by hand."""
    rig = Rig(
        flow_spec(),
        prefill=lambda f: {"key.0": np.full((1, 4, 5, 3), 7, np.float32)},
        denoise_step=lambda f: {"velocity": f["x"] - 3 * f["time"]},
    )
    found = rig.runner.run(rig.feed, rig.noise)
    assert rig.log == rig.watched == ["vision", "prefill", *["denoise_step"] * 5]
    assert found.shape == (1, 16, 6)
    assert found.dtype == np.float32
    x = 0.5
    for time in (1.0, 0.8, 0.6, 0.4, 0.2):
        x += -0.2 * (x - 3 * time)
    assert found == pytest.approx(x, abs=1e-6)
    steps = rig.graphs["denoise_step"].fed
    assert [float(fed["time"][0]) for fed in steps] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert all((fed["key.0"] == 7).all() and (fed["state"] == 2).all() for fed in steps)
    assert all(fed["x"].dtype == np.float32 for fed in steps)


def test_the_chunk_is_the_first_steps_and_elements_of_the_state() -> None:
    index = np.arange(20 * 8, dtype=np.float32).reshape(1, 20, 8)
    rig = Rig(flow_spec(), denoise_step=lambda f: {"velocity": -index})
    np.testing.assert_allclose(
        rig.runner.run(rig.feed, np.zeros((1, 20, 8), np.float32)), index[:, :16, :6], rtol=1e-5
    )


def test_times_are_computed_or_summed_in_float32() -> None:
    exact = Flow(kind="flow", steps=10, width=8, horizon=20)
    summed = exact.model_copy(update={"time_sums": True})
    assert times(exact).tolist() == [np.float32(1 - k / 10) for k in range(10)]
    dt, time, expected = np.float32(-0.1), np.float32(1.0), []
    for _ in range(10):
        expected.append(time)
        time = np.float32(time + dt)
    assert times(summed).tolist() == expected
    assert (times(exact) != times(summed)).any()
    assert np.abs(times(exact) - times(summed)).max() < 1e-6


@pytest.mark.parametrize(("start", "end"), [(1.0, 0.0), (0.0, 1.0), (0.999, 0.001)])
def test_time_runs_from_where_to_where_the_bundle_says(start: float, end: float) -> None:
    values = flow_spec()
    values["program"] |= {"time_from": start, "time_to": end}
    rig = Rig(values, denoise_step=lambda f: {"velocity": np.ones_like(f["x"])})
    found = rig.runner.run(rig.feed, rig.noise)
    assert found == pytest.approx(0.5 + end - start, abs=1e-6)
    assert float(rig.graphs["denoise_step"].fed[0]["time"][0]) == pytest.approx(start)


def prefix() -> Prefix:
    return Prefix(np.full((1, 20, 8), 4, np.float32), prefix_weights(2, 10, 20))


def test_guidance_goes_to_the_guided_graph_where_there_is_one() -> None:
    rig = Rig(flow_spec(guided=True), denoise_step_guided=lambda f: {"velocity": -f["prefix"]})
    assert rig.runner.run(rig.feed, rig.noise, prefix()) == pytest.approx(4.5, abs=1e-6)
    assert rig.log[2:] == ["denoise_step_guided"] * 5
    rig.log.clear()
    rig.runner.run(rig.feed, rig.noise)
    assert rig.log[2:] == ["denoise_step"] * 5
    plain = Rig(flow_spec())
    plain.runner.run(plain.feed, plain.noise, prefix())
    assert plain.log[2:] == ["denoise_step"] * 5


@pytest.mark.parametrize(
    ("delay", "left", "horizon"), [(0, 5, 10), (3, 8, 10), (4, 4, 10), (9, 3, 10), (2, 30, 10)]
)
def test_prefix_weights_are_one_then_fall_to_zero(delay: int, left: int, horizon: int) -> None:
    """W_i of arXiv 2506.07339 (5): 1 for i < d; c (e^c - 1) / (e - 1) with c = (H-s-i)/(H-s-d+1); then 0."""
    weight = prefix_weights(delay, left, horizon)
    assert weight.shape == (1, horizon, 1)
    end = min(left, horizon)
    start = min(delay, end)
    for i, found in enumerate(weight[0, :, 0]):
        c = (end - i) / (end - start + 1)
        expected = 1.0 if i < start else c * (np.exp(c) - 1) / (np.e - 1) if i < end else 0.0
        assert found == pytest.approx(expected, abs=1e-6)


def test_noise_is_the_programs_own_repeatable_and_pinnable() -> None:
    rig, other = Rig(flow_spec()), Rig(flow_spec())
    first, second = rig.runner.run(rig.feed), rig.runner.run(rig.feed)
    assert (first != second).any()
    assert abs(float(first.mean())) < 0.5
    assert float(first.std()) == pytest.approx(1, abs=0.3)
    np.testing.assert_array_equal(other.runner.run(other.feed), first)
    rig.runner.begin()
    np.testing.assert_array_equal(rig.runner.run(rig.feed), first)
    seeded = flow_spec()
    seeded["program"]["seed"] = 1
    differently = Rig(seeded)
    assert (differently.runner.run(differently.feed) != first).any()
    assert (rig.runner.run(rig.feed, rig.noise) == np.float32(0.5)).all()


@pytest.mark.parametrize("bad", [np.zeros((1, 20, 7), np.float32), np.zeros((1, 20, 8), np.float64)])
def test_noise_of_another_size_is_an_error(bad: Any) -> None:
    rig = Rig(flow_spec())
    with pytest.raises(ValueError, match="the noise is"):
        rig.runner.run(rig.feed, bad)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("make", "graph", "output"),
    [(flow_spec, "denoise_step", "velocity"), (diffusion_spec, "denoise_step", "prediction"),
     (tokens_spec, "prefill", "logits"), (tokens_spec, "decode_step", "logits")],
)  # fmt: skip
def test_what_is_not_finite_is_no_action(make: Any, graph: str, output: str, value: float) -> None:
    """Not even where a clip or a maximum would hide it."""
    spec = validate(make())
    shape = next(t.shape for t in spec.graphs[graph].outputs if t.name == output)
    wrong = np.zeros(shape, np.float32)
    wrong[..., :6] = value
    rig = Rig(make(), **{graph: lambda _: {output: wrong}})
    with pytest.raises(NonFiniteAction):
        rig.runner.run(rig.feed)


def test_diffusion_conditions_once_and_denoises_by_its_scheduler() -> None:
    rig = Rig(
        diffusion_spec(kind="ddpm"),
        cond=lambda f: {"condition": np.full((1, 32), float(f["state"].sum()), np.float32)},
        denoise_step=lambda f: {"prediction": 0.1 * f["x"] + f["condition"][0, 0] * 1e-3},
    )
    program = rig.spec.program
    assert isinstance(program, Diffusion)
    noise = np.random.default_rng(0).normal(size=(10, 16, 6)).astype(np.float32)
    found = rig.runner.run(rig.feed, noise)
    assert rig.log == ["cond", *["denoise_step"] * 10]
    denoiser, noises = Denoiser(program.scheduler), iter(noise[:, None])
    x = next(noises)
    for k in range(10):
        x = denoiser.step(k, x, (0.1 * x + np.float32(24) * np.float32(1e-3)).astype(np.float32), noises)
    np.testing.assert_allclose(found, x[:, 1:9], atol=1e-5)
    assert [int(fed["step"][0]) for fed in rig.graphs["denoise_step"].fed] == list(range(90, -1, -10))


def decoding_rig(**functions: Function) -> Rig:
    rig = Rig(tokens_spec(), **functions)
    rig.feed["token_mask"] = np.array([[1, 1, 1, 0, 0, 0, 0, 0]], np.int64)
    return rig


def logits_of(*ids: int, others: int = 86) -> NDArray[np.float32]:
    """High for `ids`, in falling order; highest of all for something that is no action."""
    out = np.zeros((1, 20), np.float32)
    for rank, token in enumerate(ids):
        out[0, token - 85] = 5 - rank
    return out


def test_tokens_are_decoded_greedily_through_the_cache() -> None:
    def decode(fed: Arrays) -> dict[str, NDArray[Any]]:
        cache = fed["key"].copy()
        cache[0, 0, fed["position"][0], 0] = fed["token"][0, 0]
        return {"logits": logits_of(int(fed["token"][0, 0]) - 1), "next.key": cache}

    rig = decoding_rig(prefill=lambda f: {"logits": logits_of(100, 90)}, decode_step=decode)
    found = rig.runner.run(rig.feed)
    assert rig.log == ["vision", "prefill", *["decode_step"] * 5]
    steps = rig.graphs["decode_step"].fed
    assert [int(fed["token"][0, 0]) for fed in steps] == [100, 99, 98, 97, 96]
    # Four positions of the picture, three tokens of the instruction; its padding is overwritten.
    assert [int(fed["position"][0]) for fed in steps] == [7, 8, 9, 10, 11]
    assert steps[-1]["key"][0, 0, 7:11, 0].tolist() == [100, 99, 98, 97]
    edges = np.linspace(-1, 1, 16)
    centres = (edges[:-1] + edges[1:]) / 2
    np.testing.assert_allclose(found[0, 0], centres[:6], atol=1e-6)


def test_tokens_that_are_no_actions_are_never_chosen() -> None:
    """Logits of ids 101 to 104 are outside the vocabulary of bins, and may be anything."""
    wild = np.zeros((1, 20), np.float32)
    wild[0, 16:] = [np.nan, np.inf, 9, 9]
    wild[0, 3] = 1
    rig = decoding_rig(prefill=lambda f: {"logits": wild}, decode_step=lambda f: {"logits": wild})
    rig.runner.run(rig.feed)
    assert [int(fed["token"][0, 0]) for fed in rig.graphs["decode_step"].fed] == [88] * 5


def test_a_forced_separator_is_written_into_the_cache_too() -> None:
    values = tokens_spec()
    values["program"]["vocabulary"] = {
        "bins": 3, "low": -1.0, "high": 1.0,
        "encoding": {"kind": "text_integers", "integers": [[90], [91], [92]], "separator": [93]},
    }  # fmt: skip
    rig = Rig(
        values, prefill=lambda f: {"logits": logits_of(91)}, decode_step=lambda f: {"logits": logits_of(91)}
    )
    found = rig.runner.run(rig.feed)
    assert [int(fed["token"][0, 0]) for fed in rig.graphs["decode_step"].fed] == [91, 93] * 5
    assert found == pytest.approx(0.5)
