"""Whether a task has succeeded, from the true state of the simulation. Policies never see any of this.

Pure: `advance` takes the progress so far and what is true after one physics step, so the verdict does not
depend on how often anyone asks for it.

- touch: the arm is in contact with the named cube, tip above it, for 150 ms on end, and has touched no
  other cube.
- pick: the named cube is over 6 cm high for 250 ms on end, and no other cube has been lifted over 4 cm.

Time-outs belong to the caller (`TIMEOUT_S`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

TOUCH_HOLD_S = 0.15
TOUCH_RADIUS_M = 0.015
PICK_HOLD_S = 0.25
PICK_HEIGHT_M = 0.06
WRONG_LIFT_M = 0.04
TIMEOUT_S = {"touch": 5.0, "pick": 9.0}
"""How long an attempt of each task may take."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One placement of the cubes and what is asked for."""

    seed: int
    task: str
    """`touch` or `pick`."""
    colour: str
    instruction: str


@dataclass(frozen=True, slots=True)
class Sight:
    """What is true after one physics step."""

    touching: frozenset[str]
    """Colours of the cubes in contact with the arm."""
    tip: NDArray[np.float64]
    """Position of the gripper's tip [3], m."""
    cubes: Mapping[str, NDArray[np.float64]]
    """Centre of each cube [3], m."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What has come of the episode so far."""

    success: bool = False
    wrong_object: bool = False
    """Another cube was touched (touch) or lifted (pick) before success; success is then out of reach."""
    touched: tuple[str, ...] = ()
    """Colours in the order in which the arm first touched them."""
    holding: bool = False
    """The named condition holds at this moment."""
    time_s: float = 0.0
    """Simulated time since the reset; stands still after success."""


@dataclass(frozen=True, slots=True)
class Progress:
    verdict: Verdict = Verdict()
    held_s: float = 0.0


def advance(progress: Progress, episode: Episode, sight: Sight, dt_s: float) -> Progress:
    """The progress after one more physics step of `dt_s`."""
    before = progress.verdict
    new = tuple(sorted(sight.touching - set(before.touched)))
    if before.success:
        return replace(progress, verdict=replace(before, touched=before.touched + new)) if new else progress
    cube = sight.cubes[episode.colour]
    if episode.task == "touch":
        aside = float(np.hypot(*(sight.tip[:2] - cube[:2])))
        holding = episode.colour in sight.touching and aside < TOUCH_RADIUS_M
        wrong = bool(sight.touching - {episode.colour})
        needed_s = TOUCH_HOLD_S
    else:
        holding = bool(cube[2] > PICK_HEIGHT_M)
        wrong = any(p[2] > WRONG_LIFT_M for name, p in sight.cubes.items() if name != episode.colour)
        needed_s = PICK_HOLD_S
    wrong = wrong or before.wrong_object
    held_s = progress.held_s + dt_s if holding else 0.0
    # Half a step of tolerance: sums of 5 ms must not fall short of 150 ms by a rounding error.
    success = held_s >= needed_s - dt_s / 2 and not wrong
    verdict = Verdict(success, wrong, before.touched + new, holding, before.time_s + dt_s)
    return Progress(verdict, held_s)
