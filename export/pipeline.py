"""vla-export's stages: read, graphs, precision, parity, bundle. A failure in any leaves no bundle."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from ..runtime.bundle.golden import Sample, pack_golden, thin
from ..runtime.bundle.schema import (
    GUIDED,
    ClosedVocabulary,
    Evidence,
    ParityReport,
    PrecisionReport,
    TaskContract,
    check_wiring,
    observed,
)
from ..runtime.bundle.writing import SUFFIX, check_target, write_bundle
from ..runtime.policy.errors import InstructionError
from ..runtime.policy.programs.base import Feed, Runner
from ..runtime.policy.programs.registry import make_runner
from .describe import GOLDEN_FILE, describe, file_of, size_of
from .errors import ExportError, ParityError, SourceError
from .graphs import OnnxFile, check_interface, export_graph
from .measure import Latency, measure
from .parity import (
    check_samples,
    compare,
    compare_component,
    element_limits,
    failures,
    golden_tolerance,
    make_inputs,
    to_feeds,
)
from .precision.registry import Converted, Precision, convert
from .reference import Answers, answer, reference, run_guided, sample_noise
from .sessions import OnnxGraph, TorchGraph
from .sources.registry import find_source, locate
from .sources.types import Policy, ReadOptions, Source

STAGES = {
    "read": "reading the checkpoint",
    "reference": "running the checkpoint itself",
    "graph": "tracing the graphs",
    "precision": "choosing and converting precision",
    "parity": "comparing with the checkpoint",
    "latency": "measuring latency",
    "bundle": "writing the bundle",
}
"""The stages in their order, with what each does."""

GOLDEN_SAMPLES = 8
"""Replayed at every start of vla-run; always with the sample on which parity was worst."""
GOLDEN_S = 10.0
"""Fewer samples where replaying them would take longer than this here."""
LATENCY_BUDGET_S = 3.0


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    checkpoint: str
    precision: Precision = "fp32"
    output: Path | None = None
    name: str | None = None
    task: str | None = None
    options: ReadOptions = field(default_factory=ReadOptions)
    max_error_rad: float | None = None
    replace: bool = False
    measure_latency: bool = True


@dataclass(frozen=True)
class Result:
    """What came out, for the final table."""

    bundle: Path
    name: str
    checkpoint: Path
    family: str
    recognised: str
    """Why the checkpoint was taken for one of this family."""
    cameras: tuple[str, ...]
    """Their names in the bundle."""
    task: TaskContract
    sizes: dict[str, int]
    """Bytes of the checkpoint, the fp32 graphs, the graphs that ship, and the whole bundle."""
    latency: dict[str, Latency]
    parity: ParityReport
    precision: PrecisionReport
    evidence: Evidence


class ParityFailed(ParityError):
    """Parity is beyond its limits; `report` has the table."""

    def __init__(self, report: ParityReport, reasons: Sequence[str], graph: str) -> None:
        super().__init__(
            f"the {graph} graph does not compute what the checkpoint computes, so no bundle is written: "
            f"{'; '.join(reasons)}"
        )
        self.report = report


def export(
    request: Request,
    announce: Callable[[str], None] = lambda stage: None,
    say: Callable[[str], None] = lambda text: None,
) -> Result:
    """Runs all stages. Raises `ExportError` (and `BundleError` for the target folder); then nothing is left.

    `announce` is called with each stage's name as it begins, `say` with what a person should know.
    """
    announce("read")
    path = locate(request.checkpoint)
    folder, name = _target(request, path)
    check_target(folder, replace=request.replace)
    family, source, recognised = find_source(path)
    say(f"recognised as {family} because {recognised}")
    _check_options(family, source, request.options)
    policy = source.read(path, request.options)
    check_policy(policy)
    task = _task(policy, request.task)
    feeds = to_feeds(policy)
    check_samples(feeds, policy.evidence.kind)

    announce("reference")
    truth = reference(policy, feeds)

    with ExitStack() as stack:
        # On the bundle's own file system: it has room for large weights, /tmp may not.
        room = tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent)
        work = Path(stack.enter_context(room))
        announce("graph")
        if idle := sorted(set(policy.components) - set(truth.runs)):
            raise ExportError(f"the family {policy.family} has a graph {idle[0]} that its program never runs")
        full = {
            graph: export_graph(component, truth.runs[graph][0].inputs, work, graph)
            for graph, component in policy.components.items()
        }

        announce("precision")
        chosen: dict[str, Converted] = {}
        for graph, component in policy.components.items():
            runs = [run.inputs for run in truth.runs[graph]]
            chosen[graph] = convert(request.precision, full[graph], runs)
            model = onnx.ModelProto.FromString(chosen[graph].file.model)
            check_interface(model, component.inputs, component.outputs)

        announce("parity")
        sessions = {graph: converted.file.session() for graph, converted in chosen.items()}
        limits = element_limits(policy.action, request.precision, request.max_error_rad)
        start_s = time.monotonic()
        found = answer(policy, sessions, feeds, truth.actions)
        seconds = (time.monotonic() - start_s) / len(feeds)
        parity = _parity(policy, truth, found, sessions, limits)
        if reasons := failures(parity, request.precision):
            raise ParityFailed(parity, reasons, request.precision)

        announce("latency")
        latency = _latency(policy, feeds[0], full, sessions) if request.measure_latency else {}

        announce("bundle")
        golden = golden_samples(policy, sessions, feeds, _golden_choice(truth, found, seconds))
        files: dict[str, bytes | Path] = {GOLDEN_FILE: pack_golden(golden), **policy.files}
        for graph, converted in chosen.items():
            files |= file_of(graph, converted.file)
        spec = describe(policy, name, task, chosen, parity, golden_tolerance(policy.action, limits), path)
        write_bundle(folder, spec, files, replace=request.replace)
        sizes = {
            "checkpoint": size_of(path),
            "graphs fp32": sum(graph.size for graph in full.values()),
            f"graphs {request.precision}": sum(converted.size for converted in chosen.values()),
            "bundle": size_of(folder),
        }
    return Result(
        bundle=folder,
        name=name,
        checkpoint=path,
        family=family,
        recognised=recognised,
        cameras=tuple(camera.name for camera in policy.cameras),
        task=task,
        sizes=sizes,
        latency=latency,
        parity=parity,
        precision=PrecisionReport.model_validate(spec["precision"]),
        evidence=policy.evidence,
    )


def check_policy(policy: Policy) -> None:
    """Raises `ExportError` unless the run path can run what the family made of the checkpoint."""
    observation = observed(policy.cameras, policy.history, policy.state, policy.task)
    try:
        check_wiring(
            policy.program,
            policy.components,
            observation,
            policy.action,
            state_in_text=policy.task.uses_state,
        )
    except ValueError as error:
        raise ExportError(f"the family {policy.family} does not fit its program: {error}") from error


def _check_options(family: str, source: Source, options: ReadOptions) -> None:
    """Raises `SourceError` for what the user gave and the family would ignore."""
    given = {f.name for f in fields(options) if getattr(options, f.name) not in (None, False)}
    if unused := sorted(given - source.OPTIONS):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise SourceError(f"a checkpoint of family {family} has no use for {names}; leave it out")


def golden_samples(
    policy: Policy, sessions: Mapping[str, OnnxGraph], feeds: Sequence[Feed], picked: Sequence[int]
) -> list[Sample]:
    """What the graphs that ship answer to the observations `picked`, graph by graph and as a whole."""
    first: dict[str, Feed] = {}

    def keep(graph: str, inputs: Feed, outputs: Feed) -> None:
        first.setdefault(graph, outputs)

    runner: Runner = make_runner(policy.program, policy.components, sessions, policy.action, keep)
    samples = []
    for index in picked:
        first.clear()
        noise = sample_noise(policy, index)
        actions, guided = runner.run(feeds[index], noise), None
        if GUIDED in policy.components:
            guided = run_guided(policy.program, runner, feeds[index], noise, actions)
        outputs = {
            graph: {name: thin(values) for name, values in made.items()} for graph, made in first.items()
        }
        samples.append(Sample(dict(feeds[index]), noise, actions, outputs, guided))
    return samples


def _parity(
    policy: Policy,
    truth: Answers,
    found: Answers,
    sessions: Mapping[str, OnnxGraph],
    limits: Sequence[float],
) -> ParityReport:
    name = f"torch {torch.__version__} fp32 on the CPU"
    if policy.reference is not None:
        name += f", as {policy.reference.name}"
    parts = [compare_component(graph, sessions[graph], runs) for graph, runs in truth.runs.items()]
    return compare(truth.everything, found.everything, policy.action, limits, name, parts)


def _target(request: Request, path: Path) -> tuple[Path, str]:
    """Folder and name of the bundle: --output, else ./NAME.vla in the current folder."""
    # A shipped checkpoint is known by the name that was typed, not by that of its file.
    own = path.resolve().name if path.is_dir() else Path(request.checkpoint).stem
    stem = request.name or (request.output.stem if request.output else own)
    name = re.sub(r"[^A-Za-z0-9_.\-]+", "-", stem).strip("-.")[:64]
    if not name or (request.name and name != request.name):
        raise SourceError(f"{stem!r} is no name for a bundle; use letters, digits, '-', '_' and '.' (--name)")
    return request.output or Path(f"{name}{SUFFIX}"), name


def _task(policy: Policy, default: str | None) -> TaskContract:
    """With the default that the user asked for, else the source's own."""
    if default is None:
        return policy.task
    try:
        make_inputs(policy).instruction(default)
    except InstructionError as error:
        raise SourceError(f"--task {default!r} cannot be the default: {error}") from error
    examples = list(policy.task.examples)
    if default not in examples and not isinstance(policy.task.tokenizer, ClosedVocabulary):
        examples.append(default)
    return policy.task.model_copy(update={"default": default, "examples": examples})


