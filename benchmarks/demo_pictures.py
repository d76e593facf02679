"""A strip of pictures of the first attempts, as the simulated camera saw them."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

PERIOD_NS = 120_000_000
ROW = 6
"""Pictures of one attempt in the strip."""
ATTEMPTS = (0, 1)


class Album:
    """Takes a picture now and then while one of the `ATTEMPTS` runs."""

    def __init__(self, camera_url: str, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._url = camera_url.rsplit("/", 1)[0] + "/snapshot.jpg"
        self._clock = clock
        self._taken_ns = 0
        self.pictures: dict[int, list[bytes]] = {attempt: [] for attempt in ATTEMPTS}

    def step(self, running: int | None) -> None:
        now = self._clock()
        if running not in self.pictures or now - self._taken_ns < PERIOD_NS:
            return
        self._taken_ns = now
        try:
            with urllib.request.urlopen(self._url, timeout=1.0) as answer:
                self.pictures[running].append(answer.read())
        except (urllib.error.URLError, TimeoutError):
            return  # A picture for show; the run does not depend on it.

    def write(self, path: Path) -> bool:
        """One row per attempt, evenly spaced in time; False without pictures."""
        import cv2
        import numpy as np

        rows = []
        for jpegs in self.pictures.values():
            if len(jpegs) >= 2:
                chosen = [jpegs[round(i * (len(jpegs) - 1) / (ROW - 1))] for i in range(ROW)]
                decoded = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) for jpeg in chosen]
                rows.append(np.hstack([image for image in decoded if image is not None]))
        if not rows or len({row.shape for row in rows}) != 1:
            return False
        return cv2.imwrite(str(path), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 88])
