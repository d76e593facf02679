"""How a LeRobot policy normalises: by the statistics of the steps around it (0.4) or in its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import SourceError
from .safetensors import read_header, read_tensors

MODES: dict[str, tuple[str, str]] = {
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
"""Mode of normalisation -> the statistics it needs. The first is the centre or the lower end."""
OLD_EPS = 1e-8
PLAIN_FILE = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"
"""A file in the policy's own folder."""
REMEDY = "save the policy with the statistics of its training data"

Values = dict[str, dict[str, torch.Tensor]]
"""Feature -> statistic -> its tensor."""


@dataclass(frozen=True)
class Feature:
    """An input or output of the policy."""

    name: str
    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Affine:
    """Normalised = (raw - offset) / scale; raw = normalised * scale + offset. Both [elements], or [3] of a
    picture whose raw values are 0..1."""

    mode: str
    offset: NDArray[np.float64]
    scale: NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """What one normaliser, or un-normaliser, knows."""

    path: Path
    modes: Mapping[str, str]
    """Kind of feature -> mode."""
    values: Mapping[str, Mapping[str, torch.Tensor]]
    eps: float = OLD_EPS
    old: bool = False
    """As before 0.4: eps is added to every width, not only put in the place of 0."""
    only: frozenset[str] | None = None
    """The observations that it normalises, where it is restricted to some."""

    def affine(self, feature: Feature, *, inverse: bool = False) -> Affine:
        """How this feature is normalised, or with `inverse` un-normalised: LeRobot's epsilons are in one.

        Raises `SourceError` for an unknown mode and for statistics that are missing or cannot be meant.
        """
        mode = self.modes.get(feature.kind, "IDENTITY")
        channels = feature.shape[0]
        if mode == "IDENTITY" or (self.only is not None and feature.name not in self.only):
            return Affine("IDENTITY", np.zeros(channels), np.ones(channels))
        if mode not in MODES:
            raise SourceError(
                f"{self.path}: {feature.name} is normalised by {mode!r}, which this version does not know; "
                f"it knows IDENTITY, {', '.join(MODES)}"
            )
        first, second = (self._statistic(feature, mode, which) for which in MODES[mode])
        if mode == "MEAN_STD":
            return Affine(mode, first, second if inverse else second + self.eps)
        width = second - first
        if (width < 0).any():
            low, high = MODES[mode]
            raise SourceError(f"{self.path}: {high} of {feature.name} is below its {low}; {REMEDY}")
        if not self.old:
            width[width == 0] = self.eps
        elif not inverse:
            width += self.eps
        return Affine(mode, first + width / 2, width / 2)

    def _statistic(self, feature: Feature, mode: str, which: str) -> NDArray[np.float64]:
        value = self.values.get(feature.name, {}).get(which)
        if value is None:
            raise SourceError(
                f"{self.path}: {feature.name} is normalised by {mode}, but its `{which}` is missing (LeRobot "
                f"would pass the feature on as it is, in silence); {REMEDY}"
            )
        shape = (feature.shape[0], 1, 1) if feature.kind == "VISUAL" else feature.shape
        if tuple(value.shape) != shape:
            raise SourceError(
                f"{self.path}: `{which}` of {feature.name} has shape {list(value.shape)}, expected "
                f"{list(shape)}; {REMEDY}"
            )
        numbers = value.to(torch.float64).numpy().reshape(-1)
        if not np.isfinite(numbers).all() or (which == "std" and (numbers < 0).any()):
            raise SourceError(
                f"{self.path}: `{which}` of {feature.name} was never set, or is damaged "
                f"({numbers[:4].tolist()}); {REMEDY}"
            )
        return numbers


def check_modes(path: Path, table: Any) -> dict[str, str]:
    """Raises `SourceError` unless it is a table of texts."""
    if not isinstance(table, dict) or not all(isinstance(mode, str) for mode in table.values()):
        raise SourceError(f"{path}: the modes of normalisation are {str(table)[:200]}, expected a table")
    return dict(table)


def split_buffers(
    path: Path, tensors: Mapping[str, torch.Tensor], features: Sequence[Feature]
) -> tuple[dict[str, Values], dict[str, torch.Tensor]]:
    """Statistics of the format before 0.4 by the module that holds them, and the tensors without them.

    In the names of buffers `_` may stand for a dot or for itself, so they are compared with the names that
    the policy's features have there. Raises `SourceError`.
    """
    known: dict[str, str] = {}
    for feature in features:
        other = known.setdefault(feature.name.replace(".", "_"), feature.name)
        if other != feature.name:
            raise SourceError(f"{path}: {feature.name} and {other} would share their statistics; rename one")
    values: dict[str, Values] = {"normalize_inputs": {}, "normalize_targets": {}, "unnormalize_outputs": {}}
    rest = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"((?:un)?normalize_(?:inputs|targets|outputs))\.buffer_(.+)\.(\w+)", name)
        if match is None:
            rest[name] = tensor
        elif match[1] not in values or match[2] not in known:
            raise SourceError(f"{path}: the statistics {name} belong to no feature of its config.json")
        else:
            values[match[1]].setdefault(known[match[2]], {})[match[3]] = tensor
    return values, rest


def read_step(folder: Path, step: Mapping[str, Any]) -> Statistics:
    """The statistics of a step `normalizer_processor` or `unnormalizer_processor`. Raises `SourceError`."""
    name, state = step["registry_name"], step["state_file"]
    eps, only = step.get("eps", OLD_EPS), step.get("normalize_observation_keys")
    if not isinstance(eps, float) or not 0 < eps < 1 or not isinstance(only, list | None):
        raise SourceError(f"{folder}: {name} has an eps of {eps!r} and the keys {str(only)[:100]}")
    values: Values = {}
    if state is not None:
        if not isinstance(state, str) or not re.fullmatch(PLAIN_FILE, state):
            raise SourceError(f"{folder}: the statistics of {name} would lie in {state!r}")
        for key, tensor in read_tensors(read_header(folder / state)).items():
            feature, _, statistic = key.rpartition(".")
            values.setdefault(feature, {})[statistic] = tensor
    modes = check_modes(folder, step.get("norm_map", {}))
    return Statistics(folder, modes, values, eps, only=None if only is None else frozenset(map(str, only)))
