"""openpi's PyTorch folders: `model.safetensors`, `assets/<asset id>/norm_stats.json`, `config.json`.

Much of an openpi policy is Python in its training configuration. Its folder does not say which cameras a
policy was trained with, so config.json (which openpi's converter from JAX writes, and its trainer does not)
must: `action_horizon`, and `cameras`, a table of height and width by name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import SourceError
from ..models.pi0 import Fit
from .lerobot import ACTION, CONFIG, STATE, WEIGHTS, PolicyFolder, read_json
from .lerobot_statistics import Feature, Statistics, Values
from .safetensors import read_header, read_tensors

CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
"""In the order in which every policy sees them; those that are not there are masked."""
EPS = 1e-6
STATISTICS = {STATE: "state", ACTION: "actions"}
Pixels = Annotated[int, Field(gt=0, le=8192)]


@dataclass(frozen=True)
class Checkpoint:
    """What pi0's checkpoints say in either format, as a policy folder of LeRobot."""

    folder: PolicyFolder
    fit: Fit
    tokens: int
    horizon: int
    steps: int
    time_sums: bool
    state_text: int
    """Values of the state in the instruction (pi0.5)."""
    periods: tuple[float, float] = (4e-3, 4.0)
    picture: int = 224


class OpenpiConfig(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)
    action_horizon: Annotated[int, Field(gt=0, le=4096)]
    cameras: Annotated[dict[str, tuple[Pixels, Pixels]], Field(min_length=1, max_length=len(CAMERAS))]
    max_token_len: Annotated[int, Field(gt=0, le=4096)] | None = None
    num_steps: Annotated[int, Field(gt=0, le=1000)] = 10
    adapt_to_pi: Literal[False]
    """True: openpi's ALOHA transforms flip joints and rescale grippers, which this version does not do."""
    discrete_state_input: bool | None = None
    """pi0.5: whether the state is written into the instruction."""


class _Norm(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    mean: list[float]
    std: list[float]
    q01: list[float] | None = None
    q99: list[float] | None = None


def is_checkpoint(path: Path, weight: str) -> bool:
    """Whether the folder has openpi's weights, and `weight` among them. Never raises."""
    try:
        names = read_header(path / WEIGHTS)
    except SourceError:
        return False
    return weight in names and any(name.startswith("paligemma_with_expert.") for name in names)


def read(path: Path, family: str) -> Checkpoint:
    """Raises `SourceError`."""
    config = _config(path)
    if family == "pi05" and not config.discrete_state_input:
        raise SourceError(
            f"{path / CONFIG} does not say that the state is written into the instruction: write what the "
            'training configuration says, "discrete_state_input": true (its default); pi0.5 policies trained '
            "without (false) are not read by this version"
        )
    pictures = tuple(
        Feature(f"observation.images.{name}", "VISUAL", (3, *config.cameras[name]))
        for name in CAMERAS
        if name in config.cameras
    )
    values, mode = _statistics(path), "QUANTILES" if family == "pi05" else "MEAN_STD"
    modes = {"STATE": mode, "ACTION": mode}
    state, action = (Feature(name, kind, _shape(path, values, name)) for name, kind in
                     ((STATE, "STATE"), (ACTION, "ACTION")))  # fmt: skip
    before = Statistics(path, modes, values, EPS, old=True)
    # openpi adds its eps in this direction too; LeRobot's older format has widths as they are.
    widened = {
        name: {key: value + EPS if key in ("std", "q99") else value for key, value in statistics.items()}
        for name, statistics in values.items()
    }
    after = Statistics(path, modes, widened, EPS, old=True)
    tensors = read_tensors(read_header(path / WEIGHTS))
    folder = PolicyFolder(path, family, {}, (*pictures, state), (action,), tensors, before, after)
    return Checkpoint(
        folder, fit="openpi", tokens=config.max_token_len or (200 if family == "pi05" else 48),
        horizon=config.action_horizon, steps=config.num_steps, time_sums=True, state_text=state.shape[0],
    )  # fmt: skip


def _config(path: Path) -> OpenpiConfig:
    needed = (
        f'write into {path / CONFIG} what its training configuration says: {{"action_horizon": 50, '
        f'"cameras": {{"base_0_rgb": [480, 640], ...}}, "adapt_to_pi": false}} (height, width; names of '
        f"{', '.join(CAMERAS)}; a policy that was trained with adapt_to_pi is not read by this version)"
    )
    if not (path / CONFIG).is_file():
        raise SourceError(f"{path} does not say horizon and cameras; {needed}")
    try:
        config = OpenpiConfig.model_validate_json(json.dumps(read_json(path / CONFIG)), strict=True)
    except ValidationError as error:
        rows = [f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()]
        text = "; ".join(rows[:4]).replace("\n", " ")
        raise SourceError(f"{path / CONFIG} cannot be used ({text}); {needed}") from error
    if unknown := sorted(set(config.cameras) - set(CAMERAS)):
        raise SourceError(f"{path / CONFIG} names the cameras {', '.join(unknown)}; {needed}")
    return config


def _statistics(path: Path) -> Values:
    found = sorted((path / "assets").glob("**/norm_stats.json"))
    if len(found) != 1:
        names = ", ".join(str(file.parent.relative_to(path)) for file in found) or "none"
        raise SourceError(
            f"{path} must hold the statistics of one robot, assets/<asset id>/norm_stats.json; it has "
            f"{names}: copy the right one there"
        )
    said = read_json(found[0]).get("norm_stats")
    values: Values = {}
    for feature, name in STATISTICS.items():
        try:
            norm = _Norm.model_validate(said.get(name) if isinstance(said, dict) else None)
        except ValidationError as error:
            raise SourceError(
                f"{found[0]} has no usable statistics of {name}; compute them with openpi's "
                "compute_norm_stats.py"
            ) from error
        known = {key: value for key, value in norm.model_dump().items() if value is not None}
        values[feature] = {key: torch.tensor(value, dtype=torch.float64) for key, value in known.items()}
    return values


def _shape(path: Path, values: Values, feature: str) -> tuple[int, ...]:
    lengths = {len(value) for value in values[feature].values()}
    if len(lengths) != 1 or 0 in lengths:
        raise SourceError(f"{path}: the statistics of {STATISTICS[feature]} have different lengths")
    return (lengths.pop(),)
