"""A policy folder of LeRobot: what `config.json`, the weights and the steps around the policy say.

Format since 0.4: statistics in files that the steps of `policy_preprocessor.json` and
`policy_postprocessor.json` name. Format before: buffers inside the weights. Nothing is executed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import SourceError
from ..models.pictures import Camera
from .lerobot_statistics import PLAIN_FILE, Feature, Statistics, check_modes, read_step, split_buffers
from .safetensors import Stored, read_header, read_tensors

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
MAX_JSON = 32_000_000
STATE, ACTION = "observation.state", "action"
KINDS = ("STATE", "VISUAL", "ACTION", "ENV")
HARMLESS = frozenset({"to_batch_processor", "device_processor", "rename_observations_processor"})
"""Steps around a policy that change no value."""
NEUTRAL = re.compile(
    r"type|device|use_amp|use_peft|push_to_hub|repo_id|private|tags|license|pretrained_path|n_obs_steps"
    r"|normalization_mapping|(in|out)put_features|optimizer_.*|scheduler_.*|drop_n_last_frames"
    r"|compile_(model|mode)"
)
"""Keys of config.json that say nothing about what a policy computes, or are read here."""


class PolicyConfig(BaseModel):
    """Base of what each family reads of config.json."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Config = TypeVar("Config", bound=PolicyConfig)


@dataclass(frozen=True)
class PolicyFolder:
    """A policy folder; its weights are mapped, not loaded."""

    path: Path
    kind: str
    config: Mapping[str, Any]
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    tensors: Mapping[str, torch.Tensor]
    """The weights, without statistics."""
    before: Statistics
    after: Statistics
    steps: tuple[Mapping[str, Any], ...] = ()
    """Configuration of each step before the policy, with its `registry_name`; none in the older format."""
    renames: Mapping[str, str] = field(default_factory=dict)
    """Feature -> what the robot called it while recording, where that is another name."""

    @property
    def pictures(self) -> tuple[Feature, ...]:
        return tuple(feature for feature in self.inputs if feature.kind == "VISUAL")

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """In the policy's order. Raises `SourceError`."""
        out = []
        for feature in self.pictures:
            affine, (_, height, width) = self.before.affine(feature), feature.shape
            offset, scale = tuple(affine.offset.tolist()), tuple(affine.scale.tolist())
            out.append(Camera(self._camera_name(feature), height, width, offset, scale))
        if len({camera.name for camera in out}) != len(out):
            raise SourceError(f"{self.path}: two cameras are called {[camera.name for camera in out]}")
        return tuple(out)

    def _camera_name(self, feature: Feature) -> str:
        """`observation.images.top` -> `top`."""
        name = self.renames.get(feature.name, feature.name)
        return re.sub(r"^observation\.(images\.)?", "", name)

    def vector(self, name: str) -> Feature:
        """The input or output of that name; without elements where there is none.

        Raises `SourceError` unless it is a vector.
        """
        found = next((feature for feature in (*self.inputs, *self.outputs) if feature.name == name), None)
        if found is not None and len(found.shape) != 1:
            raise SourceError(f"{self.path}: {name} has shape {list(found.shape)}, expected a vector")
        return found or Feature(name, "", (0,))

    def check_interface(self, *, state: bool) -> None:
        """Raises `SourceError` unless pictures (and the state, with `state` always) go in and actions out."""
        others = [(feature.name, feature.kind) for feature in self.inputs if feature not in self.pictures]
        wanted = [[(STATE, "STATE")]] if state else [[(STATE, "STATE")], []]
        actions = [(feature.name, feature.kind) for feature in self.outputs]
        if not self.pictures or others not in wanted or actions != [(ACTION, "ACTION")]:
            raise SourceError(
                f"{self.path}: a policy of type {self.kind} needs pictures and {'' if state else 'perhaps '}"
                f"{STATE} in, and {ACTION} out; this one has {', '.join(f.name for f in self.inputs)} in, "
                f"{', '.join(f.name for f in self.outputs)} out"
            )

    def check_steps(self, *known: str) -> None:
        """Raises `SourceError` unless the steps before the policy are known, or change nothing."""
        for step in self.steps:
            if step["registry_name"] not in HARMLESS | {"normalizer_processor", *known}:
                raise SourceError(
                    f"{self.path}: {PREPROCESSOR} has the step {step['registry_name']!r}, which this "
                    f"version does not know for a policy of type {self.kind}"
                )

    def settings(self, model: type[Config], ignored: str) -> Config:
        """What the family reads of config.json. `ignored`: expression for keys that only training uses.

        Raises `SourceError` for a key that neither knows and that is not switched off: it may change what the
        policy computes.
        """
        rest = {key: value for key, value in self.config.items() if not NEUTRAL.fullmatch(key)}
        known = {key: value for key, value in rest.items() if key in model.model_fields}
        off = (None, False, [], {}, "")
        unknown = sorted(
            key
            for key, value in rest.items()
            if key not in known and not re.fullmatch(ignored, key) and value not in off
        )
        if unknown:
            raise SourceError(
                f"{self.path}: config.json sets {', '.join(unknown[:5])}, which this version does not know "
                "and which may change what the policy computes"
            )
        try:
            return model.model_validate_json(json.dumps(known), strict=True)
        except ValidationError as error:
            rows = [f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()]
            text = "; ".join(rows[:4]).replace("\n", " ")
            raise SourceError(f"{self.path}: config.json cannot be used: {text}") from error


def policy_type(path: Path) -> str | None:
    """`type` of the folder's config.json; None when it is no policy folder. Never raises."""
    try:
        config = read_json(path / CONFIG)
    except SourceError:
        return None
    kind = config.get("type")
    return kind if isinstance(kind, str) and "input_features" in config else None


