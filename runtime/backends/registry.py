"""The table of backends. Each is imported only when it is asked for, and none stands in for another."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

from ..bundle.reading import LoadedBundle
from ..bundle.schema import Graph
from .types import BackendError, BackendOptions, Loader, Session

BACKENDS = {
    "onnxruntime": ("..backends.onnxruntime_cpu", "load"),
}
"""Name -> (module, function). A new backend is one row and one module with a `Loader`."""


def load_session(name: str, graph: bytes | Path, spec: Graph, options: BackendOptions) -> Session:
    """A session of the named backend; raises `BackendError` for an unknown or missing one."""
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}; this version has: {', '.join(sorted(BACKENDS))}")
    module_name, function = BACKENDS[name]
    try:
        module = importlib.import_module(module_name, __package__)
    except ImportError as error:
        raise BackendError(f"the backend {name} is not installed: {error}") from error
    return cast(Loader, getattr(module, function))(graph, spec, options)


def load_sessions(name: str, bundle: LoadedBundle, options: BackendOptions) -> dict[str, Session]:
    """A session for every graph of a verified bundle. Raises `BackendError`, `BundleError`."""
    sessions = {}
    for graph, spec in bundle.spec.graphs.items():
        model = bundle.graph(graph)
        sessions[graph] = load_session(name, model, spec, options)
        if isinstance(model, Path):
            bundle.check_unchanged(graph)
    return sessions