def _latency(
    policy: Policy, feed: Feed, full: Mapping[str, OnnxFile], chosen: Mapping[str, OnnxGraph]
) -> dict[str, Latency]:
    """Of whole inferences, in three forms."""
    noise = sample_noise(policy, 0)
    forms = {
        "torch fp32": {name: TorchGraph(component) for name, component in policy.components.items()},
        "onnxruntime fp32": {name: graph.session() for name, graph in full.items()},
        "onnxruntime, this bundle": chosen,
    }
    runners = {
        form: make_runner(policy.program, policy.components, sessions, policy.action)
        for form, sessions in forms.items()
    }

    def runs(runner: Runner) -> Callable[[], object]:
        return lambda: runner.run(feed, noise)

    candidates = {form: runs(runner) for form, runner in runners.items()}
    return measure(candidates, budget_s=LATENCY_BUDGET_S)


def _golden_choice(truth: Answers, found: Answers, seconds: float) -> list[int]:
    """Indices spread over the recording, with the sample of the largest difference. `seconds`: of one."""
    difference: NDArray[Any] = np.abs(truth.actions - found.actions)
    worst = int(difference.reshape(len(difference), -1).max(1).argmax())
    count = min(GOLDEN_SAMPLES, max(1, int(GOLDEN_S / max(seconds, 1e-6))))
    spread = np.linspace(0, len(difference) - 1, count - 1).astype(int).tolist()
    return sorted({worst, *spread})
