"""When a task counts as done."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.drivers.simulated.judge import Episode, Progress, Sight, advance

TOUCH = Episode(0, "touch", "red", "touch the red cube")
PICK = Episode(0, "pick", "red", "pick up the red cube")
CUBES = {"red": np.array([0.2, 0.0, 0.0125]), "blue": np.array([0.2, 0.1, 0.0125])}
ABOVE_RED = np.array([0.203, 0.004, 0.03])


def watch(episode: Episode, sight: Sight, seconds: float, dt_s: float = 0.005, progress=None) -> Progress:
    progress = progress or Progress()
    for _ in range(round(seconds / dt_s)):
        progress = advance(progress, episode, sight, dt_s)
    return progress


def lifted(name: str, height: float) -> dict[str, np.ndarray]:
    return {**CUBES, name: np.array([0.2, 0.0, height])}


@pytest.mark.parametrize("dt_s", [0.005, 0.002, 0.01])
def test_touch_needs_contact_for_150_ms_whatever_the_step(dt_s):
    sight = Sight(frozenset({"red"}), ABOVE_RED, CUBES)
    assert not watch(TOUCH, sight, 0.14, dt_s).verdict.success
    done = watch(TOUCH, sight, 0.15, dt_s).verdict
    assert done.success
    assert done.touched == ("red",)
    assert done.time_s == pytest.approx(0.15)


def test_touch_needs_the_tip_above_the_cube_and_contact_on_end():
    beside = Sight(frozenset({"red"}), np.array([0.22, 0.0, 0.03]), CUBES)
    assert not watch(TOUCH, beside, 1.0).verdict.success
    sight, nothing = Sight(frozenset({"red"}), ABOVE_RED, CUBES), Sight(frozenset(), ABOVE_RED, CUBES)
    broken = watch(TOUCH, nothing, 0.005, progress=watch(TOUCH, sight, 0.1))
    assert not watch(TOUCH, sight, 0.1, progress=broken).verdict.success


def test_touching_another_cube_first_cannot_be_made_good():
    wrong = watch(TOUCH, Sight(frozenset({"blue"}), ABOVE_RED, CUBES), 0.01)
    assert wrong.verdict.wrong_object
    later = watch(TOUCH, Sight(frozenset({"red"}), ABOVE_RED, CUBES), 1.0, progress=wrong).verdict
    assert not later.success
    assert later.touched == ("blue", "red")


def test_pick_needs_height_for_250_ms():
    assert not watch(PICK, Sight(frozenset({"red"}), ABOVE_RED, lifted("red", 0.059)), 1.0).verdict.success
    high = Sight(frozenset({"red"}), ABOVE_RED, lifted("red", 0.07))
    assert not watch(PICK, high, 0.24).verdict.success
    assert watch(PICK, high, 0.25).verdict.success


def test_lifting_another_cube_is_wrong_but_brushing_it_is_not():
    brushed = watch(PICK, Sight(frozenset({"blue"}), ABOVE_RED, CUBES), 0.1)
    assert not brushed.verdict.wrong_object
    assert watch(PICK, Sight(frozenset(), ABOVE_RED, lifted("blue", 0.05)), 0.01).verdict.wrong_object


def test_a_success_stands_and_its_time_too():
    done = watch(TOUCH, Sight(frozenset({"red"}), ABOVE_RED, CUBES), 0.2)
    after = watch(TOUCH, Sight(frozenset({"blue"}), ABOVE_RED, CUBES), 1.0, progress=done).verdict
    assert after.success
    assert not after.wrong_object
    assert after.time_s == done.verdict.time_s
