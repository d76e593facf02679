"""The rows of `test_peers_failures` about what physicalai's bundles let through."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.drivers.robots.schema import load_robot
from holdfast.runtime.bundle.contract import check_contract
from holdfast.runtime.bundle.errors import BundleError
from holdfast.runtime.bundle.reading import load_bundle, sum_line
from holdfast.runtime.bundle.writing import write_bundle

from .runtime.bundle.conftest import FILES, make_spec


def _edited(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Somebody edits the manifest, and makes its sum fit."""
    content = json.loads((path / "bundle.json").read_text())
    change(content)
    raw = json.dumps(content).encode()
    (path / "bundle.json").write_bytes(raw)
    (path / "bundle.sha256").write_bytes(sum_line(hashlib.sha256(raw).hexdigest()))
    return path


def _other_file(content: dict[str, Any]) -> None:
    content["files"][0]["path"] = "graphs/other.onnx"


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(version=1),
        lambda content: content.update(format="policy_package"),
        _other_file,
        lambda content: content["files"][0].update(sha256="0" * 64),
    ],
)
def test_bundle(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    made = write_bundle(tmp_path / "tiny.vla", make_spec(), FILES)
    spec = load_bundle(made).spec
    robot = load_robot("sim_arm")
    assert all(row.ok for row in check_contract(spec, robot, ["front"]))
    swapped = make_spec()
    for part in ("state", "action"):
        names = [element["name"] for element in swapped[part]["elements"]]
        for element, name in zip(swapped[part]["elements"], reversed(names), strict=True):
            element["name"] = name
    other = load_bundle(write_bundle(tmp_path / "swapped.vla", swapped, FILES)).spec
    assert not all(row.ok for row in check_contract(other, robot, ["front"])), "the order of the joints"
    with pytest.raises(BundleError):
        load_bundle(_edited(made, change))


@pytest.mark.parametrize("key", ["class_path", "runner", "init_args"])
def test_bundle_executes_nothing(tmp_path: Path, key: str) -> None:
    made = write_bundle(tmp_path / "tiny.vla", make_spec(), FILES)

    def names_code(content: dict[str, Any]) -> None:
        content["program"][key] = "os.system"

    with pytest.raises(BundleError, match=key):
        load_bundle(_edited(made, names_code))
