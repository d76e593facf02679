"""The suite that every checkpoint family inherits: a new one brings checkpoints and goldens of its original
implementation, and gets all of these tests.

A `Case` is a checkpoint `NAME` and a golden `NAME.npz` in the family's folder: docs/development/oracles.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from holdfast.export.errors import SourceError
from holdfast.export.parity import make_inputs, to_feed, to_units
from holdfast.export.pipeline import Request, check_policy, export
from holdfast.export.sessions import OnnxGraph, TorchGraph
from holdfast.export.sources.registry import find_source
from holdfast.export.sources.types import Moment, Observation, Policy, ReadOptions
from holdfast.runtime.bundle.reading import load_bundle
from holdfast.runtime.policy.programs.base import Runnable
from holdfast.runtime.policy.programs.registry import make_runner

FAMILIES = Path(__file__).parent
TOLERANCE = 10
"""Times what a change of all weights by 1e-6 of themselves moves the original's own actions."""


@dataclass(frozen=True)
class Case:
    """One checkpoint with what the original answered."""

    path: Path
    actions: int
    state: int
    mode: str = ""
    """Ending of the golden's arrays, where originals disagree and the family knows several numerics."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `ReadOptions`."""
    contract: Mapping[str, Any] = field(default_factory=dict)
    """In place of what `contract_file` says."""
    graphs: bool = True
    """Whether it is exported as well (seconds); False where another case or test shows the same."""

    @property
    def golden(self) -> dict[str, NDArray[Any]]:
        with np.load(self.path.with_suffix(".npz")) as arrays:
            return dict(arrays)

    def contract_file(self, folder: Path) -> Path:
        """Names and units for a policy that does not know them."""
        said = {
            "robot_type": "test_arm",
            "space": "joint_position",
            "rate_hz": 20,
            "action": [{"name": f"joint_{i}", "unit": "rad"} for i in range(self.actions)],
            "state": [{"name": f"joint_{i}", "unit": "rad"} for i in range(self.state)],
        }
        file = folder / "contract.yaml"
        file.write_text(yaml.safe_dump({**said, **self.contract}))
        return file

    def read_options(self, folder: Path) -> ReadOptions:
        return ReadOptions(**{"contract": self.contract_file(folder), **self.options})


def cases(family: str, *named: tuple[str, int, int], **more: Any) -> list[Any]:
    """(name, elements of the action, of the state) as parameters of a fixture `case`."""
    return [
        pytest.param(Case(FAMILIES / family / name, actions, state, **more), id=name)
        for name, actions, state in named
    ]


