"""The table of program kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...bundle.schema import ActionContract, AnyProgram, Ports
from .base import Graphs, Runnable, Runner, Watch
from .diffusion import DiffusionRunner
from .flow import FlowRunner
from .single import SingleRunner
from .tokens import TokensRunner

RUNNERS: dict[str, Callable[[Any, Graphs, ActionContract], Runner]] = {
    "single": SingleRunner,
    "flow": FlowRunner,
    "diffusion": DiffusionRunner,
    "tokens": TokensRunner,
}
"""Kind -> what runs it. vla-run, its self-test and the parity of vla-export use the same ones."""


def make_runner(
    program: AnyProgram,
    ports: Mapping[str, Ports],
    sessions: Mapping[str, Runnable],
    action: ActionContract,
    watch: Watch | None = None,
) -> Runner:
    """A runner of a program whose wiring has been checked (`schema.check_wiring`)."""
    return RUNNERS[program.kind](program, Graphs(ports, sessions, watch), action)
