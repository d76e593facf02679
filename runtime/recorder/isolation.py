"""What every recorder inside a process has in common: its errors never reach what it records."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from .ring import RingWriter

P = ParamSpec("P")
R = TypeVar("R", bound="Isolated")


class Isolated:
    """A recorder with a ring, or none: then every `isolated` method does nothing."""

    def __init__(self, writer: RingWriter | None = None, problem: str = "") -> None:
        self.writer = writer
        self._problem = problem
        self._told_dropped = False

    @property
    def on(self) -> bool:
        return self.writer is not None

    def fail(self, error: Exception) -> None:
        """Nothing more is recorded in this process."""
        self.writer = None
        self._problem = f"nothing more is recorded here: {type(error).__name__}: {error}"

    def take_problem(self) -> str:
        """Why something is not recorded, once; else empty."""
        if self.writer is not None and self.writer.dropped and not self._told_dropped and not self._problem:
            self._told_dropped = True
            return "a record was larger than its ring: it, and others like it, are missing"
        problem, self._problem = self._problem, ""
        return problem


def isolated(method: Callable[Concatenate[R, P], None]) -> Callable[Concatenate[R, P], None]:
    """At the first error of the method, whatever it is, the recorder is off; the caller notices nothing."""

    @wraps(method)
    def call(self: R, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.writer is None:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - a recorder is no reason to stop an arm
            self.fail(error)

    return call
