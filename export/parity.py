"""Does the graph compute what the checkpoint computes? Judged in robot units, on recorded observations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.bundle.schema import (
    ActionContract,
    BpeTokenizer,
    ComponentParity,
    ParityReport,
    ParityRow,
    StateContract,
)
from ..runtime.policy.errors import InstructionError, ProgramError
from ..runtime.policy.inputs import Inputs
from .errors import ParityError, SourceError
from .reference import Run
from .sessions import Feed, OnnxGraph
from .sources.types import Observation, Policy

MIN_SAMPLES = {"recorded": 32, "dataset": 32, "golden_file": 1, "synthetic": 4}
"""Kind of evidence -> distinct observations that parity needs."""
MIN_COSINE = 0.999
STILL = 0.1
"""Share of the recording's RMS norm below which a chunk counts as holding still."""
MAX_RELATIVE_L2 = {"fp32": 1e-3, "fp16": 1e-2}
MAX_COMPONENT_L2 = {"fp32": 1e-3, "fp16": 5e-2}
"""Precision -> largest relative L2 error of any output of one component."""
COMPONENT_SHARE = {"fp32": 1e-3, "fp16": 5e-2}
"""Precision -> what another machine may differ by in a component's output, as a share of its largest."""

LIMITS: dict[str, dict[str, float]] = {
    "fp32": {"rad": 1e-4, "deg": 6e-3, "m": 1e-4, "pm100_of_range": 0.02, "0_100_of_range": 0.02,
             "normalised_gripper": 2e-4},
    "fp16": {"rad": 2e-3, "deg": 0.12, "m": 1e-3, "pm100_of_range": 0.5, "0_100_of_range": 0.5,
             "normalised_gripper": 5e-3},
}  # fmt: skip
"""Precision -> unit -> largest error of any action of any sample, in that unit."""


def to_feeds(policy: Policy) -> list[dict[str, NDArray[Any]]]:
    """The tensors of all observations, by the run path's own pre-processing and tokenizer.

    Raises `SourceError` when one is not what this policy could be given.
    """
    inputs = make_inputs(policy)
    return [to_feed(policy, inputs, observation) for observation in policy.observations]


def make_inputs(policy: Policy) -> Inputs:
    """Raises `SourceError` for a tokenizer that cannot be used."""
    tokenizer = policy.task.tokenizer
    file = policy.files.get(tokenizer.file) if isinstance(tokenizer, BpeTokenizer) else None
    size = 0 if policy.state is None else len(policy.state.elements)
    try:
        return Inputs(policy.cameras, policy.history, policy.task, file, size)
    except ProgramError as error:
        raise SourceError(f"the policy's tokenizer cannot be used: {error}") from error


def to_feed(policy: Policy, inputs: Inputs, observation: Observation) -> dict[str, NDArray[Any]]:
    """The tensors of one observation. Raises `SourceError`."""
    try:
        states = None
        if policy.state is not None:
            rows = [moment.state for moment in observation.moments]
            states = [normalise_state(row, policy.state) for row in rows if row is not None]
            if len(states) != len(rows):
                raise ValueError("it has no state")
        pictures = [moment.images for moment in observation.moments]
        return inputs.feed(pictures, states, inputs.instruction(observation.text))
    except (InstructionError, KeyError, ValueError) as error:
        raise SourceError(f"a recorded observation does not fit this policy: {error}") from error


def normalise_state(state: NDArray[np.float64], contract: StateContract) -> NDArray[np.float32]:
    """[elements] in the contract's units -> [elements] float32, normalised."""
    norm = contract.normalisation
    return ((state - np.asarray(norm.offset)) / np.asarray(norm.scale)).astype(np.float32)


def to_units(normalised: NDArray[Any], contract: ActionContract) -> NDArray[np.float64]:
    """[N, steps, elements] of the graph -> the contract's units (relative elements stay relative)."""
    offset = np.asarray([row.offset for row in contract.normalisation], np.float64)
    scale = np.asarray([row.scale for row in contract.normalisation], np.float64)
    return normalised.astype(np.float64) * scale + offset


def check_samples(feeds: Sequence[Feed], kind: str) -> None:
    """Raises `SourceError` unless there are enough distinct observations to judge by. `kind`: of evidence."""
    distinct = {b"".join(feed[name].tobytes() for name in sorted(feed)) for feed in feeds}
    if len(distinct) < MIN_SAMPLES[kind]:
        raise SourceError(
            f"parity needs at least {MIN_SAMPLES[kind]} distinct observations ({kind}), got {len(distinct)}; "
            "give a larger recording with --observations"
        )


