"""Parity is judged in robot units, on enough distinct observations, by the worst sample."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.export.errors import ParityError, SourceError
from holdfast.export.parity import (
    check_samples,
    compare,
    element_limits,
    failures,
    golden_tolerance,
    make_inputs,
    to_feed,
    to_units,
)
from holdfast.export.sources.types import Policy
from holdfast.runtime.bundle.schema import ParityReport

pytestmark = pytest.mark.export
SHAPE = (32, 16, 6)


def judge(policy: Policy, error: np.ndarray, precision: str = "fp32") -> tuple[ParityReport, list[str]]:
    reference = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    limits = element_limits(policy.action, precision, None)
    report = compare(reference, reference + error.astype(np.float32), policy.action, limits, "test")
    return report, failures(report, precision)


def test_the_worst_value_of_the_worst_sample_counts_in_robot_units(policy: Policy) -> None:
    error = np.zeros(SHAPE)
    error[7, 15, 1] = 1e-3
    report, reasons = judge(policy, error)
    # Step 15 of an arm joint has a scale of 0.17 rad.
    assert report.rows[1].max_abs == pytest.approx(1.7e-4, rel=1e-2)
    assert [reason.split(":")[0] for reason in reasons] == ["shoulder_lift"]
    assert judge(policy, error, "fp16")[1] == []


def test_the_gripper_has_its_own_unit_and_limit(policy: Policy) -> None:
    error = np.zeros(SHAPE)
    error[0, 0, 5] = 1e-3
    report, reasons = judge(policy, error)
    assert report.rows[5].unit == "0_100_of_range"
    assert report.rows[5].max_abs == pytest.approx(0.04, rel=1e-2)
    assert len(reasons) == 1


def test_values_that_are_not_finite_fail_on_either_side(policy: Policy) -> None:
    for bad in (np.nan, np.inf):
        error = np.zeros(SHAPE)
        error[3, 2, 1] = bad
        with pytest.raises(ParityError, match="the graph gives values that are not finite"):
            judge(policy, error)
    reference = np.full(SHAPE, np.nan, np.float32)
    with pytest.raises(ParityError, match="the checkpoint gives"):
        compare(reference, reference, policy.action, [1.0] * 6, "test")


def test_another_direction_fails_even_within_every_limit(policy: Policy) -> None:
    tiny = np.full(SHAPE, 1e-6, np.float32)
    report = compare(tiny, -tiny, policy.action, [1.0] * 6, "test")
    assert any("cosine" in reason for reason in failures(report, "fp32"))


def test_a_chunk_that_holds_still_is_judged_by_its_units_alone(policy: Policy) -> None:
    reference = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    reference[0] = 1e-5
    found = reference.copy()
    found[0] = -1e-5
    limits = element_limits(policy.action, "fp32", None)
    assert failures(compare(reference, found, policy.action, limits, "test"), "fp32") == []
    found[0] = 0.1
    reasons = failures(compare(reference, found, policy.action, limits, "test"), "fp32")
    assert len(reasons) == 7  # every element, and relative L2


def test_a_graph_that_answers_nothing_fails(policy: Policy) -> None:
    reference = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32) * 1e-6
    report = compare(reference, np.zeros(SHAPE, np.float32), policy.action, [1.0] * 6, "test")
    assert len(failures(report, "fp32")) == 2


def test_a_limit_of_the_user_replaces_that_of_joints_only(policy: Policy) -> None:
    assert element_limits(policy.action, "fp32", 0.5) == [0.5] * 5 + [0.02]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_golden_tolerance_stays_inside_every_limit(policy: Policy, seed: int) -> None:
    limits = element_limits(policy.action, "fp32", None)
    tolerance = golden_tolerance(policy.action, limits)
    a = np.random.default_rng(seed).normal(size=SHAPE)
    b = a + np.random.default_rng(seed + 1).choice([-tolerance, tolerance], SHAPE)
    error = np.abs(to_units(a, policy.action) - to_units(b, policy.action)).max((0, 1))
    assert (error <= np.asarray(limits) * (1 + 1e-9)).all()


def test_too_few_or_repeated_observations(feeds: list[dict[str, Any]]) -> None:
    check_samples(feeds, "recorded")
    check_samples(feeds[:4], "synthetic")
    with pytest.raises(SourceError, match="at least 32 distinct"):
        check_samples([*feeds[:31], feeds[0]], "recorded")


def test_an_observation_of_another_policy(policy: Policy) -> None:
    inputs = make_inputs(policy)
    with pytest.raises(SourceError, match="'zebra'"):
        to_feed(policy, inputs, replace(policy.observations[0], text="touch the zebra"))
    moment = policy.observations[0].moments[0]
    for wrong, said in (
        ((replace(moment, images={}),), "front"),
        ((replace(moment, state=None),), "no state"),
        ((moment, moment), "has 2 moments, expected 1"),
    ):
        with pytest.raises(SourceError, match=said):
            to_feed(policy, inputs, replace(policy.observations[0], moments=wrong))
