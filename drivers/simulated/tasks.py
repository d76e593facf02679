"""The tasks of the simulated table-top: instructions and where cubes are put."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .judge import Episode
from .scene import COLOURS

TEMPLATES = {
    "touch": (
        "touch the {c} cube",
        "reach for the {c} block",
        "tap the {c} cube",
        "go to the {c} block",
    ),
    "pick": ("pick up the {c} cube", "grab the {c} block", "lift the {c} cube", "take the {c} block"),
}
"""Task -> instructions that mean it; `{c}` stands for the colour."""

RADIUS_M = (0.14, 0.235)
BEARING_RAD = (-0.75, 0.75)
APART_M = 0.068
"""Cubes lie on a ring sector in front of the arm, at least so far apart."""


def draw_episode(rng: np.random.Generator, seed: int, task: str | None, colour: str | None) -> Episode:
    """What to ask for; `task` and `colour` are drawn where not given.

    Raises `ValueError` naming the known ones for an unknown task or colour.
    """
    drawn_task = sorted(TEMPLATES)[rng.integers(len(TEMPLATES))]
    drawn_colour = list(COLOURS)[rng.integers(len(COLOURS))]
    task, colour = task or drawn_task, colour or drawn_colour
    if task not in TEMPLATES or colour not in COLOURS:
        raise ValueError(
            f"no task {task!r} with a {colour!r} cube; tasks: {', '.join(sorted(TEMPLATES))}; "
            f"colours: {', '.join(COLOURS)}"
        )
    template = TEMPLATES[task][rng.integers(len(TEMPLATES[task]))]
    return Episode(seed, task, colour, template.format(c=colour))


def draw_cubes(rng: np.random.Generator) -> dict[str, tuple[NDArray[np.float64], float]]:
    """Colour -> (position [x, y] in m, yaw in rad)."""
    placed: list[tuple[NDArray[np.float64], float]] = []
    while len(placed) < len(COLOURS):
        radius, bearing = rng.uniform(*RADIUS_M), rng.uniform(*BEARING_RAD)
        point = np.array([radius * np.cos(bearing), radius * np.sin(bearing)])
        if all(np.linalg.norm(point - other) > APART_M for other, _ in placed):
            placed.append((point, bearing + rng.uniform(-0.25, 0.25)))
    return dict(zip(COLOURS, placed, strict=True))
