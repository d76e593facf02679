"""SmolVLA's networks: as lerobot's own, guided as the paper says, and graphs of bounded size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tokenizers import Tokenizer

from holdfast.export.errors import SourceError
from holdfast.export.graphs import quiet
from holdfast.export.models.guidance import guidance_weight
from holdfast.export.models.smolvla import Denoise, Prefill, SmolVlaSize, Vision, drifted_places
from holdfast.export.sources import smolvla
from holdfast.export.sources.lerobot import STATE, PolicyFolder, read_folder
from holdfast.export.sources.smolvla import NUMERICS, Networks, read_networks
from holdfast.export.sources.smolvlm import SMOLVLM2_500M, read_smolvlm

pytestmark = pytest.mark.export
HERE = Path(__file__).parent
VLM = HERE / "vlm"
MODEL = read_smolvlm("", HERE, VLM)
RIGHT, DRIFTED = NUMERICS
CASES = ("two_cameras", "two_cameras_v03", "options")
NODES = {"vision": 120, "prefill": 260, "denoise_step": 300, "denoise_step_guided": 750}
Feed = dict[str, torch.Tensor]


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(HERE / f"{name}.npz") as stored:
        return dict(stored)


class Original:
    """A checkpoint and its golden."""

    def __init__(self, case: str, numerics: str) -> None:
        self.golden = arrays(case)
        self.folder: PolicyFolder = read_folder(HERE / case)
        self.config, self.networks = read_networks(self.folder, MODEL.sizes, MODEL.tokenizer, numerics)
        self._tokenizer = Tokenizer.from_buffer(MODEL.tokenizer)
        self._state = self.folder.before.affine(self.folder.vector(STATE))

    def observation(self, sample: int) -> Feed:
        ids = self._tokenizer.encode(f"{self.golden['text'][sample]}\n").ids
        padding = self.config.tokenizer_max_length - len(ids)
        state = (self.golden["state"][sample].astype(np.float64) - self._state.offset) / self._state.scale
        pictures = {name: value[sample][None] for name, value in self.golden.items() if "image." in name}
        return {
            **{name: torch.from_numpy(value) for name, value in pictures.items()},
            "tokens": torch.tensor([ids + [2] * padding]),
            "token_mask": torch.tensor([[1] * len(ids) + [0] * padding]),
            "state": torch.from_numpy(state.astype(np.float32))[None],
        }

    def feed(self, sample: int, prefix: Feed | None = None) -> Feed:
        """Everything that any of the graphs takes, with the noise as x."""
        feed = self.observation(sample)
        feed |= run(self.networks, "vision", feed)
        feed |= run(self.networks, "prefill", feed)
        noise = torch.from_numpy(self.golden["noise"][sample])
        return {**feed, "x": noise, "time": torch.tensor([1.0]), **(prefix or {})}

    def chunk(self, sample: int, prefix: Feed | None = None) -> np.ndarray:
        feed, steps = self.feed(sample, prefix), self.config.num_steps
        for step in range(steps):
            feed["time"] = torch.tensor([1 - step / steps])
            moved = run(self.networks, "denoise_step_guided" if prefix else "denoise_step", feed)
            feed["x"] = feed["x"] - moved["velocity"] / steps
        return self.in_units(feed["x"])

    def in_units(self, x: torch.Tensor) -> np.ndarray:
        action = self.folder.vector("action")
        affine = self.folder.after.affine(action, inverse=True)
        return x[0, :, : action.shape[0]].double().numpy() * affine.scale + affine.offset


INPUTS = {
    "prefill": ("image_embeddings", "tokens", "token_mask", "state"),
    "denoise_step": ("x", "time", "token_mask", "keys", "values"),
    "denoise_step_guided": ("x", "time", "token_mask", "keys", "values", "prefix", "prefix_weight"),
}
OUTPUTS = {"vision": ("image_embeddings",), "prefill": ("keys", "values")}


def taken(graph: str, feed: Feed) -> Feed:
    return {name: feed[name] for name in INPUTS.get(graph) or [name for name in feed if "image." in name]}


def run(networks: Networks, graph: str, feed: Feed) -> Feed:
    with torch.no_grad():
        out = getattr(networks, graph)(**taken(graph, feed))
    return dict(zip(OUTPUTS.get(graph, ("velocity",)), out, strict=True))


@pytest.fixture(scope="module")
def original() -> Original:
    return Original("two_cameras", RIGHT)


@pytest.fixture(scope="module")
def prefix() -> Feed:
    return prefix_of(0)


def prefix_of(sample: int) -> Feed:
    guided = arrays("guided")
    padded = np.pad(guided["prefix"][sample], ((0, 0), (0, 3)))
    weight = guided["prefix_weight"][sample][:, None]
    return {"prefix": torch.from_numpy(padded)[None], "prefix_weight": torch.from_numpy(weight)[None]}


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("case", CASES)
def test_actions_are_the_originals_in_both_numerics(case: str, numerics: str) -> None:
    ours, mode = Original(case, numerics), "" if numerics == DRIFTED else ".right_positions"
    for sample, wanted in enumerate(ours.golden[f"actions{mode}"]):
        error = np.abs(ours.chunk(sample) - wanted).max(0)
        assert (error <= 10 * ours.golden[f"sensitivity{mode}"]).all(), error


@pytest.mark.parametrize("case", CASES)
def test_the_golden_tells_the_two_numerics_apart(case: str) -> None:
    ours = Original(case, RIGHT)
    error = np.abs(ours.chunk(0) - ours.golden["actions"][0]).max(0)
    assert (error > 100 * ours.golden["sensitivity"]).any()


def test_guided_actions_are_the_originals(original: Original) -> None:
    guided = arrays("guided")
    for sample, wanted in enumerate(guided["actions"]):
        error = np.abs(original.chunk(sample, prefix_of(sample)) - wanted).max(0)
        assert (error <= 10 * guided["sensitivity"]).all(), error


def test_the_original_as_it_is_takes_the_network_for_constant(original: Original) -> None:
    """What lerobot 0.4.4 computes is its own simplification: the same loop without the network's gradient."""
    guided, sample = arrays("guided"), 0
    feed = original.feed(sample, prefix_of(sample))
    for step in range(original.config.num_steps):
        feed["time"] = time = torch.tensor([1 - step / original.config.num_steps])
        velocity = run(original.networks, "denoise_step", feed)["velocity"]
        pull = (feed["prefix"] - (feed["x"] - time * velocity)) * feed["prefix_weight"]
        feed["x"] = feed["x"] - (velocity - guidance_weight(time, 10.0) * pull) / original.config.num_steps
    error = np.abs(original.in_units(feed["x"]) - guided["actions.as_is"][sample]).max(0)
    assert (error <= 10 * guided["sensitivity.as_is"]).all(), error


