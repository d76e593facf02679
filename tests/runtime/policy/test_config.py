"""What follows from the length of a chunk."""

from __future__ import annotations

import pytest

from holdfast.runtime.policy.config import frame_age_limit_ns


@pytest.mark.parametrize(("horizon_s", "limit_s"), [(0.1, 0.2), (0.8, 0.4), (10.0, 0.5)])
def test_the_age_of_a_picture_is_bounded_by_half_a_chunk(horizon_s: float, limit_s: float) -> None:
    assert frame_age_limit_ns(horizon_s) == round(limit_s * 1e9)


def test_a_sequential_policy_has_the_most_however_short_its_chunk_since_the_arm_stands() -> None:
    assert frame_age_limit_ns(0.05, sequential=True) == 500_000_000
