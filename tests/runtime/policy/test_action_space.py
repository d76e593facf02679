"""From the policy's numbers to the robot's."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.units import JointUnits
from holdfast.runtime.bundle.schema import Bundle
from holdfast.runtime.policy.action_space import ActionSpace, ActionSpaceError
from holdfast.runtime.policy.errors import NonFiniteAction

from ..bundle.programs import make_pose, validate
from ..tiny_bundle import JOINTS, STEPS, tiny_spec

ROBOT = load_robot("sim_arm")
UNITS = JointUnits(ROBOT, find_calibration(ROBOT))
POSITION = (0.1, -0.5, 0.6, 1.0, 0.2, 40.0)


def make(**changes: Any) -> ActionSpace:
    """`changes`: keys of the bundle's JSON, nested ones as `action__space`."""
    spec = copy.deepcopy(tiny_spec())
    for path, value in changes.items():
        *folders, last = path.split("__")
        target = spec
        for folder in folders:
            target = target[folder]
        target[last] = value
    entry = {"bytes": 0, "sha256": "0" * 64}
    files = [{"path": p, **entry} for p in ("graphs/policy.onnx", "golden/observations.npz")]
    full = {"format": "holdfast.bundle", "version": 2, "files": files, **spec}
    return ActionSpace(Bundle.model_validate(full), UNITS)


def elements(*units: str, relative: bool | None = None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"name": n, "unit": u} for n, u in zip(JOINTS, units, strict=True)]
    return rows if relative is None else [{**row, "relative": relative} for row in rows]


PERCENT = ("pm100_of_range",) * 5 + ("0_100_of_range",)
DEGREES = ("deg",) * 5 + ("0_100_of_range",)
RADIANS = ("rad",) * 5 + ("0_100_of_range",)


def test_relative_actions_are_added_to_the_observation_and_absolute_ones_are_not():
    output = np.zeros((1, STEPS, 6), np.float32)
    output[0, :, 0], output[0, :, 5] = 0.25, 70.0
    targets = make().targets(output, POSITION)
    assert targets.shape == (STEPS, 6)
    assert targets[3] == pytest.approx([0.35, -0.5, 0.6, 1.0, 0.2, 70.0], abs=1e-6)


def test_normalisation_per_step():
    rows = [{"source": "mean_std", "offset": [0.01 * i] * 6, "scale": [2.0] * 6} for i in range(STEPS)]
    space = make(action__normalisation=rows)
    targets = space.targets(np.full((STEPS, 6), 0.05, np.float32), POSITION)
    assert targets[7][0] == pytest.approx(0.1 + 0.05 * 2 + 0.07, abs=1e-6)


def test_the_state_is_normalised_in_the_policys_units():
    space = make(
        state__elements=elements(*DEGREES),
        state__normalisation={"source": "min_max", "offset": [10.0] * 6, "scale": [2.0] * 6},
    )
    state = space.observe(POSITION)
    assert state.dtype == np.float32
    assert state.shape == (6,)
    # LeRobot's degrees have 4095 ticks to a turn.
    assert state[0] == pytest.approx((math.degrees(0.1) * 4096 / 4095 - 10) / 2, abs=1e-4)
    assert state[5] == pytest.approx(15.0, abs=1e-4)


@pytest.mark.parametrize("units", [PERCENT, DEGREES, RADIANS])
def test_absolute_actions_in_every_unit_come_back_where_the_state_was(units: tuple[str, ...]):
    space = make(
        state__elements=elements(*units),
        action__space="joint_position",
        action__elements=elements(*units, relative=False),
    )
    output = np.tile(space.observe(POSITION), (STEPS, 1))
    assert space.targets(output, POSITION)[0] == pytest.approx(POSITION, abs=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6), st.sampled_from([PERCENT, DEGREES, RADIANS]))
def test_relative_and_absolute_actions_agree(deltas: list[float], units: tuple[str, ...]):
    identity = {"state__elements": elements(*units)}
    absolute = make(**identity, action__space="joint_position",
                    action__elements=elements(*units, relative=False))  # fmt: skip
    relative = make(**identity, action__elements=elements(*units, relative=True))
    base = absolute.observe(POSITION).astype(np.float64)
    steps = np.tile(np.asarray(deltas), (STEPS, 1))
    assert relative.targets(steps, POSITION) == pytest.approx(
        absolute.targets(steps + base, POSITION), abs=1e-4
    )