@pytest.mark.parametrize("time", [1.0, 0.6, 0.2])
def test_guidance_is_plain_automatic_differentiation(original: Original, prefix: Feed, time: float) -> None:
    feed = {**original.feed(1, prefix), "time": torch.tensor([time])}
    x = feed["x"].clone().requires_grad_()
    (velocity,) = original.networks.denoise_step(**{**taken("denoise_step", feed), "x": x})
    actions = x - time * velocity
    error = ((feed["prefix"] - actions) * feed["prefix_weight"]).detach()
    (pull,) = torch.autograd.grad((actions * error).sum(), x)
    weight = min(10.0, ((1 - time) ** 2 + time**2) / max(time * (1 - time), 1e-9))
    found = run(original.networks, "denoise_step_guided", feed)["velocity"]
    torch.testing.assert_close(found, (velocity - weight * pull).detach(), rtol=1e-5, atol=1e-5)


def test_a_weight_of_zero_guides_nowhere(original: Original, prefix: Feed) -> None:
    feed = original.feed(1, {**prefix, "prefix_weight": torch.zeros(1, 7, 1)})
    plain, guided = (run(original.networks, graph, feed) for graph in ("denoise_step", "denoise_step_guided"))
    torch.testing.assert_close(guided["velocity"], plain["velocity"])


@pytest.mark.timeout(400)  # an export takes seconds, or minutes on a machine that is busy
@pytest.mark.parametrize("graph", NODES)
def test_a_graph_gives_what_the_network_gives(original: Original, prefix: Feed, graph: str) -> None:
    feed = original.feed(2, prefix)
    feed["time"] = torch.tensor([0.4])
    model = to_onnx(getattr(original.networks, graph), taken(graph, feed), OUTPUTS.get(graph, ("velocity",)))
    assert len(model.graph.node) <= NODES[graph]
    onnx.checker.check_model(model)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    assert onnx.TensorProto.DOUBLE not in {value.type.tensor_type.elem_type for value in values}
    assert onnx.TensorProto.DOUBLE not in {tensor.data_type for tensor in model.graph.initializer}
    session = onnxruntime.InferenceSession(model.SerializeToString())
    other = {**original.feed(3, prefix_of(3)), "time": torch.tensor([0.8])}  # not what it was traced with
    found = session.run(None, {name: value.numpy() for name, value in taken(graph, other).items()})
    for value, (name, wanted) in zip(found, run(original.networks, graph, other).items(), strict=True):
        scale = float(wanted.abs().max())
        assert np.abs(np.asarray(value) - wanted.numpy()).max() <= 1e-5 * scale, name


