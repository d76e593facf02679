"""The table of backends. Each is imported only when it is asked for, and none stands in for another."""

from __future__ import annotations

import importlib
import mmap
from pathlib import Path
from typing import cast

from ..bundle.external_data import external_files
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
        _check_data_files(model, spec)
        sessions[graph] = load_session(name, model, spec, options)
        if isinstance(model, Path):
            bundle.check_unchanged(graph)
    return sessions


def _check_data_files(model: bytes | Path, spec: Graph) -> None:
    """Raises `BackendError` unless the graph reads its weights from the declared files and from no other."""
    try:
        if isinstance(model, bytes):
            found = external_files(model)
        else:
            with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                view = memoryview(mapped)
                try:
                    found = external_files(view)
                finally:
                    view.release()
    except (ValueError, OSError) as error:
        raise BackendError(f"{spec.file} is no ONNX graph: {error}; export the bundle again") from error
    declared = {path.rpartition("/")[2] for path in spec.data}
    if found != declared:
        raise BackendError(
            f"the graph {spec.file} reads weights from {sorted(found) or 'no other file'}, the bundle "
            f"declares {sorted(declared) or 'none'}: what was not verified is not run; export the bundle "
            "again"
        )
