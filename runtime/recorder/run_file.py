"""run.json of a recording, believed only as far as it is what the recorder writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .folder import RUN_FILE

_MOST_NOTES = 5
_LONGEST_NAME = 80

Stamp = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""ns."""


class _Part(BaseModel):
    """Each field may be missing, none may be of another type."""

    model_config = ConfigDict(strict=True, extra="forbid")


class _Open(_Part):
    """Of which only some fields are read here; others may be anything."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Bundle(_Part):
    name: str = ""
    path: str = ""
    sha256: str = ""
    precision: str = ""


class _Robot(_Part):
    name: str = ""
    file: str = ""
    arm: str = ""
    calibration: str = ""


class _Options(_Open):
    dry_run: bool = False


class _PolicyLimits(_Open):
    frame_age_ns: Stamp = 0


class _Environment(_Open):
    machine: str = ""
    packages: dict[str, str] = {}


class _RunFile(_Part):
    """What `begin.with_recorder` writes."""

    name_of_schema: str = Field("", alias="schema")
    format: int = 0
    session: str = ""
    pid: int = 0
    started: str = ""
    started_ns: Stamp = 0
    utc_less_monotonic_ns: Stamp = 0
    bundle: _Bundle = _Bundle()
    robot: _Robot = _Robot()
    cameras: dict[str, str] = {}
    tasks: list[str] = []
    options: _Options = _Options()
    policy_limits: _PolicyLimits = _PolicyLimits()
    recordings: str = ""
    environment: _Environment = _Environment()


def read_run_file(content: bytes | None, notes: list[str]) -> Mapping[str, Any]:
    """What in it is as it should be; what is not is left out, and said in `notes`."""
    try:
        run = json.loads(content or b"")
    except (ValueError, RecursionError):
        run = None
    if not isinstance(run, dict):
        notes.append(f"{RUN_FILE} is {'damaged' if content else 'not there'}")
        return {}
    problems: list[str] = []
    while True:
        try:
            valid = _RunFile.model_validate(run)
            break
        except ValidationError as error:
            for row in error.errors(include_url=False, include_context=False, include_input=False):
                problems.append(f"{_name(row['loc'])}: {row['msg']}")
                _leave_out(run, row["loc"])
    notes += [f"{RUN_FILE}: {problem}; left out" for problem in problems[:_MOST_NOTES]]
    if len(problems) > _MOST_NOTES:
        notes.append(f"{RUN_FILE}: {len(problems) - _MOST_NOTES} more of its values are left out")
    return valid.model_dump(by_alias=True, exclude_unset=True)


def _name(place: Sequence[str | int]) -> str:
    """Printable, whatever it is."""
    return ascii(".".join(map(str, place)))[1:-1][:_LONGEST_NAME]


def _leave_out(content: dict[str, Any], place: Sequence[str | int]) -> None:
    """Takes away what an error is about, or the smallest object with a name that it lies in."""
    for i, key in enumerate(place):
        nested = content.get(key)  # pyright: ignore[reportArgumentType,reportCallIssue]
        if not isinstance(nested, dict) or place[i + 1 : i + 2] == () or place[i + 1] not in nested:
            content.pop(key, None)  # pyright: ignore[reportArgumentType,reportCallIssue]
            return
        content = nested
