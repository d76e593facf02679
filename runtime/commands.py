"""What a person may ask of a run: one table for the keyboard and the endpoint. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .stages import Action, Stage

ENERGISED = (
    Stage.RETURNING,
    Stage.PAUSING,
    Stage.RUNNING,
    Stage.ENDING,
    Stage.HELD,
    Stage.QUITTING,
)
"""Stages in which the arm has torque, or may have it, and no stop is latched."""
KEYBOARD = "a person"
"""Who asks at the terminal."""
_OVER = "the run is over: control has ended"


@dataclass(frozen=True, slots=True)
class Command:
    """One thing that can be asked for."""

    meaning: str
    key: str = ""
    """At the terminal; empty: none."""
    stages: tuple[Stage, ...] = tuple(stage for stage in Stage if stage != Stage.DONE)
    """In which it does something."""
    otherwise: str = _OVER
    """Why it does nothing in all others."""


COMMANDS: dict[str, Command] = {
    "status": Command("what the run is doing; changes nothing", stages=tuple(Stage)),
    "stop": Command("a protective stop, latched", " ", (Stage.STARTING, *ENERGISED, Stage.STOPPED)),
    "reset": Command(
        "reset the protective stop; never moves the arm",
        "r",
        (Stage.STOPPED, Stage.HELD),
        "nothing is stopped",
    ),
    "next": Command(
        "end the task, the next one follows; after a reset: repeat the task (the arm moves)",
        "n",
        (Stage.RUNNING, Stage.HELD),
        "no task is under way",
    ),
    "task_end": Command(
        "end the task under way, the next one follows", "", (Stage.RUNNING,), "no task is under way"
    ),
    "quit": Command("end the run: stop, park, release; once more: stop here", "q"),
    "record": Command("write the flight recorder's last seconds to a file", "w"),
}
KEYS = {command.key: name for name, command in COMMANDS.items() if command.key}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command."""

    actions: Sequence[Action] = ()
    """To be carried out, also where it is refused."""
    text: str = ""
    """What is done, for a person."""
    refusal: str = ""
    """Why nothing is done; empty: it is."""
    awaits: tuple[str, ...] = field(default=())
    """Codes of control's events, the first of which says what came of it. The first code means success."""


def refusal(name: str, stage: Stage) -> str:
    """Why a command does nothing in this stage; empty: it does."""
    command = COMMANDS[name]
    if stage in command.stages:
        return ""
    if stage == Stage.STOPPED:
        return f"{command.otherwise}: the arm is stopped; reset it first"
    return command.otherwise
