"""What `--stop-input` and `--reset-input` name: a key of an input device, or a GPIO line. Pure.

evdev:/dev/input/by-id/usb-ACME_Button-event-kbd             any key of the device
evdev:/dev/input/by-id/usb-ACME_Pad-event-joystick?key=BTN_SOUTH
gpio:/dev/gpiochip0:17?bias=pull-up                          pressed while the line is high
gpio:/dev/gpiochip0:17?active=low&bias=pull-up               pressed while it is low
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl

from ...drivers.errors import ConfigError
from .key_names import KEY_COUNT, key_code, key_name

Bias = Literal["as-is", "pull-up", "pull-down", "disabled"]
_FORMS = "evdev:/dev/input/...[?key=KEY_SPACE] or gpio:/dev/gpiochipN:LINE[?active=low][&bias=pull-up]"


@dataclass(frozen=True, slots=True)
class EvdevSpec:
    """A key of an input device."""

    text: str
    path: str
    key: int | None
    """Its number in linux/input-event-codes.h; None: any key."""

    @property
    def key_text(self) -> str:
        return "any key" if self.key is None else key_name(self.key)


@dataclass(frozen=True, slots=True)
class GpioSpec:
    """A line of a GPIO chip."""

    text: str
    chip: str
    line: int
    """Its offset on the chip."""
    active_low: bool
    """Pressed while the line is low, else while it is high."""
    bias: Bias


InputSpec: TypeAlias = EvdevSpec | GpioSpec


def parse_input(text: str) -> InputSpec:
    """Raises `ConfigError` for anything that is not one of the forms above."""
    kind, _, rest = text.partition(":")
    where, _, query = rest.partition("?")
    if kind not in ("evdev", "gpio") or not where.startswith("/"):
        raise ConfigError(f"unknown input {text!r}: expected {_FORMS}")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError as error:
        raise ConfigError(f"input {text!r}: {error}; expected {_FORMS}") from error
    options = dict(pairs)
    known = ("key",) if kind == "evdev" else ("active", "bias")
    strange = [name for name in options if name not in known]
    if strange or len(options) != len(pairs):
        what = f"unknown option {strange[0]!r}" if strange else "an option is given twice"
        raise ConfigError(f"input {text!r}: {what}; known are {', '.join(known)}, each once")
    return _evdev(text, where, options) if kind == "evdev" else _gpio(text, where, options)


def check_apart(stops: list[InputSpec], resets: list[InputSpec]) -> None:
    """A reset must not be a stop at the same time. Raises `ConfigError`."""
    for stop in stops:
        for reset in resets:
            if isinstance(stop, EvdevSpec) and isinstance(reset, EvdevSpec):
                same = stop.path == reset.path and (None in (stop.key, reset.key) or stop.key == reset.key)
            elif isinstance(stop, GpioSpec) and isinstance(reset, GpioSpec):
                same = (stop.chip, stop.line) == (reset.chip, reset.line)
            else:
                continue
            if same:
                raise ConfigError(
                    f"{reset.text} resets, but pressing it is also the stop {stop.text}: name two keys"
                )


def _evdev(text: str, path: str, options: dict[str, str]) -> EvdevSpec:
    name = options.get("key")
    key = None if name is None else key_code(name)
    if name is not None and key is None:
        raise ConfigError(
            f"input {text!r}: no key is called {name!r}; names are those of linux/input-event-codes.h "
            f"(KEY_SPACE, BTN_SOUTH), or give its number, 1 to {KEY_COUNT - 1}"
        )
    return EvdevSpec(text, path, key)


def _gpio(text: str, where: str, options: dict[str, str]) -> GpioSpec:
    chip, _, line = where.rpartition(":")
    if not chip or not (line.isascii() and line.isdigit()):
        raise ConfigError(f"input {text!r}: the number of a line is missing; expected {_FORMS}")
    active, bias = options.get("active", "high"), options.get("bias", "as-is")
    if active not in ("high", "low"):
        raise ConfigError(f"input {text!r}: active={active}; it is high (the default) or low")
    if bias not in ("as-is", "pull-up", "pull-down", "disabled"):
        raise ConfigError(f"input {text!r}: bias={bias}; it is pull-up, pull-down, disabled or as-is")
    return GpioSpec(text, chip, int(line), active == "low", bias)
