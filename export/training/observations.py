"""Recorded observations that travel with a checkpoint, for parity checks and self-tests after export."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .demonstrations import Demonstrations

COUNT = 48


def save_observations(path: Path, demonstrations: Demonstrations, held_out: int, seed: int = 0) -> int:
    """Writes up to `COUNT` moments of held-out episodes, spread over all instructions; returns how many.

    Every `held_out`-th episode counts as held out. Arrays: image uint8 [N, 96, 96, 3], state float32 [N, 6]
    (rad, gripper percent), text [N]. Raises `ValueError` where the demonstrations hold none.
    """
    rows = np.flatnonzero(demonstrations.episode % held_out == held_out - 1)
    if len(rows) == 0:
        raise ValueError(f"none of the episodes is held out; record at least {held_out}")
    rows = np.random.default_rng(seed).permutation(rows)
    rounds: dict[str, int] = {}
    turns = []
    for row in rows:
        text = str(demonstrations.text[row])
        turns.append(rounds.get(text, 0))
        rounds[text] = turns[-1] + 1
    # One of every instruction, then a second of every instruction, and so on.
    chosen = np.sort(rows[np.argsort(turns, kind="stable")[:COUNT]])
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(
        partial,
        image=demonstrations.image[chosen],
        state=demonstrations.state[chosen],
        text=demonstrations.text[chosen],
    )
    partial.replace(path)
    return len(chosen)