def read_folder(path: Path) -> PolicyFolder:
    """Reads a policy folder. Raises `SourceError`."""
    config = read_json(path / CONFIG)
    kind = config.get("type")
    if not isinstance(kind, str):
        raise SourceError(f"{path / CONFIG} does not say a `type`; expected a LeRobot policy folder")
    if config.get("use_peft"):
        raise SourceError(f"{path} holds adapters (PEFT), not a whole policy; merge them into it first")
    inputs, outputs = (_features(path, config, key) for key in ("input_features", "output_features"))
    values, tensors = split_buffers(path, read_weights(path), (*inputs, *outputs))
    if not (path / PREPROCESSOR).is_file():
        modes = check_modes(path, config.get("normalization_mapping", {}))
        before = Statistics(path, modes, values["normalize_inputs"], old=True)
        after = Statistics(path, modes, values["unnormalize_outputs"], old=True)
        return PolicyFolder(path, kind, config, inputs, outputs, tensors, before, after)
    if any(values.values()):
        raise SourceError(
            f"{path} has statistics twice, in {WEIGHTS} and beside {PREPROCESSOR}; remove those that it was "
            "not trained with"
        )
    steps, after_steps = _steps(path, PREPROCESSOR), _steps(path, POSTPROCESSOR)
    for step in after_steps:
        if step["registry_name"] not in HARMLESS | {"unnormalizer_processor"}:
            raise SourceError(
                f"{path}: {POSTPROCESSOR} has the step {step['registry_name']!r}, which this version does "
                "not know"
            )
    before = read_step(path, _only(path, steps, "normalizer_processor"))
    after = read_step(path, _only(path, after_steps, "unnormalizer_processor"))
    return PolicyFolder(
        path, kind, config, inputs, outputs, tensors, before, after, tuple(steps), _renames(path, steps)
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `SourceError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON + 1)
        if len(data) > MAX_JSON:
            raise ValueError(f"it is larger than {MAX_JSON} bytes")
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise SourceError(f"{path} cannot be read ({reason}); copy the policy folder again") from error
    return value


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A folder's weights, mapped. Raises `SourceError`."""
    return read_tensors(_stored(path))


def _stored(path: Path) -> dict[str, Stored]:
    """Where the weights lie: in one file, or in those that the index names."""
    if (path / WEIGHTS).is_file() or not (path / INDEX).is_file():
        return read_header(path / WEIGHTS)
    placed = read_json(path / INDEX).get("weight_map")
    if not isinstance(placed, dict) or not all(
        isinstance(file, str) and re.fullmatch(PLAIN_FILE, file) for file in placed.values()
    ):
        raise SourceError(f"{path / INDEX} does not say in which files the weights lie; copy it again")
    out: dict[str, Stored] = {}
    for file in sorted(set(placed.values())):
        out |= read_header(path / file)
    if set(out) != set(placed):
        name = min(set(out) ^ set(placed))
        raise SourceError(f"{path / INDEX} and its files disagree about the weight {name}; copy them again")
    return out


def _features(path: Path, config: Mapping[str, Any], key: str) -> tuple[Feature, ...]:
    table = config.get(key)
    if not isinstance(table, dict) or not table:
        raise SourceError(f"{path / CONFIG} has no {key}")
    out = []
    for name, entry in table.items():
        kind, shape = (entry.get("type"), entry.get("shape")) if isinstance(entry, dict) else (None, None)
        sizes = isinstance(shape, list) and all(type(size) is int and 0 < size <= 8192 for size in shape)
        if kind not in KINDS or not shape or not sizes:
            raise SourceError(
                f"{path / CONFIG}: the feature {name!r} is {str(entry)[:200]}, expected a shape and a type "
                f"of {', '.join(KINDS)}"
            )
        if kind == "VISUAL" and (len(shape) != 3 or shape[0] != 3):
            raise SourceError(f"{path / CONFIG}: {name!r} has shape {shape}, expected a picture [3, h, w]")
        out.append(Feature(name, kind, tuple(shape)))
    return tuple(out)


def _steps(path: Path, file: str) -> list[dict[str, Any]]:
    """Each step's configuration with its `registry_name` and `state_file`."""
    steps = read_json(path / file).get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise SourceError(f"{path / file} has no steps; copy the policy folder again")
    out = []
    for step in steps:
        name, config = step.get("registry_name"), step.get("config", {})
        if not isinstance(name, str) or not isinstance(config, dict):
            raise SourceError(
                f"{path / file} has a step of its own, {str(step.get('class', step))[:100]!r}; only "
                "LeRobot's are known"
            )
        if name == "device_processor" and config.get("float_dtype") not in (None, "float32"):
            raise SourceError(
                f"{path / file} makes inputs {config['float_dtype']!r}; this version knows float32 alone"
            )
        out.append({**config, "registry_name": name, "state_file": step.get("state_file")})
    return out


def _only(path: Path, steps: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    found = [step for step in steps if step["registry_name"] == name]
    if len(found) != 1:
        raise SourceError(f"{path} has {len(found)} steps {name}, expected one")
    return found[0]


def _renames(path: Path, steps: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    out: dict[str, str] = {}
    for step in steps:
        table = step.get("rename_map", {})
        if not isinstance(table, dict) or not all(isinstance(new, str) for new in table.values()):
            raise SourceError(f"{path}: the rename_map {str(table)[:200]} is no table of names")
        for robot, policy in table.items():
            if out.setdefault(policy, robot) != robot:
                raise SourceError(f"{path}: two observations are renamed to {policy}; which is ambiguous")
    return out
