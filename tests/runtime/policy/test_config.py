"""What is admitted at start must be able to run."""

from __future__ import annotations

import pytest

from holdfast.runtime.policy.config import fast_enough, frame_age_limit_ns


@pytest.mark.parametrize(
    ("p99_s", "ok"), [(0.01, True), (0.49, True), (0.51, False), (0.79, False), (2.0, False)]
)
def test_a_computer_whose_chunks_would_all_be_too_old_is_refused(p99_s: float, ok: bool) -> None:
    assert fast_enough(horizon_s=0.8, p99_s=p99_s) is ok


@pytest.mark.parametrize(("horizon_s", "limit_s"), [(0.1, 0.2), (0.8, 0.4), (10.0, 0.5)])
def test_the_age_of_a_picture_is_bounded_by_half_a_chunk(horizon_s: float, limit_s: float) -> None:
    assert frame_age_limit_ns(horizon_s) == round(limit_s * 1e9)
