"""What checkpoints do not say: robot type, names, units, order and rate, from `--contract` and `--dataset`.

A LeRobot policy folder holds sizes alone. The dataset that it was trained on knows names, rate and robot type
(`meta/info.json`, formats 2.0 to 3.0), but no units; a contract file says what is left, or all of it. Nothing
is guessed: a wrong unit moves an arm by a factor, a wrong order moves the wrong joint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from ...runtime.bundle.schema import (
    ActionContract,
    ActionElement,
    ActionSpace,
    Element,
    Label,
    Name,
    Normalisation,
    PoseConvention,
    StateContract,
    Strict,
    Unit,
)
from ..errors import SourceError
from .types import ReadOptions

MAX_BYTES = 4 << 20
Pixels = Annotated[int, Field(gt=0, le=8192)]
Value = TypeVar("Value")

_GRIPPER_UNITS = ("0_100_of_range", "normalised_gripper")


class _Element(Strict):
    name: Label
    unit: Unit
    relative: bool | None = None
    """Default: as the space says; a gripper in a space of deltas has none."""


class _Camera(Strict):
    name: Name
    height: Pixels
    width: Pixels


class ContractFile(Strict):
    """The YAML of `--contract`. What it leaves out, the dataset must say; what both say must be the same."""

    robot_type: Label | None = None
    space: ActionSpace
    rate_hz: Annotated[float, Field(gt=0, le=1000)] | None = None
    dt_s: Annotated[float, Field(gt=0, le=10)] | None = None
    action: Annotated[list[_Element], Field(min_length=1, max_length=64)]
    """In the order of the policy's output."""
    state: Annotated[list[_Element], Field(max_length=64)] | None = None
    """In the order of the policy's input; default: as `action`."""
    pose: PoseConvention | None = None
    cameras: Annotated[list[_Camera], Field(min_length=1, max_length=16)] | None = None
    """For policies that do not know theirs."""

    @model_validator(mode="after")
    def _one_rate(self) -> ContractFile:
        if self.rate_hz is not None and self.dt_s is not None:
            raise ValueError("rate_hz and dt_s say the same; give one")
        if self.state is not None and any(element.relative is not None for element in self.state):
            raise ValueError("elements of the state are never relative")
        return self

    @property
    def period_s(self) -> float | None:
        return self.dt_s if self.rate_hz is None else 1.0 / self.rate_hz


@dataclass(frozen=True)
class DatasetInfo:
    """What a LeRobot dataset says of itself."""

    path: Path
    robot_type: str | None
    fps: float | None
    action: tuple[str, ...] | None
    state: tuple[str, ...] | None
    cameras: tuple[str, ...]


@dataclass(frozen=True)
class RobotContract:
    """Robot, elements and rate of one policy."""

    robot_type: str
    space: ActionSpace
    dt_s: float
    action: tuple[ActionElement, ...]
    state: tuple[Element, ...]
    """Empty for a policy without state."""
    pose: PoseConvention | None
    origin: str
    """Which files said it."""
    cameras: tuple[tuple[str, int, int], ...] = ()
    """Name, height and width; none where nobody said them."""

    def one_camera(self, default: tuple[str, int, int]) -> tuple[str, int, int]:
        """The camera of a policy with one. Raises `SourceError` for several."""
        if len(self.cameras) > 1:
            raise SourceError(f"{self.origin} names {len(self.cameras)} cameras, the policy has one")
        return self.cameras[0] if self.cameras else default

    def action_contract(self, steps: int, normalisation: Normalisation) -> ActionContract:
        """Raises `ValidationError` (pydantic) where the contract contradicts itself."""
        return ActionContract(
            space=self.space,
            elements=list(self.action),
            steps=steps,
            dt_s=self.dt_s,
            normalisation=[normalisation],
            pose=self.pose,
        )

    def state_contract(self, normalisation: Normalisation | None) -> StateContract | None:
        """None for a policy without state."""
        if normalisation is None:
            return None
        return StateContract(elements=list(self.state), normalisation=normalisation)


def read_robot_contract(options: ReadOptions, action_size: int, state_size: int) -> RobotContract:
    """The contract of a policy with outputs and states of these sizes (0: no state).

    Raises `SourceError` saying what is missing and how to give it, where sides differ, or a size.
    """
    file = None if options.contract is None else read_contract_file(options.contract)
    dataset = None if options.dataset is None else read_dataset(options.dataset)
    if file is None:
        raise SourceError(_no_units(dataset, action_size))
    origin = " and ".join(str(path.name) for path in (options.contract, options.dataset) if path is not None)
    names = [element.name for element in file.action]
    state = file.action if file.state is None else file.state
    _same(dataset, "action", names, None if dataset is None else dataset.action)
    if state_size:
        _same(
            dataset, "observation.state", [e.name for e in state], None if dataset is None else dataset.state
        )
    for what, elements, size in (("actions", file.action, action_size), ("states", state, state_size)):
        if size and len(elements) != size:
            raise SourceError(
                f"{options.contract} names {len(elements)} elements of the {what}, the policy has {size}; "
                "name all of them in its order"
            )
    relative = file.space in ("joint_delta", "ee_delta")
    for element in file.action if relative else ():
        if element.relative is None and element.unit in _GRIPPER_UNITS:
            raise SourceError(
                f"{options.contract}: in a space of deltas most policies give the gripper as a place all the "
                f"same: say it of {element.name} (`relative: false`, or true)"
            )
    return RobotContract(
        robot_type=_either(
            "robot type",
            options.robot_type or file.robot_type,
            dataset and dataset.robot_type,
            "robot_type: so101",
        ),
        space=file.space,
        dt_s=_period(file, dataset),
        action=tuple(
            ActionElement(name=e.name, unit=e.unit, relative=relative if e.relative is None else e.relative)
            for e in file.action
        ),
        state=tuple(Element(name=e.name, unit=e.unit) for e in state) if state_size else (),
        pose=file.pose,
        origin=origin,
        cameras=tuple((c.name, c.height, c.width) for c in file.cameras or ()),
    )


