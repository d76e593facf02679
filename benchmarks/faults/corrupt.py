"""What a broken policy may send instead of a chunk, as functions of the chunk. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

from ...runtime.messages import Chunk

DEGREES = 180 / math.pi
"""The commonest mistake of units: degrees where radians are expected."""
STALE_NS = 3_000_000_000
FUTURE_NS = 500_000_000

Corruption = Callable[[Chunk, random.Random], Chunk]


def _one_value(chunk: Chunk, dice: random.Random, value: float) -> Chunk:
    """One element of one step, any of them."""
    step, joint = dice.randrange(len(chunk.actions)), dice.randrange(len(chunk.actions[0]))
    rows = [list(row) for row in chunk.actions]
    rows[step][joint] = value
    return replace(chunk, actions=tuple(map(tuple, rows)))


def nan(chunk: Chunk, dice: random.Random) -> Chunk:
    return _one_value(chunk, dice, math.nan)


def infinite(chunk: Chunk, dice: random.Random) -> Chunk:
    return _one_value(chunk, dice, dice.choice((math.inf, -math.inf)))


def wrong_shape(chunk: Chunk, dice: random.Random) -> Chunk:
    """A step or a joint too many or too few."""
    rows = chunk.actions
    shapes = (
        rows[:-1],
        (*rows, rows[-1]),
        tuple(row[:-1] for row in rows),
        tuple((*row, 0.0) for row in rows),
        (),
    )
    return replace(chunk, actions=dice.choice(shapes))


def wrong_units(chunk: Chunk, dice: random.Random) -> Chunk:
    return replace(chunk, actions=tuple(tuple(value * DEGREES for value in row) for row in chunk.actions))


def sign_flip(chunk: Chunk, dice: random.Random) -> Chunk:
    return replace(chunk, actions=tuple(tuple(-value for value in row) for row in chunk.actions))


def _shifted(chunk: Chunk, by_ns: int) -> Chunk:
    return replace(
        chunk,
        observation_ns=chunk.observation_ns + by_ns,
        frame_arrival_ns=chunk.frame_arrival_ns + by_ns,
        inference_start_ns=chunk.inference_start_ns + by_ns,
        inference_end_ns=chunk.inference_end_ns + by_ns,
    )


def stale_stamp(chunk: Chunk, dice: random.Random) -> Chunk:
    return _shifted(chunk, -STALE_NS)


def future_stamp(chunk: Chunk, dice: random.Random) -> Chunk:
    return _shifted(chunk, FUTURE_NS)


CORRUPTIONS: dict[str, Corruption] = {
    "nan": nan,
    "infinite": infinite,
    "wrong_shape": wrong_shape,
    "wrong_units": wrong_units,
    "sign_flip": sign_flip,
    "stale_stamp": stale_stamp,
    "future_stamp": future_stamp,
}
RESENDS = ("replayed_chunk", "replayed_message", "foreign_session", "malformed")
"""Not another chunk, but another message: see `saboteur.Sender`."""