def test_percentages_end_at_the_calibrated_range():
    space = make(
        state__elements=elements(*PERCENT),
        action__space="joint_position",
        action__elements=elements(*PERCENT, relative=False),
    )
    far, edge = np.full((STEPS, 6), 250.0), np.full((STEPS, 6), 100.0)
    assert space.targets(far, POSITION) == pytest.approx(space.targets(edge, POSITION))


def test_a_normalised_gripper_is_a_share_of_the_range():
    units = ("rad",) * 5 + ("normalised_gripper",)
    space = make(state__elements=elements(*units), action__elements=[
        {**row, "relative": i < 5} for i, row in enumerate(elements(*units))
    ])  # fmt: skip
    output = np.zeros((STEPS, 6))
    output[:, 5] = 0.25
    assert space.targets(output, POSITION)[0][5] == pytest.approx(25.0)
    assert space.observe(POSITION)[5] == pytest.approx(0.4, abs=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_rejects_all(bad: float):
    output = np.zeros((1, STEPS, 6), np.float32)
    output[0, 9, 2] = bad
    with pytest.raises(NonFiniteAction, match="1 of the 96"):
        make().targets(output, POSITION)


@pytest.mark.parametrize("shape", [(STEPS - 1, 6), (STEPS, 7), (2, STEPS, 6)])
def test_an_output_of_another_shape_is_refused(shape: tuple[int, ...]):
    with pytest.raises(ActionSpaceError, match="returned"):
        make().targets(np.zeros(shape), POSITION)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(-0.4, 0.4), min_size=6, max_size=6),
    st.sampled_from([PERCENT, DEGREES, RADIANS]),
    st.booleans(),
    st.integers(1, STEPS),
)
def test_targets_in_the_policys_numbers_are_what_it_said(
    said: list[float], units: tuple[str, ...], relative: bool, k: int
):
    """Continuing a chunk: the way back from targets, for steps that are normalised differently."""
    rows = [{"source": "mean_std", "offset": [0.1 * i] * 6, "scale": [1.0 + i] * 6} for i in range(STEPS)]
    space = make(
        state__elements=elements(*units),
        action__space="joint_delta" if relative else "joint_position",
        action__elements=elements(*units, relative=relative),
        action__normalisation=rows,
    )
    output = np.tile(np.asarray(said), (STEPS, 1))
    targets = space.targets(output, POSITION)[:k]
    again = space.targets(np.concatenate([space.normalised(targets, POSITION), output[k:]]), POSITION)
    # What lies outside the calibrated range came back clamped.
    assert again[:k] == pytest.approx(targets, abs=2e-3)
    if units is not PERCENT:
        assert space.normalised(targets, POSITION)[:, :5] == pytest.approx(output[:k, :5], abs=1e-4)


def test_end_effector_actions_are_not_run_yet():
    spec = copy.deepcopy(tiny_spec())
    make_pose(spec)
    with pytest.raises(ActionSpaceError, match="not run by this version"):
        ActionSpace(validate(spec), UNITS)


def test_a_policy_without_state_has_none():
    spec = copy.deepcopy(tiny_spec())
    spec["state"] = None
    del spec["graphs"]["policy"]["inputs"][1]
    assert not ActionSpace(validate(spec), UNITS).has_state
    assert make().has_state


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"action__elements": elements("m", *RADIANS[1:], relative=True)}, "shoulder_pan"),
        ({"state__elements": elements(*RADIANS[:5], "rad")}, "gripper"),
        ({"state__elements": elements(*reversed(RADIANS))}, "shoulder_pan"),
        ({"state__elements": list(reversed(elements(*RADIANS)))}, "order"),
    ],
)
def test_what_cannot_be_converted_is_refused_before_torque(changes: dict[str, Any], text: str):
    with pytest.raises(ActionSpaceError, match=text):
        make(**changes)
