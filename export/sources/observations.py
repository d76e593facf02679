"""What parity is judged on: observations that the user recorded, or made-up ones that show less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.bundle.npz import read_npz
from ...runtime.bundle.schema import Evidence, History, ImageSpec, StateContract
from ..errors import SourceError
from .types import Moment, Observation, ReadOptions

MAX_BYTES = 1 << 30
SYNTHETIC = 8
"""Made-up observations."""


def gather(
    options: ReadOptions,
    cameras: Sequence[ImageSpec],
    history: History | None,
    state: StateContract | None,
    texts: Sequence[str],
) -> tuple[tuple[Observation, ...], Evidence]:
    """The user's recording, else made-up observations. `texts`: instructions that the policy takes, or one
    that it ignores. Raises `SourceError`."""
    if options.observations is None:
        made = synthetic(cameras, history, state, texts)
        text = "made-up pictures and states: the graphs equal our reading of the checkpoint, no more is shown"
        return made, Evidence(kind="synthetic", text=text, samples=len(made))
    recorded = read_observations(options.observations, cameras, history, state, texts[0])
    return recorded, Evidence(kind="recorded", text=options.observations.name, samples=len(recorded))


def read_observations(
    path: Path,
    cameras: Sequence[ImageSpec],
    history: History | None,
    state: StateContract | None,
    text: str,
) -> tuple[Observation, ...]:
    """A recording (.npz): `image.<camera>` uint8 [N, h, w, 3], `state` [N, n] in the contract's units, `text`
    [N] where instructions matter; with a history [N, steps, ...], oldest first. Raises `SourceError`."""
    wanted = [f"image.{camera.name}" for camera in cameras] + (["state"] if state is not None else [])
    try:
        with path.open("rb") as file:
            arrays = read_npz(file.read(MAX_BYTES), MAX_BYTES)
        if missing := [name for name in wanted if name not in arrays]:
            raise ValueError(f"it has no {' and no '.join(missing)}")
        if not (count := len(arrays[wanted[0]])):
            raise ValueError("it is empty")
        texts = [str(each) for each in arrays["text"]] if "text" in arrays else [text] * count
        for name in wanted:
            _check(name, arrays[name], count, history, state)
        if len(texts) != count:
            raise ValueError(f"it has {len(texts)} texts and {count} pictures")
    except (OSError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise SourceError(
            f"the recorded observations {path} cannot be used ({reason}); give a file with "
            f"{', '.join(wanted)} and, for policies with language, text"
        ) from error
    return tuple(_observation(arrays, i, cameras, history, state, texts[i]) for i in range(count))


def synthetic(
    cameras: Sequence[ImageSpec], history: History | None, state: StateContract | None, texts: Sequence[str]
) -> tuple[Observation, ...]:
    """Random pictures of coarse blocks, and states around the middle of what the policy was trained on."""
    random = np.random.default_rng(0)
    steps = 1 if history is None else history.steps
    out = []
    for i in range(SYNTHETIC):
        moments = []
        for _ in range(steps):
            images = {camera.name: _blocks(random, camera.height, camera.width) for camera in cameras}
            values = None
            if state is not None:
                norm = state.normalisation
                draw = random.uniform(-1, 1, len(norm.offset))
                values = np.asarray(norm.offset) + draw * np.asarray(norm.scale)
            moments.append(Moment(images, values))
        out.append(Observation(tuple(moments), texts[i % len(texts)]))
    return tuple(out)


def _check(
    name: str, value: NDArray[Any], count: int, history: History | None, state: StateContract | None
) -> None:
    steps = () if history is None else (history.steps,)
    if name == "state":
        size = 0 if state is None else len(state.elements)
        if value.shape != (count, *steps, size) or value.dtype.kind not in "fiu":
            raise ValueError(f"state is {value.dtype} {list(value.shape)}, expected {[count, *steps, size]}")
        if not np.isfinite(value).all():
            raise ValueError("state is not finite")
    elif value.dtype != np.uint8 or value.shape[:-3] != (count, *steps) or value.shape[-1:] != (3,):
        raise ValueError(
            f"{name} is {value.dtype} {list(value.shape)}, expected uint8 {[count, *steps, 'h', 'w', 3]}"
        )


def _observation(
    arrays: Mapping[str, NDArray[Any]],
    index: int,
    cameras: Sequence[ImageSpec],
    history: History | None,
    state: StateContract | None,
    text: str,
) -> Observation:
    def moments(name: str) -> NDArray[Any]:
        return arrays[name][index] if history is not None else arrays[name][index : index + 1]

    pictures = {camera.name: moments(f"image.{camera.name}") for camera in cameras}
    steps = 1 if history is None else history.steps
    states = [None] * steps if state is None else list(moments("state").astype(np.float64))
    return Observation(
        tuple(Moment({name: rows[k] for name, rows in pictures.items()}, states[k]) for k in range(steps)),
        text,
    )


def _blocks(random: np.random.Generator, height: int, width: int, size: int = 8) -> NDArray[np.uint8]:
    coarse = random.integers(0, 256, (height // size + 1, width // size + 1, 3), np.uint8)
    return coarse.repeat(size, 0).repeat(size, 1)[:height, :width]
