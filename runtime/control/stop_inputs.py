"""Stop and reset inputs: buttons that control itself looks at in every tick, without blocking.

They need neither the supervisor nor a terminal. What a tick finds goes into the core's inbox, where it is
recorded and replayed like everything else. A stop input that is pressed, or gone, is a condition in every
tick, not an event: it cannot be lost. They are no emergency stop (docs/stop-inputs.md).
"""

from __future__ import annotations

import contextlib
import grp
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ...drivers.errors import ConfigError, DriverError
from .evdev import EvdevKey
from .gpio import GpioLine
from .input_spec import EvdevSpec, GpioSpec, InputSpec, check_apart, parse_input
from .state import Condition, Note


class InputError(DriverError):
    """A stop or reset input cannot be used: refused before torque."""


class Button(Protocol):
    """An open input."""

    identity: str
    """Which device it is; another one in its place is not the same input."""
    description: str

    def read(self) -> bool:
        """Whether it is pressed, or was since the last call. Does not block; raises `OSError` when gone."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Polled:
    """What the inputs said in one tick."""

    conditions: tuple[Condition, ...] = ()
    reset: bool = False
    notes: tuple[Note, ...] = ()


@dataclass(slots=True)
class Input:
    """One input of the command line."""

    spec: InputSpec
    stops: bool
    button: Button | None = None
    identity: str = ""
    lost: str = ""
    """Why it is gone; empty while it is there."""
    down: bool = False
    pressed_condition: Condition = field(init=False)

    def __post_init__(self) -> None:
        key = self.spec.key_text if isinstance(self.spec, EvdevSpec) else "the line"
        self.pressed_condition = Condition("stop_input", f"{self.spec.text}: {key} is pressed")

    def open(self) -> None:
        """Raises `InputError`."""
        try:
            button = open_button(self.spec, stops=self.stops)
        except OSError as error:
            raise InputError(_why(self, error)) from error
        except ConfigError as error:
            raise InputError(str(error)) from error
        if self.identity not in ("", button.identity):
            button.close()
            raise InputError(f"{self.spec.text} is another device now: {button.identity}")
        self.button, self.identity, self.lost = button, button.identity, ""

    def read(self) -> bool:
        """Whether it is pressed; notices that it has gone."""
        if self.button is None:
            return False
        try:
            self.down = self.button.read()
        except OSError as error:
            what = "plug it in again, then reset twice" if self.stops else "plug it in again, then reset"
            self.lost = f"{self.spec.text} is gone ({error.strerror}); {what}"
            self.close()
            return False
        return self.down

    def close(self) -> None:
        button, self.button = self.button, None
        if button is not None:
            with contextlib.suppress(OSError):
                # What has vanished may refuse even that.
                button.close()


class StopInputs:
    """All of a run. `poll` never blocks and never raises."""

    def __init__(self, stops: Sequence[str] = (), resets: Sequence[str] = ()) -> None:
        """Opens nothing yet. Raises `ConfigError` for what is malformed."""
        stop_specs, reset_specs = (
            [parse_input(text) for text in stops],
            [parse_input(text) for text in resets],
        )
        check_apart(stop_specs, reset_specs)
        self.stops = [Input(spec, stops=True) for spec in stop_specs]
        self.resets = [Input(spec, stops=False) for spec in reset_specs]

    @property
    def all(self) -> list[Input]:
        return [*self.stops, *self.resets]

    def open(self) -> None:
        """Raises `InputError` for one that cannot be opened, and for a stop input that is pressed."""
        for each in self.all:
            each.open()
            each.read()
            if each.lost:
                raise InputError(each.lost)
            if each.stops and each.down:
                same = "; a cut wire, a missing plug or the wrong `active` looks the same"
                hint = same if isinstance(each.spec, GpioSpec) else ""
                raise InputError(f"{each.pressed_condition.text} at the start: release it{hint}")

    def guards(self) -> list[str]:
        """A line for each, read off the open device."""
        rows = []
        for each in self.all:
            assert each.button is not None
            kind = "stop" if each.stops else "reset"
            rows.append(f"{kind} input: {each.spec.text} ({each.button.description}), read at every tick")
        return rows if self.stops else ["stop input: none (--stop-input)", *rows]

    def poll(self) -> Polled:
        """The conditions that hold in this tick, and whether a reset input has just been pressed."""
        if not self.stops and not self.resets:
            return _NOTHING
        conditions: list[Condition] = []
        for each in self.stops:
            if each.read():
                conditions.append(each.pressed_condition)
            elif each.lost:
                conditions.append(Condition("stop_input_lost", each.lost))
        reset, notes = False, ()
        for each in self.resets:
            before, was_lost = each.down, each.lost
            reset |= each.read() and not before
            if each.lost and not was_lost:
                notes = (*notes, Note("reset_input_lost", each.lost))
        return Polled(tuple(conditions), reset, notes)

    def reopen(self) -> list[Note]:
        """Tries those that are gone again. This may block (an input device wakes up): only at rest."""
        notes = []
        for each in self.all:
            if not each.lost:
                continue
            try:
                each.open()
                each.read()
                notes.append(Note("input_back", f"{each.spec.text} is there again"))
            except InputError as error:
                notes.append(Note("input_missing", str(error)))
        return notes

    @property
    def any_lost(self) -> bool:
        return any(each.lost for each in self.all)

    def close(self) -> None:
        for each in self.all:
            each.close()


_NOTHING = Polled()


def open_button(spec: InputSpec, *, stops: bool) -> Button:
    """Raises `OSError`, `ConfigError`."""
    return EvdevKey(spec, doubt=stops) if isinstance(spec, EvdevSpec) else GpioLine(spec)


def _why(each: Input, error: OSError) -> str:
    kind = "stop" if each.stops else "reset"
    path = each.spec.path if isinstance(each.spec, EvdevSpec) else each.spec.chip
    if isinstance(error, PermissionError):
        return f"no permission to open the {kind} input {path}; {_group(path)}"
    if isinstance(error, FileNotFoundError):
        return f"the {kind} input {path} does not exist; is it plugged in?"
    return f"the {kind} input {path} cannot be opened: {error.strerror or error}"


def _group(path: str) -> str:
    """Who may open it."""
    try:
        name = grp.getgrgid(os.stat(path).st_gid).gr_name
    except (OSError, KeyError):
        name = "root"
    if name == "root":
        return "it belongs to root: a udev rule gives it a group (docs/stop-inputs.md)"
    return f"join its group: sudo usermod -aG {name} $USER, then log in again"
