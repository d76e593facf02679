"""Whether a picture shows anything: a covered lens, a dead sensor or a failed exposure leaves one shade."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

AREAS = 8
"""The picture is judged by the means of `AREAS` x `AREAS` areas: noise, also that of a sensor which turns its
gain up in the dark, averages out; whatever a scene shows, however dark, makes areas differ."""
_SAMPLES = 20
"""Per area and direction, about so many pixels are looked at: 26,000 of a picture, in 0.1 to 0.3 ms. Noise of
10 levels then leaves differences of 2 to 3."""
BLACK = "black_camera"
"""Its row in the deadline table."""


def spread(image: NDArray[np.uint8]) -> float:
    """How much the areas of a picture [height, width, channels] differ, in 8-bit levels: the largest over the
    channels, so that a scene of one brightness and two colours counts as one that shows something."""
    rows, columns = (min(AREAS, size) for size in image.shape[:2])
    if rows == 0 or columns == 0:
        return 0.0
    height, width = (max(1, size // (AREAS * _SAMPLES)) for size in image.shape[:2])
    sampled = image[::height, ::width].astype(np.float32)
    areas = cv2.resize(sampled, (columns, rows), interpolation=cv2.INTER_AREA).reshape(rows * columns, -1)
    return float((areas.max(axis=0) - areas.min(axis=0)).max())
