"""What runs a graph: the seam between the policy process and an inference library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from ..bundle.schema import Graph


class BackendError(Exception):
    """The backend is missing, cannot load the graph, or the graph is not what the bundle declares."""


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """What a person may choose about inference."""

    threads: int = 1
    """Threads inside one operator."""


class Session(Protocol):
    """One loaded graph. `run` is called from one thread."""

    description: str
    """Library, version and provider that really run it, for the report."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph once; blocks. Raises `BackendError` when the library fails."""
        ...


class Loader(Protocol):
    """A backend's entry: the verified bytes of a graph, or its path, in; a session out."""

    def __call__(self, graph: bytes | Path, spec: Graph, options: BackendOptions) -> Session: ...
