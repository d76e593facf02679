"""pi0 answers as LeRobot's and openpi's own."""

from __future__ import annotations

from typing import Any

import pytest

from ..suite import FAMILIES, FamilySuite, cases

TOKENIZER = {"tokenizer": FAMILIES / "pi0" / "tokenizer"}
BLACK = {**TOKENIZER, "numerics": "lerobot"}


@pytest.mark.export
@pytest.mark.timeout(600)
class TestPi0(FamilySuite):
    family = "pi0"

    @pytest.fixture(
        params=cases("pi0", ("two_cameras", 7, 9), options=TOKENIZER)
        + cases("pi0", ("options", 5, 5), ("openpi", 7, 9), options=TOKENIZER, graphs=False)
        + cases("pi0", ("two_cameras", 7, 9), mode=".black", options=BLACK, graphs=False)
    )
    def case(self, request: Any) -> Any:
        return request.param
