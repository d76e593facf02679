"""What the supervisor tells the policy process: one JSON document on its standard input."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Nanoseconds = Annotated[int, Field(gt=0)]


class Limits(BaseModel):
    """The rows of the deadline table that the policy process watches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frame_age_ns: Nanoseconds = 300_000_000
    """Oldest picture that inference may start with: nine frames of a 30 Hz camera."""
    frozen_ns: Nanoseconds = 300_000_000
    frozen_frames: Annotated[int, Field(ge=2)] = 5
    """The same content for longer than `frozen_ns` and at least that many frames: a frozen camera."""
    joint_gap_ns: Nanoseconds = 200_000_000
    """Longest time that no joint state fits the pictures."""


class PolicyConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    session: int
    bundle: str
    robot: str
    """Path of the robot file."""
    calibration: str
    cameras: dict[str, str]
    """The bundle's camera name -> source, without a name."""
    backend: str = "onnxruntime"
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    control_period_ns: Nanoseconds
    limits: Limits = Limits()
