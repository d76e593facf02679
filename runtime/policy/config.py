"""What the supervisor tells the policy process: one JSON document on its standard input."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Nanoseconds = Annotated[int, Field(gt=0)]


class Limits(BaseModel):
    """The rows of the deadline table that the policy process watches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frame_age_ns: Nanoseconds = 300_000_000
    """Oldest picture that inference may start with; see `frame_age_limit_ns`."""
    frozen_ns: Nanoseconds = 300_000_000
    frozen_frames: Annotated[int, Field(ge=2)] = 5
    """The same content for longer than `frozen_ns` and at least that many frames: a frozen camera."""
    blank_spread: Annotated[float, Field(gt=0)] = 4.0
    """8-bit levels. Pictures whose areas differ by less, for as long: a black camera. With the lens covered
    they differ by up to 3 levels (noise of up to 10 levels, averaged); a scene that differs by 4, less than
    2 % of black to white, is still one that a policy may know."""
    joint_gap_ns: Nanoseconds = 200_000_000
    """Longest time that no joint state fits the pictures."""


def frame_age_limit_ns(horizon_s: float, sequential: bool = False) -> int:
    """Half a chunk's length, within 0.2 .. 0.5 s: the chunk under way still covers the gap, with the other
    half left to stop in. 0.5 s for a sequential policy, whose arm stands when the picture is taken."""
    return round((0.5 if sequential else min(0.5, max(0.2, horizon_s / 2))) * 1e9)


class PolicyConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    session: int
    bundle: str
    robot: str
    """Path of the robot file."""
    calibration: str
    cameras: dict[str, str]
    """The bundle's camera name -> source, without a name."""
    tasks: tuple[str, ...] = ()
    """Those known at the start: an instruction that does not fit is refused before anything moves."""
    backend: str = "onnxruntime"
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    sequential: bool = False
    """Infer only once the chunk before has been carried out."""
    control_period_ns: Nanoseconds
    limits: Limits = Limits()
    budgets_ms: dict[str, float] = {}
    """Stage -> what it may take, as the bundle declares it; the others are derived."""
    max_over_budget_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    rings: str | None = None
    """The folder of this run for the flight recorder; None: nothing is recorded."""
    parent: int | None = None
    """The process of the supervisor; None: whoever started this one."""
