"""vla-export's stages: read, graph, precision, parity, bundle. A failure in any leaves no bundle."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from ..runtime.bundle.golden import pack_golden
from ..runtime.bundle.schema import Graph, Numerics, ParityReport, PrecisionReport, Provenance, TaskContract
from ..runtime.bundle.writing import SUFFIX, check_target, write_bundle
from ..runtime.policy.words import InstructionError, encode_words
from .errors import ParityError, SourceError
from .graphs import check_interface, export_graph
from .measure import Latency, measure
from .parity import check_samples, compare, element_limits, failures, golden_tolerance, stack, to_feed
from .precision.registry import Converted, Precision, convert
from .sessions import Feed, OnnxGraph
from .sources.registry import find_source, locate
from .sources.types import Policy

STAGES = {
    "read": "reading the checkpoint",
    "graph": "tracing the graph",
    "precision": "choosing and converting precision",
    "parity": "comparing with the checkpoint",
    "latency": "measuring latency",
    "bundle": "writing the bundle",
}
"""The stages in their order, with what each does."""

GOLDEN_SAMPLES = 8
"""Replayed at every start of vla-run; always with the sample on which parity was worst."""
LATENCY_BUDGET_S = 3.0
GRAPH_FILE = "graphs/policy.onnx"
GOLDEN_FILE = "golden/observations.npz"


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    checkpoint: str
    precision: Precision = "fp32"
    output: Path | None = None
    name: str | None = None
    task: str | None = None
    observations: Path | None = None
    max_error_rad: float | None = None
    replace: bool = False
    measure_latency: bool = True


@dataclass(frozen=True)
class Result:
    """What came out, for the final table."""

    bundle: Path
    name: str
    checkpoint: Path
    cameras: tuple[str, ...]
    """Their names in the bundle."""
    task: TaskContract
    sizes: dict[str, int]
    """Bytes of the checkpoint, the fp32 graph, the graph that ships, and the whole bundle."""
    latency: dict[str, Latency]
    parity: ParityReport
    precision: PrecisionReport


class ParityFailed(ParityError):
    """Parity is beyond its limits; `report` has the table."""

    def __init__(self, report: ParityReport, reasons: Sequence[str], graph: str) -> None:
        super().__init__(
            f"the {graph} graph does not compute what the checkpoint computes, so no bundle is written: "
            f"{'; '.join(reasons)}"
        )
        self.report = report


def export(request: Request, announce: Callable[[str], None] = lambda stage: None) -> Result:
    """Runs all stages. Raises `ExportError` (and `BundleError` for the target folder); then nothing is left.

    `announce` is called with each stage's name as it begins.
    """
    announce("read")
    path = locate(request.checkpoint)
    folder, name = _target(request, path)
    check_target(folder, replace=request.replace)
    policy = find_source(path)[1].read(path, request.observations)
    task = _task(policy.task, request.task)
    feeds = [to_feed(policy, observation) for observation in policy.observations]
    check_samples(feeds)

    announce("graph")
    full = export_graph(policy, feeds[0])

    announce("precision")
    chosen = convert(request.precision, full, feeds)
    check_interface(onnx.ModelProto.FromString(chosen.data), list(policy.inputs), [policy.output])

    announce("parity")
    reference = run_module(policy, feeds)
    session = OnnxGraph(chosen.data)
    limits = element_limits(policy.action, request.precision, request.max_error_rad)
    outputs = np.concatenate([session.run(feed)[policy.output.name] for feed in feeds])
    parity = compare(reference, outputs, policy.action, limits, f"torch {torch.__version__} fp32 on the CPU")
    if reasons := failures(parity, request.precision):
        raise ParityFailed(parity, reasons, request.precision)

    announce("latency")
    latency = _latency(policy, feeds[0], full, session) if request.measure_latency else {}

    announce("bundle")
    picked = _golden_choice(reference, outputs)
    golden = pack_golden(stack([feeds[i] for i in picked]), {policy.output.name: outputs[picked]})
    files = {GRAPH_FILE: chosen.data, GOLDEN_FILE: golden}
    spec = _spec(policy, name, task, chosen, parity, golden_tolerance(policy.action, limits), path)
    write_bundle(folder, spec, files, replace=request.replace)
    sizes = {
        "checkpoint": path.stat().st_size,
        "graph fp32": len(full),
        f"graph {request.precision}": len(chosen.data),
        "bundle": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
    }
    return Result(
        bundle=folder,
        name=name,
        checkpoint=path,
        cameras=tuple(camera.name for camera in policy.cameras),
        task=task,
        sizes=sizes,
        latency=latency,
        parity=parity,
        precision=chosen.report,
    )


def run_module(policy: Policy, feeds: Sequence[Feed]) -> NDArray[np.float32]:
    """[N, steps, elements]: what the checkpoint itself answers, in torch, fp32, on the CPU."""
    with torch.inference_mode():
        return np.concatenate([_call(policy, feed).numpy() for feed in feeds])


def _call(policy: Policy, feed: Feed) -> torch.Tensor:
    return policy.module(**{name: torch.from_numpy(array) for name, array in feed.items()})


def _target(request: Request, path: Path) -> tuple[Path, str]:
    """Folder and name of the bundle: --output, else ./NAME.vla in the current folder."""
    stem = request.name or (request.output.stem if request.output else path.stem)
    name = re.sub(r"[^A-Za-z0-9_.\-]+", "-", stem).strip("-.")[:64]
    if not name or (request.name and name != request.name):
        raise SourceError(f"{stem!r} is no name for a bundle; use letters, digits, '-', '_' and '.' (--name)")
    return request.output or Path(f"{name}{SUFFIX}"), name


def _task(task: TaskContract, default: str | None) -> TaskContract:
    """With the default that the user asked for, else the source's own."""
    if default is None:
        return task
    if task.tokenizer is not None:
        try:
            encode_words(default, task.tokenizer)
        except InstructionError as error:
            raise SourceError(f"--task {default!r} cannot be the default: {error}") from error
    return task.model_copy(update={"default": default})


