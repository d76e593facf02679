"""OpenVLA answers as its own modelling code, from the raw picture to un-normalised actions."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import onnx
import torch
from numpy.typing import NDArray

from holdfast.export.errors import SourceError
from holdfast.export.graphs import export_graph
from holdfast.export.parity import make_inputs, to_feed
from holdfast.export.sessions import TorchGraph
from holdfast.export.sources import openvla
from holdfast.export.sources.types import Policy, ReadOptions
from holdfast.runtime.policy.bpe import BpeEncoder
from holdfast.runtime.policy.programs.base import Runnable

from ..suite import TOLERANCE, Case, FamilySuite, cases, observation

HERE = Path(__file__).parent
POSE = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
UNITS = ("m", "m", "m", "rad", "rad", "rad", "normalised_gripper")
CAMERAS = {"fused": (83, 61), "letterbox": (43, 58)}
KEYS = {"fused": "test_orig", "letterbox": "other_arm"}
NODES = {"vision": 340, "prefill": 210, "decode_step": 220}
"""Of two blocks and layers each."""


def case_of(name: str) -> Any:
    height, width = CAMERAS[name]
    contract = {
        "space": "ee_delta",
        "pose": {"frame": "base", "rotation": "rpy"},
        "action": [
            {"name": name, "unit": unit, "relative": name != "gripper"}
            for name, unit in zip(POSE, UNITS, strict=True)
        ],
        "cameras": [{"name": "primary", "height": height, "width": width}],
    }
    return cases("openvla", (name, 7, 0), contract=contract, options={"unnorm_key": KEYS[name]})[0]


CASES = [case_of(name) for name in CAMERAS]


def logits_of(case: Case, policy: Policy, sessions: dict[str, Runnable]) -> NDArray[np.float32]:
    """[N, 7, bins]: of every step, after the tokens that the original chose."""
    golden, inputs = case.golden, make_inputs(policy)
    program: Any = policy.program
    out = []
    for i, ids in enumerate(golden["ids"]):
        feed = dict(to_feed(policy, inputs, observation(policy, golden, i)))
        for name in ("vision", "prefill"):
            wanted = [tensor.name for tensor in policy.components[name].inputs]
            feed |= sessions[name].run({key: feed[key] for key in wanted})
        rows, position = [feed["logits"]], program.image_positions + int(feed["token_mask"].sum())
        cache = {k: v for k, v in feed.items() if k.startswith(("key.", "value."))}
        for k, token in enumerate(ids[:-1]):
            loop = {"token": np.array([[token]]), "position": np.array([position + k])}
            found = sessions["decode_step"].run({**loop, **cache})
            rows.append(found["logits"])
            cache = {name.removeprefix("next."): v for name, v in found.items() if name != "logits"}
        out.append(np.concatenate(rows))
    return np.stack(out)


def check_logits(case: Case, policy: Policy, sessions: dict[str, Runnable]) -> None:
    golden, found = case.golden, logits_of(case, policy, sessions)
    error = np.abs(found - golden["logits"]).max()
    assert error <= TOLERANCE * golden["sensitivity.logits"], error
    program: Any = policy.program
    assert np.array_equal(found.argmax(-1) + program.first_logit, golden["ids"])


@pytest.mark.export
class TestOpenVla(FamilySuite):
    family = "openvla"

    @pytest.fixture(params=CASES)
    def case(self, request: Any) -> Any:
        return request.param

    def test_sizes_that_do_not_fit_the_contract(self, case: Case, tmp_path: Path) -> None:
        action = case.contract["action"][:-1]
        wrong = Case(case.path, 6, 0, options=case.options, contract={**case.contract, "action": action})
        with pytest.raises(SourceError, match="elements"):
            openvla.read(case.path, wrong.read_options(tmp_path))

    def test_logits_of_all_steps(self, case: Case, policy: Policy) -> None:
        check_logits(case, policy, {n: TorchGraph(c) for n, c in policy.components.items()})

    def test_graphs_give_the_same_logits_and_stay_small(
        self, case: Case, policy: Policy, tmp_path: Path
    ) -> None:
        sessions: dict[str, Runnable] = {}
        for name, component in policy.components.items():
            example = {t.name: np.zeros(t.shape, t.dtype) for t in component.inputs}
            file = export_graph(component, example, tmp_path, name)
            nodes = [node.op_type for node in onnx.load_from_string(file.model).graph.node]
            assert len(nodes) <= NODES[name], f"{name} has {len(nodes)} nodes"
            assert not {"ScatterND", "ScatterElements", "Loop", "If"} & set(nodes)
            sessions[name] = file.session()
        check_logits(case, policy, sessions)

    def test_pictures_are_resized_as_by_the_original_to_the_bit(self, case: Case, policy: Policy) -> None:
        golden = case.golden
        prepare: Any = policy.components["vision"].module.prepare
        for raw, wanted in zip(golden["image.primary"], golden["resized"], strict=False):
            found = prepare(torch.from_numpy(raw[None]))
            assert np.array_equal(found[0].numpy(), wanted)

    def test_prompts_of_a_hundred_odd_instructions(self, case: Case, policy: Policy) -> None:
        spec: Any = policy.task.tokenizer
        encoder = BpeEncoder(spec, policy.files[spec.file])
        with np.load(HERE / "tokens.npz") as golden:
            rows = list(zip(golden["text"], golden["tokens"], golden["mask"], strict=True))
        compared = 0
        for text, wanted, mask in rows:
            if not str(text).strip():
                continue  # refused: no instruction
            ids, found = encoder.encode(str(text))
            assert ids[0][: found.sum()].tolist() == wanted[: mask.sum()].tolist(), repr(str(text))
            compared += 1
        assert compared >= 95

    def test_statistics_must_be_chosen_where_there_are_several(self, case: Case, tmp_path: Path) -> None:
        without = Case(case.path, 7, 0, contract=case.contract)
        with pytest.raises(SourceError, match="--unnorm-key: other_arm, test_orig"):
            openvla.read(case.path, without.read_options(tmp_path))
        wrong = Case(case.path, 7, 0, contract=case.contract, options={"unnorm_key": "nobody"})
        with pytest.raises(SourceError, match="'nobody'"):
            openvla.read(case.path, wrong.read_options(tmp_path))

    def test_without_a_tokenizer_it_says_what_to_fetch(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"tokenizer\.json of openvla/openvla-7b"):
            openvla.read_tokenizer(tmp_path, None)


@pytest.mark.export
def test_a_checkpoint_of_openvla_oft_is_refused(tmp_path: Path) -> None:
    """Its config and weights are OpenVLA's; its actions are not."""
    folder = tmp_path / "oft"
    shutil.copytree(HERE / "fused", folder)
    (folder / "action_head--150000_checkpoint.pt").touch()
    with pytest.raises(SourceError, match="OpenVLA-OFT"):
        openvla.read(folder, ReadOptions(unnorm_key="test_orig"))
