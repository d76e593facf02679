"""ACT answers as lerobot's own."""

from __future__ import annotations

from typing import Any

import pytest

from ..suite import FamilySuite, cases


@pytest.mark.export
class TestAct(FamilySuite):
    family = "act"

    @pytest.fixture(
        params=cases("act", ("two_cameras", 7, 9), ("options", 5, 5))
        + cases("act", ("two_cameras_v03", 7, 9), ("sim_arm", 6, 6), graphs=False)
    )
    def case(self, request: Any) -> Any:
        return request.param
