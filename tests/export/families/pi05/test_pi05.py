"""pi0.5 answers as LeRobot's and openpi's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from holdfast.export.errors import SourceError
from holdfast.export.sources import openpi

from ..suite import FAMILIES, FamilySuite, cases

TOKENIZER = {"tokenizer": FAMILIES / "pi0" / "tokenizer"}
BLACK = {**TOKENIZER, "numerics": "lerobot"}


@pytest.mark.export
@pytest.mark.timeout(600)
class TestPi05(FamilySuite):
    family = "pi05"

    @pytest.fixture(
        params=cases("pi05", ("two_cameras", 7, 9), options=TOKENIZER)
        + cases("pi05", ("options", 5, 5), ("openpi", 7, 9), options=TOKENIZER, graphs=False)
        + cases("pi05", ("two_cameras", 7, 9), mode=".black", options=BLACK, graphs=False)
    )
    def case(self, request: Any) -> Any:
        return request.param


@pytest.mark.export
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapt_to_pi": None}, "adapt_to_pi"),
        ({"adapt_to_pi": True}, "adapt_to_pi"),
        ({"discrete_state_input": None}, "discrete_state_input"),
        ({"discrete_state_input": False}, "discrete_state_input"),
    ],
)
def test_what_no_weight_says_must_be_said(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    folder = tmp_path / "openpi"
    shutil.copytree(Path(__file__).with_name("openpi"), folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    with pytest.raises(SourceError, match=said):
        openpi.read(folder, "pi05")
