"""SmolVLA answers as lerobot's own, in both numerics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.export.errors import SourceError
from holdfast.export.sources.smolvla import NUMERICS, read
from holdfast.export.sources.types import ReadOptions

from ..suite import FAMILIES, FamilySuite, cases

VLM = FAMILIES / "smolvla" / "vlm"
RIGHT = {"tokenizer": VLM, "numerics": NUMERICS[0]}
DRIFTED = {"tokenizer": VLM, "numerics": NUMERICS[1]}


@pytest.mark.export
@pytest.mark.timeout(600)  # four graphs are exported
class TestSmolVla(FamilySuite):
    family = "smolvla"

    @pytest.fixture(
        params=cases("smolvla", ("two_cameras", 7, 9), mode=".right_positions", options=RIGHT)
        + cases("smolvla", ("options", 5, 5), options=DRIFTED)
        + cases("smolvla", ("two_cameras_v03", 7, 9), options=DRIFTED, graphs=False)
    )
    def case(self, request: Any) -> Any:
        return request.param


@pytest.mark.export
def test_an_unknown_numerics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"right-positions, transformers-4\.57"):
        read(FAMILIES / "smolvla" / "options", ReadOptions(tokenizer=VLM, numerics="newest"))
