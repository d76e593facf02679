"""What the command line leaves open."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from holdfast.runtime import resolve as room
from holdfast.runtime.bundle.last import remember_bundle
from holdfast.runtime.exit_codes import Refused, UsageError
from holdfast.runtime.resolve import Resolved, Wishes, resolve

from .tiny_bundle import write_tiny_bundle

pytest.importorskip("onnx")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny.vla")


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder and a state folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


def wish(bundle: Path | None, **changes: Any) -> Resolved:
    values: dict[str, Any] = {
        "bundle": None if bundle is None else str(bundle),
        "tasks": (),
        "robot": "sim_arm",
        "calibration": None,
        "robot_id": None,
        "arm": "serial:/dev/null",
        "cameras": ["http://camera/stream"],
        "control_hz": None,
        "strategy": None,
        **changes,
    }
    return resolve(Wishes(**values))


def why(resolved: Resolved, what: str) -> str:
    return next(choice.why for choice in resolved.choices if choice.what == what)


def test_what_is_named_is_taken(bundle: Path):
    resolved = wish(bundle, tasks=["touch the cube", "touch the red cube"], control_hz=50.0)
    assert resolved.tasks == ("touch the cube", "touch the red cube")
    assert resolved.control_hz == 50.0
    assert resolved.cameras == {"front": "http://camera/stream"}
    assert resolved.calibration.path.name == "sim_arm.json"


def test_the_only_bundle_here_is_taken(bundle: Path, own_places: Path):
    shutil.copytree(bundle, own_places / "one.vla")
    resolved = wish(None)
    assert resolved.bundle.path == Path("one.vla")
    assert "only" in why(resolved, "bundle")
    shutil.copytree(bundle, own_places / "two.vla")
    with pytest.raises(Refused, match=r"one\.vla, two\.vla"):
        wish(None)


def test_else_the_last_exported_one(bundle: Path):
    with pytest.raises(Refused, match="vla-export"):
        wish(None)
    remember_bundle(bundle)
    assert wish(None).bundle.path == bundle


def test_the_default_task_or_examples(bundle: Path, tmp_path: Path):
    assert wish(bundle).tasks == ("touch the red cube",)
    without = write_tiny_bundle(tmp_path / "without.vla", default_task=None)
    with pytest.raises(Refused, match="for example 'touch the red cube'"):
        wish(without)


def test_unknown_words_are_refused_by_name(bundle: Path):
    with pytest.raises(Refused, match=r"'purple'.*touch the red cube"):
        wish(bundle, tasks=["touch the red cube", "touch the purple cube"])


def test_named_cameras(bundle: Path):
    assert wish(bundle, cameras=["front=/dev/video3?fps=15"]).cameras == {"front": "/dev/video3?fps=15"}
    for cameras in (["wrist=/dev/video3"], ["front=/dev/video3", "wrist=/dev/video4"]):
        with pytest.raises(Refused, match="front"):
            wish(bundle, cameras=cameras)


def test_what_is_missing_is_a_usage_error(bundle: Path):
    with pytest.raises(UsageError, match="--arm"):
        wish(bundle, arm=None)
    with pytest.raises(UsageError, match="--camera front=SOURCE"):
        wish(bundle, cameras=[])


def test_a_rate_below_the_policys_is_refused(bundle: Path):
    with pytest.raises(Refused, match="rate"):
        wish(bundle, control_hz=10.0)


@pytest.mark.parametrize(
    ("fitting", "robot_type", "outcome"),
    [
        (["so100", "so101", "sim_arm"], "so101_follower", "so101"),
        (["sim_arm"], "sim_arm", "sim_arm"),
        (["so100", "so101"], "sim_arm", None),
        ([], "sim_arm", None),
    ],
)
def test_a_probed_bus_and_the_bundles_type_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitting: list[str], robot_type: str, outcome: str | None
):
    monkeypatch.setattr("holdfast.drivers.probe.probe", lambda url: [])
    monkeypatch.setattr("holdfast.drivers.probe.fitting_robots", lambda found: fitting)
    bundle = write_tiny_bundle(tmp_path / "b.vla", robot_type=robot_type)
    spec = room.load_bundle(bundle).spec
    wishes = Wishes(str(bundle), (), None, None, None, "serial:/dev/null", ["x"], None, None)
    choices: list[room.Choice] = []
    if outcome is None:
        with pytest.raises(Refused, match="--robot"):
            room._robot_path(wishes, spec, choices)
    else:
        assert room._robot_path(wishes, spec, choices).stem == outcome
        assert choices[0].value == outcome


def test_parity_on_synthetic_samples_alone_is_said(tmp_path: Path):
    """A person must know that nothing of the training environment has been compared."""
    evidence = {"kind": "synthetic", "text": "made-up pictures", "samples": 4}
    bundle = write_tiny_bundle(tmp_path / "made-up.vla", evidence=evidence)
    assert why(wish(bundle), "evidence") == "made-up pictures"
    assert not any(
        choice.what == "evidence" for choice in wish(write_tiny_bundle(tmp_path / "b.vla")).choices
    )
