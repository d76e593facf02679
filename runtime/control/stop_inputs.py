"""Stop and reset inputs: buttons that control itself looks at in every tick, without blocking.

They need neither the supervisor nor a terminal. What a tick finds goes into the core's inbox, where it is
recorded and replayed like everything else. A stop input that is pressed, or gone, is a condition in every
tick, not an event: it cannot be lost. They are no emergency stop (docs/stop-inputs.md).
"""

from __future__ import annotations

import contextlib
import grp
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Protocol

from ...drivers.errors import ConfigError, DriverError
from .evdev import EvdevKey
from .gpio import GpioLine
from .input_spec import EvdevSpec, GpioSpec, InputSpec, check_apart, parse_input
from .state import Condition, Note

STACK_BYTES = 1 << 18
"""Of the thread that opens inputs: control locks all of its memory."""


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
    opening: bool = False
    """Gone, and being opened again."""
    down: bool = False
    pressed_condition: Condition = field(init=False)

    def __post_init__(self) -> None:
        key = self.spec.key_text if isinstance(self.spec, EvdevSpec) else "the line"
        self.pressed_condition = Condition("stop_input", f"{self.spec.text}: {key} is pressed")

    def open(self) -> None:
        """Raises `InputError`. May block: a driver wakes its device up."""
        self.use(self.opened())

    def opened(self) -> Button:
        """The button, not yet in use. Raises `InputError`. May block."""
        try:
            button = open_button(self.spec, stops=self.stops)
        except OSError as error:
            raise InputError(_why(self, error)) from error
        except ConfigError as error:
            raise InputError(str(error)) from error
        if self.identity not in ("", button.identity):
            button.close()
            raise InputError(f"{self.spec.text} is another device now: {button.identity}")
        return button

    def use(self, button: Button) -> None:
        # What is held down from before is no press of a reset.
        self.button, self.identity, self.lost, self.down = button, button.identity, "", True

    def read(self) -> bool:
        """Whether it is pressed; notices that it has gone."""
        if self.button is None or self.lost:
            return False
        try:
            self.down = self.button.read()
        except OSError as error:
            # Not closed yet: that may block, and the arm may be in motion.
            what = "plug it in again, then reset twice" if self.stops else "plug it in again, then reset"
            self.lost = f"{self.spec.text} is gone ({error.strerror}); {what}"
            return False
        return self.down

    def given_up(self) -> Button | None:
        """What it has, for somebody else to close."""
        button, self.button = self.button, None
        return button


class StopInputs:
    """All of a run. After `open`, no method blocks or raises but `close`.

    Those that are gone are opened again by a thread. `open` starts it before the real-time set-up, which is
    of the calling thread alone: it has no real-time priority and is not tied to control's core.
    """

    def __init__(self, stops: Sequence[str] = (), resets: Sequence[str] = ()) -> None:
        """Opens nothing yet. Raises `ConfigError` for what is malformed."""
        stop_specs, reset_specs = (
            [parse_input(text) for text in stops],
            [parse_input(text) for text in resets],
        )
        check_apart(stop_specs, reset_specs)
        self.stops = [Input(spec, stops=True) for spec in stop_specs]
        self.resets = [Input(spec, stops=False) for spec in reset_specs]
        self._to_open: SimpleQueue[tuple[Input, Button | None] | None] = SimpleQueue()
        self._opened: deque[tuple[Input, Button | InputError]] = deque()

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
        if self.all:
            _start_thread(self._open_again)

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
        notes = self._take_up()
        conditions: list[Condition] = []
        for each in self.stops:
            if each.read():
                conditions.append(each.pressed_condition)
            elif each.lost:
                conditions.append(Condition("stop_input_lost", each.lost))
        reset = False
        for each in self.resets:
            before, was_lost = each.down, each.lost
            reset |= each.read() and not before
            if each.lost and not was_lost:
                notes.append(Note("reset_input_lost", each.lost))
        return Polled(tuple(conditions), reset, tuple(notes))

    def reopen(self) -> list[Note]:
        """Has those that are gone opened again; what became of it, a later `poll` says."""
        notes = []
        for each in self.all:
            if each.opening:
                notes.append(
                    Note("input_missing", f"{each.spec.text}: opening it has not come to an end yet")
                )
            elif each.lost:
                each.opening = True
                self._to_open.put((each, each.given_up()))
        return notes

    def close(self) -> None:
        self._to_open.put(None)
        for each in self.all:
            _close(each.given_up())

    def _open_again(self) -> None:
        """The thread. It changes no `Input`."""
        while (job := self._to_open.get()) is not None:
            each, gone = job
            _close(gone)
            try:
                result = each.opened()
            except InputError as error:
                result = error
            self._opened.append((each, result))

    def _take_up(self) -> list[Note]:
        notes = []
        while self._opened:
            each, result = self._opened.popleft()
            each.opening = False
            if isinstance(result, InputError):
                notes.append(Note("input_missing", str(result)))
            else:
                each.use(result)
                notes.append(Note("input_back", f"{each.spec.text} is there again"))
        return notes


_NOTHING = Polled()


def open_button(spec: InputSpec, *, stops: bool) -> Button:
    """Raises `OSError`, `ConfigError`."""
    return EvdevKey(spec, doubt=stops) if isinstance(spec, EvdevSpec) else GpioLine(spec)


def _close(button: Button | None) -> None:
    if button is not None:
        with contextlib.suppress(OSError):
            # What has vanished may refuse even that.
            button.close()


def _start_thread(work: Callable[[], None]) -> None:
    before = threading.stack_size(STACK_BYTES)
    try:
        # Nobody waits for its end: an open may hang.
        threading.Thread(target=work, daemon=True).start()
    finally:
        threading.stack_size(before)


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