def compare_component(graph: str, session: OnnxGraph, runs: Sequence[Run]) -> ComponentParity:
    """The worst output over some runs of the torch component, both given the same inputs.

    Raises `ParityError` when either side is not finite.
    """
    largest, worst = 0.0, 0.0
    for run in runs:
        for name, found in session.run(run.inputs).items():
            wanted, got = run.outputs[name].astype(np.float64), found.astype(np.float64)
            for who, values in (("the checkpoint's", wanted), ("the graph's", got)):
                if not np.isfinite(values).all():
                    raise ParityError(f"{who} {graph} gives values of {name} that are not finite")
            error = got - wanted
            largest = max(largest, float(np.abs(error).max(initial=0.0)))
            norm = max(float(np.linalg.norm(wanted)), float(np.finfo(np.float32).tiny))
            worst = max(worst, float(np.linalg.norm(error)) / norm)
    return ComponentParity(graph=graph, max_abs=largest, relative_l2=worst)


def element_limits(contract: ActionContract, precision: str, max_error_rad: float | None) -> list[float]:
    """The limit of each action element. `max_error_rad` replaces the one of joints, in rad."""
    limits = dict(LIMITS[precision])
    if max_error_rad is not None:
        limits |= {"rad": max_error_rad, "deg": float(np.degrees(max_error_rad))}
    return [limits[element.unit] for element in contract.elements]


def compare(
    reference: NDArray[Any],
    found: NDArray[Any],
    contract: ActionContract,
    limits: Sequence[float],
    name: str,
    components: Sequence[ComponentParity] = (),
) -> ParityReport:
    """Worst errors of `found` against `reference`, both [N, steps, elements] normalised, N samples.

    All three numbers are of normalised chunks: `max_abs` of the worst value, cosine and relative L2 of the
    worst sample. The chunk of an arm that holds still has hardly a norm to be relative to: L2 is relative to
    the recording's RMS norm where that is larger, and samples below `STILL` of it have no cosine; the limits
    in robot units judge them. Raises `ParityError` when either side is not finite: no number describes that.
    """
    for who, values in (("the checkpoint", reference), ("the graph", found)):
        if not np.isfinite(values).all():
            raise ParityError(f"{who} gives values that are not finite on a recorded observation")
    error = np.abs(to_units(found, contract) - to_units(reference, contract))
    a = reference.astype(np.float64).reshape(len(reference), -1)
    b = found.astype(np.float64).reshape(len(found), -1)
    norm_a, norm_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    tiny = float(np.finfo(np.float64).tiny)
    typical = max(float(np.sqrt(np.mean(norm_a**2))), tiny)
    moving = norm_a >= STILL * typical
    cosine = (a * b).sum(1)[moving] / np.maximum(norm_a * norm_b, tiny)[moving]
    # Not validated: the schema refuses a report beyond its limits, and a person has to see that one.
    return ParityReport.model_construct(
        samples=len(reference),
        reference=name,
        cosine=float(cosine.min(initial=1.0)),
        relative_l2=float((np.linalg.norm(a - b, axis=1) / np.maximum(norm_a, typical)).max()),
        max_abs=float(np.abs(a - b).max()),
        rows=[
            ParityRow(
                element=element.name,
                unit=element.unit,
                max_abs=float(error[..., i].max()),
                mean_abs=float(error[..., i].mean()),
                limit=limits[i],
            )
            for i, element in enumerate(contract.elements)
        ],
        components=list(components),
    )


def failures(report: ParityReport, precision: str) -> list[str]:
    """What keeps this report from passing; empty when it passes."""
    out = [
        f"{row.element}: error {row.max_abs:.3g} {row.unit}, at most {row.limit:.3g} is allowed"
        for row in report.rows
        if not row.max_abs <= row.limit
    ]
    if not report.cosine >= MIN_COSINE:
        out.append(f"cosine {report.cosine:.6f}, at least {MIN_COSINE} is required")
    if not report.relative_l2 <= MAX_RELATIVE_L2[precision]:
        out.append(f"relative L2 {report.relative_l2:.3g}, at most {MAX_RELATIVE_L2[precision]} is allowed")
    out += [
        f"graph {part.graph}: relative L2 {part.relative_l2:.3g}, at most {MAX_COMPONENT_L2[precision]} is "
        "allowed"
        for part in report.components
        if not part.relative_l2 <= MAX_COMPONENT_L2[precision]
    ]
    return out


def golden_tolerance(contract: ActionContract, limits: Sequence[float]) -> float:
    """Largest difference of a normalised output that stays inside every element's limit in robot units."""
    scale = np.asarray([row.scale for row in contract.normalisation])
    return float((np.asarray(limits) / scale).min())
