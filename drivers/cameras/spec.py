"""The text by which a person names a camera: `[NAME=]ADDRESS[?option=value&...]`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ..errors import CameraOpenError

Kind = Literal["v4l2", "http", "rtsp", "file"]

FORMS = "/dev/videoN, http(s)://..., rtsp(s)://... or the path of a video file, each optionally as NAME=..."

_NAME = re.compile(r"^([A-Za-z_][\w.-]*)=(.*)$", re.DOTALL)
_SCHEMES: dict[str, Kind] = {"http": "http", "https": "http", "rtsp": "rtsp", "rtsps": "rtsp"}
_OPTIONS: dict[Kind, frozenset[str]] = {
    "v4l2": frozenset({"width", "height", "fps", "latency_ms"}),
    "http": frozenset({"latency_ms"}),
    "rtsp": frozenset({"latency_ms"}),
    "file": frozenset({"loop", "fps", "latency_ms"}),
}


@dataclass(frozen=True, slots=True)
class CameraSpec:
    """One parsed camera. Only options of its kind are set."""

    name: str
    """Empty when the person gave none: it may then serve the only camera of a bundle."""
    kind: Kind
    address: str
    """Device, URL or path, without our options."""
    latency_ms: float = 0.0
    """Declared time from exposure to arrival; subtracted from stamps whose source is `arrival`."""
    width: int = 640
    height: int = 480
    fps: float | None = None
    """Asked of a V4L2 device; overrides the rate written in a video file. None: 30, or the file's."""
    loop: bool = False
    """A video file starts again at its end."""

    @property
    def label(self) -> str:
        return f"{self.name} ({self.address})" if self.name else self.address


def parse_camera(text: str) -> CameraSpec:
    """Reads `[NAME=]ADDRESS[?options]`. Raises `CameraOpenError` for anything else."""
    name, address = "", text.strip()
    if match := _NAME.match(address):
        name, address = match.groups()
    if not address:
        raise CameraOpenError(f"camera {text!r} has no address; expected {FORMS}")
    kind = _kind(address)
    address, options = _split_options(address, kind)
    return CameraSpec(name, kind, address, **_convert(text, options))


def _kind(address: str) -> Kind:
    scheme, separator, _ = address.partition("://")
    if separator:
        kind = _SCHEMES.get(scheme.lower())
        if kind is None:
            raise CameraOpenError(f"camera {address!r}: unknown scheme {scheme}://; expected {FORMS}")
        return kind
    return "v4l2" if address.startswith("/dev/") else "file"


def _split_options(address: str, kind: Kind) -> tuple[str, dict[str, str]]:
    """Takes our options out; what else a URL's query has belongs to the camera's server."""
    allowed = _OPTIONS[kind]
    if kind in ("http", "rtsp"):
        parts = urlsplit(address)
        if not parts.hostname:
            raise CameraOpenError(
                f"camera {address!r} has no host; expected e.g. http://192.168.1.20:8080/video"
            )
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        ours = {key: value for key, value in pairs if key in allowed}
        if not ours:
            return address, {}
        rest = urlencode([pair for pair in pairs if pair[0] not in allowed])
        return urlunsplit(parts._replace(query=rest)), ours
    if os.path.exists(address) or "?" not in address:
        return address, {}
    path, _, query = address.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise CameraOpenError(
            f"camera {address!r}: unknown option {', '.join(unknown)}; expected {', '.join(sorted(allowed))}"
        )
    return path, options


def _convert(text: str, options: dict[str, str]) -> dict[str, Any]:
    limits = {"latency_ms": (0.0, 5000.0), "fps": (0.1, 1000.0), "width": (16, 16384), "height": (16, 16384)}
    values: dict[str, Any] = {}
    for key, raw in options.items():
        if key == "loop":
            if raw not in ("0", "1"):
                raise CameraOpenError(f"camera {text!r}: loop must be 0 or 1, got {raw!r}")
            values[key] = raw == "1"
            continue
        low, high = limits[key]
        try:
            value = type(low)(raw)
        except ValueError as error:
            raise CameraOpenError(f"camera {text!r}: {key} must be a number, got {raw!r}") from error
        if not low <= value <= high:
            raise CameraOpenError(f"camera {text!r}: {key} must be {low:g} to {high:g}, got {raw}")
        values[key] = value
    return values