def read_contract_file(path: Path) -> ContractFile:
    """Raises `SourceError`."""
    try:
        values = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise SourceError(f"the contract {path} is no YAML: {reason}") from error
    except RecursionError as error:
        raise SourceError(f"the contract {path} is nested too deeply") from error
    try:
        return ContractFile.model_validate(values)
    except ValidationError as error:
        rows = [f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()]
        raise SourceError(f"the contract {path} is not valid: {'; '.join(rows[:5])}") from error


def read_dataset(path: Path) -> DatasetInfo:
    """`meta/info.json` of a LeRobot dataset folder, formats 2.0 to 3.0. Raises `SourceError`."""
    file = path / "meta" / "info.json"
    try:
        info = json.loads(_text(file))
        features = info["features"]
        found = {name: spec["dtype"] for name, spec in features.items()}
        robot_type, fps = info.get("robot_type"), info.get("fps")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(
            f"{file} is no description of a LeRobot dataset ({type(error).__name__}: {error}); give the "
            "folder that holds meta/info.json of format 2.0 to 3.0"
        ) from error
    if (
        not isinstance(robot_type, str | None)
        or isinstance(fps, bool)
        or not isinstance(fps, int | float | None)
    ):
        raise SourceError(f"{file}: robot_type {robot_type!r} and fps {fps!r} are not a text and a number")
    if fps is not None and not 0 < fps <= 1000:
        raise SourceError(f"{file}: {fps} frames per second are no rate")
    prefix = "observation.images."
    return DatasetInfo(
        path=path,
        robot_type=robot_type or None,
        fps=None if fps is None else float(fps),
        action=_names(file, "action", features.get("action")),
        state=_names(file, "observation.state", features.get("observation.state")),
        cameras=tuple(
            name.removeprefix(prefix)
            for name, dtype in found.items()
            if name.startswith(prefix) and dtype in ("video", "image")
        ),
    )


def joint_name(name: str) -> str:
    """LeRobot's name -> the joint's: "shoulder_pan.pos", "main_shoulder_pan" -> "shoulder_pan"."""
    return name.removesuffix(".pos").removeprefix("main_")


def _names(file: Path, feature: str, spec: Any) -> tuple[str, ...] | None:
    """The names of a feature: a list, or in older datasets a list under one key ("motors")."""
    if spec is None:
        return None
    names = spec.get("names")
    if isinstance(names, dict) and len(names) == 1:
        names = next(iter(names.values()))
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise SourceError(f"{file}: the names of {feature} are {names!r}, expected a list of texts")
    out = tuple(joint_name(name) for name in names)
    if len(set(out)) != len(out) or [len(out)] != spec.get("shape", [len(out)]):
        raise SourceError(f"{file}: {feature} has names {list(out)} and shape {spec.get('shape')}: ambiguous")
    return out


def _same(dataset: DatasetInfo | None, what: str, names: list[str], known: tuple[str, ...] | None) -> None:
    if dataset is not None and known is not None and list(known) != names:
        raise SourceError(
            f"the contract names {what} {names}, the dataset {dataset.path} {list(known)}; the order is that "
            "of the policy's numbers: correct the contract"
        )


def _either(what: str, first: Value | None, second: Value | None, example: str) -> Value:
    """What the contract says, else what the dataset says; the same where both do."""
    if first is not None and second is not None and first != second:
        raise SourceError(
            f"the {what} is {first!r} by the contract and {second!r} by the dataset; which is it?"
        )
    found = second if first is None else first
    if found is None:
        raise SourceError(
            f"the {what} is not known: the checkpoint does not say it; write it into --contract ({example}), "
            "or give the dataset that the policy was trained on with --dataset"
        )
    return found


def _period(file: ContractFile, dataset: DatasetInfo | None) -> float:
    known = None if dataset is None or dataset.fps is None else 1.0 / dataset.fps
    given = file.period_s
    if given is not None and known is not None and abs(given - known) <= 1e-3 * known:
        return given
    return _either("time between two actions, in s,", given, known, "rate_hz: 30")


def _no_units(dataset: DatasetInfo | None, size: int) -> str:
    names = dataset.action if dataset is not None and dataset.action is not None else None
    rows = ", ".join(f"{{name: {name}, unit: deg}}" for name in names or ["shoulder_pan", "..."])
    return (
        f"names, units and order of the {size} actions are not known: the checkpoint does not say them"
        f"{', and a LeRobot dataset says no units' if names else ''}. Write them into a file and give it "
        f"with --contract: robot_type, rate_hz, space: joint_position, action: [{rows}] (units: rad, deg, m, "
        "pm100_of_range, 0_100_of_range, normalised_gripper)"
    )


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise SourceError(f"{path} is larger than {MAX_BYTES >> 20} MiB: it is not what it should be")
        return raw.decode("utf-8")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is no text (UTF-8)") from error
