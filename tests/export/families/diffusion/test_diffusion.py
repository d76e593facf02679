"""Diffusion policy answers as lerobot's own."""

from __future__ import annotations

from typing import Any

import pytest

from ..suite import FamilySuite, cases


@pytest.mark.export
class TestDiffusion(FamilySuite):
    family = "diffusion"

    @pytest.fixture(
        params=cases("diffusion", ("ddpm", 7, 7), ("ddim", 5, 9))
        + cases("diffusion", ("ddpm_v03", 7, 7), ("sim_arm", 6, 6), graphs=False)
    )
    def case(self, request: Any) -> Any:
        return request.param