def to_onnx(module: torch.nn.Module, feed: Feed, outputs: tuple[str, ...]) -> onnx.ModelProto:
    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *values: torch.Tensor) -> Any:
            return self.module(**dict(zip(feed, values, strict=True)))

    with quiet():
        program = torch.onnx.export(
            Named(), tuple(feed.values()), dynamo=True, input_names=list(feed), output_names=list(outputs),
            opset_version=18, external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    return program.model_proto


def test_tokens_are_the_originals() -> None:
    """By tokenizer.json alone; the hundred texts hold what people, and keyboards, may write."""
    tokenizer, golden = Tokenizer.from_buffer(MODEL.tokenizer), arrays("tokens")
    assert len(golden["text"]) >= 100
    for text, ids, mask in zip(golden["text"], golden["tokens"], golden["mask"], strict=True):
        found = tokenizer.encode(text if text.endswith("\n") else f"{text}\n").ids
        assert found == ids[: len(found)].tolist()
        assert mask.tolist() == [1] * len(found) + [0] * (len(mask) - len(found))


def test_the_time_embedding_is_exact_in_float32(original: Original) -> None:
    config, width = original.config, original.networks.size.expert.width
    times = torch.linspace(0, 1, 997)
    share = torch.linspace(0, 1, width // 2, dtype=torch.float64)
    period = config.min_period * (config.max_period / config.min_period) ** share
    angle = times.double()[:, None] * (2 * np.pi / period)[None]
    wanted = torch.cat([angle.sin(), angle.cos()], -1)
    found = original.networks.denoise_step.time(times)
    assert found.dtype == torch.float32
    assert float((found - wanted).abs().max()) < 5e-7


def test_positions_drift_for_all_patches_but_the_first() -> None:
    drifted = drifted_places(32, 32)
    assert int((drifted == torch.arange(1024)).sum()) == 1


def test_the_real_size_has_the_published_number_of_weights(original: Original) -> None:
    """The default SmolVLAConfig on SmolVLM2-500M: 450 M, of which the language model's head, its last layer's
    output and its norm are not needed."""
    size = real_size(original)
    with torch.device("meta"):
        parts = Vision(size), Prefill(size), Denoise(size)
    count = sum(weight.numel() for part in parts for weight in part.parameters())
    text = SMOLVLM2_500M.text_config
    head = text.hidden_size * text.vocab_size
    last = 2 * text.hidden_size**2 + 3 * text.hidden_size * text.intermediate_size + text.hidden_size
    assert count + head + last + text.hidden_size == 450_046_176


def real_size(original: Original) -> SmolVlaSize:
    raw = {
        **original.folder.config, "chunk_size": 50, "max_state_dim": 32, "max_action_dim": 32,
        "tokenizer_max_length": 48, "resize_imgs_with_padding": [512, 512], "num_vlm_layers": 16,
    }  # fmt: skip
    folder = replace(original.folder, config=raw)
    config = folder.settings(smolvla.SmolVlaConfig, smolvla.ONLY_TRAINING)
    return smolvla.policy_size(folder, config, SMOLVLM2_500M, MODEL.tokenizer, RIGHT)


def damaged(folder: PolicyFolder, **changes: Any) -> str:
    wrong = replace(folder, **changes)
    with pytest.raises(SourceError) as caught:
        read_networks(wrong, MODEL.sizes, MODEL.tokenizer, RIGHT)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_and_settings_that_do_not_fit_are_refused(original: Original) -> None:
    folder, tensors = original.folder, dict(original.folder.tensors)
    assert "unknown" in damaged(folder, tensors={**tensors, "model.extra.weight": torch.zeros(2)})
    assert "extra" in damaged(folder, tensors={**tensors, "extra.weight": torch.zeros(2)})
    name = "model.vlm_with_expert.lm_expert.layers.1.self_attn.k_proj.weight"
    assert "missing" in damaged(folder, tensors={k: v for k, v in tensors.items() if k != name})
    for key, value, said in (
        ("adapt_to_pi_aloha", True, "adapt_to_pi_aloha"),
        ("use_cache", False, "use_cache"),
        ("resize_imgs_with_padding", None, "resize_imgs_with_padding"),
        ("resize_imgs_with_padding", [64, 60], "squares"),
        ("num_expert_layers", 3, "layers"),
        ("expert_width_multiplier", 0.5, "shape"),
        ("max_action_dim", 6, "max_action_dim"),
        ("max_state_dim", 8, "max_state_dim"),
    ):
        assert said in damaged(folder, config={**folder.config, key: value}), key


def test_an_unknown_language_model_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"someone/model.*config\.json.*--tokenizer"):
        read_smolvlm("someone/model", tmp_path, None)
    (tmp_path / "config.json").write_text('{"model_type": "smolvlm", "text_config": {"hidden_size": "x"}}')
    with pytest.raises(SourceError, match="does not know") as caught:
        read_smolvlm("someone/model", tmp_path, tmp_path)
    assert "\n" not in str(caught.value)


def test_of_a_known_language_model_only_the_tokenizer_is_needed(tmp_path: Path) -> None:
    name = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
    with pytest.raises(SourceError, match=rf"{name}/resolve/main/tokenizer\.json"):
        read_smolvlm(name, tmp_path, None)
    assert read_smolvlm(name, tmp_path, VLM / "tokenizer.json").sizes == SMOLVLM2_500M
