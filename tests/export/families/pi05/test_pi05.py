"""pi0.5 answers as LeRobot's and openpi's own."""

from __future__ import annotations

from typing import Any

import pytest

from ..suite import FAMILIES, FamilySuite, cases

TOKENIZER = {"tokenizer": FAMILIES / "pi0" / "tokenizer"}
BLACK = {**TOKENIZER, "numerics": "lerobot"}


@pytest.mark.export
@pytest.mark.timeout(600)
class TestPi05(FamilySuite):
    family = "pi05"

    # No `graphs` yet: the way through vla-export has not been seen to its end.
    @pytest.fixture(
        params=cases("pi05", ("two_cameras", 7, 9), ("options", 5, 5), options=TOKENIZER, graphs=False)
        + cases("pi05", ("openpi", 7, 9), options=TOKENIZER, graphs=False)
        + cases("pi05", ("two_cameras", 7, 9), mode=".black", options=BLACK, graphs=False)
    )
    def case(self, request: Any) -> Any:
        return request.param
