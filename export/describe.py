"""The values of bundle.json, and the files that it names."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch

from ..runtime.bundle.schema import (
    Graph,
    Numerics,
    ParityReport,
    PrecisionReport,
    Provenance,
    TaskContract,
)
from .graphs import OnnxFile
from .parity import COMPONENT_SHARE
from .precision.registry import Converted
from .sources.types import Policy

GOLDEN_FILE = "golden/observations.npz"
_BLOCK = 1 << 20


def describe(
    policy: Policy,
    name: str,
    task: TaskContract,
    chosen: Mapping[str, Converted],
    parity: ParityReport,
    tolerance: float,
    path: Path,
) -> dict[str, Any]:
    """The values of bundle.json, less what `write_bundle` adds. `path`: the checkpoint."""
    graphs = {
        graph: Graph(
            file=graph_file(graph),
            data=[data_file(graph)] if converted.file.data is not None else [],
            precision=converted.report.requested,
            inputs=list(policy.components[graph].inputs),
            outputs=list(policy.components[graph].outputs),
        )
        for graph, converted in chosen.items()
    }
    precision = merge_reports({graph: converted.report for graph, converted in chosen.items()})
    numerics = Numerics(
        golden=GOLDEN_FILE,
        tolerance=tolerance,
        components=dict.fromkeys(chosen, COMPONENT_SHARE[precision.requested]),
        reference=policy.reference,
    )
    return {
        "name": name,
        "family": policy.family,
        "robot_type": policy.robot_type,
        "program": policy.program.model_dump(),
        "graphs": {graph: spec.model_dump() for graph, spec in graphs.items()},
        "cameras": [camera.model_dump() for camera in policy.cameras],
        "history": None if policy.history is None else policy.history.model_dump(),
        "state": None if policy.state is None else policy.state.model_dump(),
        "action": policy.action.model_dump(),
        "task": task.model_dump(),
        "numerics": numerics.model_dump(),
        "precision": precision.model_dump(),
        "parity": parity.model_dump(),
        "evidence": policy.evidence.model_dump(),
        "provenance": _provenance(policy, path).model_dump(),
        "execution": None if policy.execution is None else policy.execution.model_dump(),
    }


def graph_file(graph: str) -> str:
    return f"graphs/{graph}.onnx"


def data_file(graph: str) -> str:
    """As `graphs.export_graph` names it: the model holds that name."""
    return f"graphs/{graph}.onnx.data"


def file_of(graph: str, file: OnnxFile) -> dict[str, bytes | Path]:
    """Where a graph's files go."""
    named: dict[str, bytes | Path] = {graph_file(graph): file.model}
    return named if file.data is None else {**named, data_file(graph): file.data}


def merge_reports(reports: Mapping[str, PrecisionReport]) -> PrecisionReport:
    """One report of several graphs; nodes are named graph/node."""
    kept: dict[str, str] = {}
    sums: dict[str, dict[str, int]] = {"bytes_per_dtype": {}, "nodes_per_dtype": {}}
    for graph, report in reports.items():
        kept |= {f"{graph}/{node}": reason for node, reason in report.kept_fp32.items()}
        for key, total in sums.items():
            for dtype, count in getattr(report, key).items():
                total[dtype] = total.get(dtype, 0) + count
    requested = next(iter(reports.values())).requested
    return PrecisionReport(requested=requested, kept_fp32=kept, **sums)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in _files(path))


def sha256_of(path: Path) -> str:
    """Of a file; of a folder: of the lines `sha256  name` of its files, sorted by name."""
    if path.is_file():
        return _digest(path)
    rows = [f"{_digest(file)}  {file.relative_to(path).as_posix()}\n" for file in _files(path)]
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _provenance(policy: Policy, path: Path) -> Provenance:
    return Provenance(
        checkpoint=path.resolve().name,
        checkpoint_sha256=sha256_of(path),
        exporter=f"holdfast {version('holdfast')}",
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        notes=policy.notes,
    )
