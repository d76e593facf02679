"""What pi0 and pi0.5 share beyond the suite: words, guidance, tied weights, Pillow's rounding, real sizes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.export.errors import SourceError
from holdfast.export.models.decoder import DecoderSize
from holdfast.export.models.pi0 import Denoise, Pi0Size, Prefill, Vision, names, untied
from holdfast.export.models.pictures import Camera
from holdfast.export.models.pillow import PillowResize
from holdfast.export.models.siglip import VisionSize
from holdfast.export.parity import make_inputs, to_feed, to_units
from holdfast.export.sessions import TorchGraph
from holdfast.export.sources.lerobot import read_folder
from holdfast.export.sources.pi0 import PI0, PI05
from holdfast.export.sources.types import Policy
from holdfast.export.sources.weights import renamed
from holdfast.runtime.policy.bpe import BpeEncoder
from holdfast.runtime.policy.errors import InstructionError
from holdfast.runtime.policy.programs.flow import Prefix
from holdfast.runtime.policy.programs.registry import make_runner

from ..suite import FAMILIES, TOLERANCE, Case, observation

TOKENIZER = {"tokenizer": FAMILIES / "pi0" / "tokenizer"}
SOURCES = {"pi0": PI0, "pi05": PI05}
both = pytest.mark.parametrize("family", SOURCES)
# Of lerobot 0.4.4's own, without the expert's lm_head, which nothing reads.
PARAMETERS = {"pi0": 3_238_048_528, "pi05": 3_353_433_872}


def read(family: str, folder: Path, name: str = "two_cameras") -> tuple[Case, Policy]:
    case = Case(FAMILIES / family / name, 7, 9, options=TOKENIZER)
    return case, SOURCES[family].read(case.path, case.read_options(folder))


@both
def test_a_hundred_odd_instructions_have_the_originals_tokens(family: str, tmp_path: Path) -> None:
    with np.load(FAMILIES / family / "tokens.npz") as arrays:
        golden = dict(arrays)
    _, policy = read(family, tmp_path)
    spec: Any = policy.task.tokenizer
    encoder = BpeEncoder(spec, policy.files[spec.file])
    states: list[Any] = [None] * len(golden["text"])
    if family == "pi05":
        low, high = (golden[name].astype(np.float64) for name in ("q01", "q99"))
        states = list((2 * (golden["state"] - low) / (high - low) - 1).astype(np.float32))
    refused = 0
    for text, state, tokens, mask in zip(
        golden["text"], states, golden["tokens"], golden["token_mask"], strict=True
    ):
        if not str(text).strip():
            with pytest.raises(InstructionError):
                encoder.encode(str(text), state)
            refused += 1
            continue
        ids, seen = encoder.encode(str(text), state)
        assert np.array_equal(ids[0], tokens), text
        assert np.array_equal(seen[0], mask), text
    assert refused < 6 < 90 < len(golden["text"])


@both
def test_openpi_reads_the_same_tokens(family: str, tmp_path: Path) -> None:
    case, policy = read(family, tmp_path, "openpi")
    inputs = make_inputs(policy)
    for i in range(len(case.golden["actions"])):
        feed = to_feed(policy, inputs, observation(policy, case.golden, i))
        for name in ("tokens", "token_mask"):
            assert np.array_equal(feed[name][0], case.golden[name][i]), name


@both
def test_a_chunk_under_way_is_continued_as_in_the_original(family: str, tmp_path: Path) -> None:
    with np.load(FAMILIES / family / "guided.npz") as arrays:
        guided = dict(arrays)
    case, policy = read(family, tmp_path)
    step: Any = policy.components["denoise_step_guided"].module
    step.max_weight = float(guided["max_weight"])
    sessions = {name: TorchGraph(component) for name, component in policy.components.items()}
    runner = make_runner(policy.program, policy.components, sessions, policy.action)
    inputs, rows = make_inputs(policy), []
    for i in range(len(guided["actions"])):
        feed = to_feed(policy, inputs, observation(policy, case.golden, i))
        prefix = guided_prefix(guided, i, policy)
        rows.append(runner.run(feed, case.golden["noise"][i], prefix))
    error = np.abs(to_units(np.concatenate(rows), policy.action) - guided["actions"]).max((0, 1))
    assert (error <= TOLERANCE * guided["sensitivity"]).all(), error / guided["sensitivity"]
    apart = np.abs(guided["actions"] - guided["actions.as_is"]).max()
    assert apart > 100 * guided["sensitivity"].max()


def guided_prefix(guided: Mapping[str, Any], index: int, policy: Policy) -> Any:
    program: Any = policy.program
    steps, elements = guided["prefix"][index].shape
    prefix = np.zeros((1, program.horizon, program.width), np.float32)
    prefix[0, :steps, :elements] = guided["prefix"][index]
    return Prefix(prefix, guided["prefix_weight"][index][None, :, None])


def tied(family: str = "pi0") -> dict[str, torch.Tensor]:
    return dict(read_folder(FAMILIES / family / "two_cameras").tensors)


def test_words_are_read_by_either_name_of_the_tied_matrix() -> None:
    tensors = tied()
    (head,) = (name for name in tensors if name.endswith("paligemma.lm_head.weight"))
    embeddings = head.replace("lm_head", "model.language_model.embed_tokens")
    only_embeddings = {embeddings if name == head else name: value for name, value in tensors.items()}
    for given in (tensors, only_embeddings, {**tensors, embeddings: tensors[head].clone()}):
        found = renamed(untied(given), names(3))
        assert torch.equal(found["prefill.embed_tokens.weight"], tensors[head])
    with pytest.raises(ValueError, match="differ"):
        untied({**tensors, embeddings: tensors[head] + 1})


def test_weights_that_are_missing_or_unknown_are_refused(tmp_path: Path) -> None:
    from holdfast.export.sources.pi0_networks import read_networks

    tensors = tied()
    told = {"cameras": (), "fit": "lerobot", "tokens": 48, "state": 9, "horizon": 7}
    for name in sorted(tensors):
        if "gemma_expert.lm_head" in name or any(
            part in name
            for part in ("layers.2.mlp", "layers.2.post", "q_proj", "o_proj", "language_model.norm")
        ):
            continue  # of the last layer they have no use
        missing = {other: value for other, value in tensors.items() if other != name}
        with pytest.raises(SourceError):
            read_networks(tmp_path, missing, told)
    with pytest.raises(SourceError, match=r"unknown|no part"):
        read_networks(
            tmp_path, {**tensors, "model.paligemma_with_expert.adapter.weight": torch.ones(2)}, told
        )


@pytest.mark.parametrize("sizes", [((36, 48), (168, 224)), ((480, 640), (168, 224)), ((53, 35), (53, 21))])
def test_resizing_is_pillows_to_the_last_bit(sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    image = pytest.importorskip("PIL.Image")
    before, after = sizes
    pixels = np.random.default_rng(0).integers(0, 256, (*before, 3), dtype=np.uint8)
    pixels[: before[0] // 2] //= 128  # many ties
    wanted = np.asarray(image.fromarray(pixels).resize(after[::-1], resample=image.BILINEAR))
    found = PillowResize(before, after)(torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None])
    assert np.array_equal(found[0].permute(1, 2, 0).numpy(), wanted)


def real_size(adaptive: bool) -> Pi0Size:
    gemma = DecoderSize(2048, 8, 1, 256, 16384, 1e-6, "gelu_pytorch_tanh", True)
    camera = Camera("base_0_rgb", 224, 224, (0.0,) * 3, (1.0,) * 3)
    return Pi0Size(
        cameras=(camera,) * 3, picture=224, fit="openpi", vision=VisionSize(1152, 16, 27, 4304, 14, 16),
        vocabulary=257152, tokens=200 if adaptive else 48, state=14, max_state=32, max_action=32, horizon=50,
        text=gemma, expert=replace(gemma, width=1024, feedforward=4096), layers=18, adaptive=adaptive,
    )  # fmt: skip


@both
def test_real_sizes_have_the_originals_number_of_parameters(family: str) -> None:
    with torch.device("meta"):
        parts = [kind(real_size(family == "pi05")) for kind in (Vision, Prefill, Denoise)]
    count = sum(value.numel() for part in parts for value in part.parameters())
    # What the original has besides: PaliGemma's last layer but for its keys and values, and its last norm.
    attention, mlp = 2 * 2048 * 2048, 3 * 2048 * 16384
    assert count + attention + mlp + 2 * 2048 == PARAMETERS[family]


def test_a_folder_of_openpi_says_what_is_missing(tmp_path: Path) -> None:
    case, _ = read("pi0", tmp_path, "openpi")
    options, said = case.read_options(tmp_path), json.loads((case.path / "config.json").read_text())
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(case.path / "model.safetensors")
    with pytest.raises(SourceError, match="action_horizon"):
        PI0.read(folder, options)
    (folder / "config.json").write_text(json.dumps({**said, "cameras": {"top": [36, 48]}}))
    with pytest.raises(SourceError, match="cameras top"):
        PI0.read(folder, options)
    (folder / "config.json").write_text(json.dumps(said))
    with pytest.raises(SourceError, match="norm_stats"):
        PI0.read(folder, options)