class FamilySuite:
    """Inherit, and give `family` and a fixture `case`."""

    family: str

    @pytest.fixture
    def policy(self, case: Case, tmp_path: Path) -> Policy:
        _, source, _ = find_source(case.path)
        return source.read(case.path, case.read_options(tmp_path))

    def test_it_is_recognised_and_it_is_said_why(self, case: Case) -> None:
        family, source, reason = find_source(case.path)
        assert family == self.family
        assert reason
        assert source.MEANING
        assert set(ReadOptions.__dataclass_fields__) >= source.OPTIONS >= set(case.options)

    def test_the_policy_fits_its_program(self, policy: Policy) -> None:
        check_policy(policy)
        assert policy.family == self.family
        for component in policy.components.values():
            assert not component.module.training

    def test_torch_answers_as_the_original(self, case: Case, policy: Policy) -> None:
        sessions = {name: TorchGraph(component) for name, component in policy.components.items()}
        check_against_golden(case, policy, answers(case, policy, sessions))

    def test_every_input_is_where_the_original_has_it(self, case: Case, policy: Policy) -> None:
        """The golden notices when two cameras, or two elements of the state, are exchanged."""
        sessions = {name: TorchGraph(component) for name, component in policy.components.items()}
        golden = case.golden
        cameras = [name for name in golden if name.startswith("image.")]
        exchanged = [{"state": golden["state"][..., ::-1]}] if "state" in golden else []
        if len({golden[name].shape for name in cameras}) < len(cameras):
            exchanged.append(dict(zip(cameras, (golden[name] for name in reversed(cameras)), strict=True)))
        exchanged += [{name: golden[name][..., ::-1]} for name in cameras]
        for wrong in exchanged:
            found = answers(case, policy, sessions, wrong)
            with pytest.raises(AssertionError):
                check_against_golden(case, policy, found)

    def test_the_bundle_answers_as_the_original(
        self, case: Case, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Through all of vla-export, and from the bundle's files alone, in onnxruntime."""
        if not case.graphs:
            pytest.skip("another case, or test_on_the_arm, exports the same networks")
        monkeypatch.chdir(tmp_path)
        # Random weights amplify rounding: the golden's own tolerance judges, not the limit for trained ones.
        options = {"options": case.read_options(tmp_path), "max_error_rad": 0.01, "measure_latency": False}
        result = export(Request(str(case.path), name="it", **options))
        loaded = load_bundle(result.bundle)
        sessions = {name: OnnxGraph(loaded.graph(name)) for name in loaded.spec.graphs}
        check_against_golden(case, policy, answers(case, policy, sessions))

    def test_a_checkpoint_without_a_contract_says_what_it_lacks(self, case: Case) -> None:
        _, source, _ = find_source(case.path)
        options = replace(ReadOptions(**case.options), contract=None)
        with pytest.raises(SourceError, match="--contract") as caught:
            source.read(case.path, options)
        assert "\n" not in str(caught.value)

    def test_sizes_that_do_not_fit_the_contract(self, case: Case, tmp_path: Path) -> None:
        _, source, _ = find_source(case.path)
        for wrong in (replace(case, actions=case.actions + 1), replace(case, state=case.state + 1)):
            with pytest.raises(SourceError, match="elements"):
                source.read(case.path, wrong.read_options(tmp_path))

    def test_damaged_files_give_one_line(self, case: Case, tmp_path: Path) -> None:
        _, source, _ = find_source(case.path)
        options = case.read_options(tmp_path)
        copy = tmp_path / "damaged"
        shutil.copytree(case.path, copy)
        refused = 0
        files = sorted(file for file in copy.rglob("*") if file.is_file())
        for file in files:
            good = file.read_bytes()
            for size in (0, 7, len(good) // 2, len(good) - 1):
                file.write_bytes(good[:size])
                refused += is_refused(source, copy, options)
            for at in range(0, len(good), max(len(good) // 6, 1)):
                file.write_bytes(good[:at] + bytes([good[at] ^ 0x11]) + good[at + 1 :])
                is_refused(source, copy, options)
            file.write_bytes(good)
        assert refused >= 3 * len(files), "a truncated file was read as if nothing were wrong"
        assert not is_refused(source, copy, options)


def is_refused(source: Any, path: Path, options: ReadOptions) -> bool:
    """Anything but a policy or a `SourceError` of one line fails the test."""
    said = ""
    try:
        source.read(path, options)
    except SourceError as error:
        said = str(error)
    assert "\n" not in said, said
    return bool(said)


def answers(
    case: Case,
    policy: Policy,
    sessions: Mapping[str, Runnable],
    instead: Mapping[str, NDArray[Any]] | None = None,
) -> NDArray[np.float64]:
    """[N, steps, elements] in robot units, from the golden's raw pictures, states, texts and noise."""
    golden = {**case.golden, **(instead or {})}
    inputs = make_inputs(policy)
    runner = make_runner(policy.program, policy.components, sessions, policy.action)
    rows = []
    for i in range(len(golden["actions"])):
        feed = to_feed(policy, inputs, observation(policy, golden, i))
        noise = golden["noise"][i] if "noise" in golden else None
        rows.append(runner.run(feed, noise))
    return to_units(np.concatenate(rows), policy.action)


def observation(policy: Policy, golden: Mapping[str, NDArray[Any]], index: int) -> Observation:
    """One sample of the golden as the policy process would see it."""

    def moments(name: str) -> Sequence[NDArray[Any]]:
        value = np.ascontiguousarray(golden[name][index])
        return [value] if policy.history is None else list(value)

    pictures = {camera.name: moments(f"image.{camera.name}") for camera in policy.cameras}
    steps = 1 if policy.history is None else policy.history.steps
    states = [None] * steps
    if policy.state is not None:
        states = [row.astype(np.float64) for row in moments("state")]
    text = str(golden["text"][index]) if "text" in golden else policy.task.examples[0]
    return Observation(
        tuple(Moment({name: rows[k] for name, rows in pictures.items()}, states[k]) for k in range(steps)),
        text,
    )


def check_against_golden(case: Case, policy: Policy, found: NDArray[np.float64]) -> None:
    """Every element within ten times the sensitivity of the original."""
    golden = case.golden
    wanted, allowed = golden[f"actions{case.mode}"], TOLERANCE * golden[f"sensitivity{case.mode}"]
    assert found.shape == wanted.shape
    error = np.abs(found - wanted).max((0, 1))
    assert (error <= allowed).all(), f"{case.path.name}: {error} is beyond {allowed} ({policy.family})"