def _latency(policy: Policy, feed: Feed, full: bytes, chosen: OnnxGraph) -> dict[str, Latency]:
    fp32 = OnnxGraph(full)

    def in_torch() -> object:
        with torch.inference_mode():
            return _call(policy, feed)

    candidates = {
        "torch fp32": in_torch,
        "onnxruntime fp32": lambda: fp32.run(feed),
        "onnxruntime, this bundle": lambda: chosen.run(feed),
    }
    return measure(candidates, budget_s=LATENCY_BUDGET_S)


def _golden_choice(reference: NDArray[Any], outputs: NDArray[Any]) -> list[int]:
    """Indices spread over the recording, with the sample of the largest difference."""
    worst = int(np.abs(reference - outputs).reshape(len(outputs), -1).max(1).argmax())
    spread = np.linspace(0, len(outputs) - 1, GOLDEN_SAMPLES - 1).astype(int).tolist()
    return sorted({worst, *spread})


def _spec(
    policy: Policy,
    name: str,
    task: TaskContract,
    chosen: Converted,
    parity: ParityReport,
    tolerance: float,
    path: Path,
) -> dict[str, Any]:
    """The values of bundle.json, less what `write_bundle` adds."""
    graph = Graph(
        file=GRAPH_FILE,
        precision=chosen.report.requested,
        inputs=list(policy.inputs),
        outputs=[policy.output],
    )
    provenance = Provenance(
        checkpoint=path.name,
        checkpoint_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
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
    return {
        "name": name,
        "family": policy.family,
        "robot_type": policy.robot_type,
        "program": policy.program.model_dump(),
        "graphs": {policy.program.graph: graph.model_dump()},
        "cameras": [camera.model_dump() for camera in policy.cameras],
        "state": policy.state.model_dump(),
        "action": policy.action.model_dump(),
        "task": task.model_dump(),
        "numerics": Numerics(golden=GOLDEN_FILE, tolerance=tolerance).model_dump(),
        "precision": chosen.report.model_dump(),
        "parity": parity.model_dump(),
        "provenance": provenance.model_dump(),
    }
