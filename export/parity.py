"""Does the graph compute what the checkpoint computes? Judged in robot units, on recorded observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.bundle.schema import ActionContract, ParityReport, ParityRow, StateContract
from ..runtime.policy.preprocess import prepare_image
from ..runtime.policy.words import InstructionError, encode_words
from .errors import ParityError, SourceError
from .sessions import Feed
from .sources.types import Observation, Policy

MIN_SAMPLES = 32
MIN_COSINE = 0.999
STILL = 0.1
"""Share of the recording's RMS norm below which a chunk counts as holding still."""
MAX_RELATIVE_L2 = {"fp32": 1e-3, "fp16": 1e-2}

LIMITS: dict[str, dict[str, float]] = {
    "fp32": {"rad": 1e-4, "deg": 6e-3, "m": 1e-4, "pm100_of_range": 0.02, "0_100_of_range": 0.02,
             "normalised_gripper": 2e-4},
    "fp16": {"rad": 2e-3, "deg": 0.12, "m": 1e-3, "pm100_of_range": 0.5, "0_100_of_range": 0.5,
             "normalised_gripper": 5e-3},
}  # fmt: skip
"""Precision -> unit -> largest error of any action of any sample, in that unit."""


def to_feed(policy: Policy, observation: Observation) -> dict[str, NDArray[Any]]:
    """The graph's inputs for one observation, by the run path's own pre-processing and tokenizer.

    Raises `SourceError` when the observation is not one that this policy could be given.
    """
    program = policy.program
    feed: dict[str, NDArray[Any]] = {}
    try:
        for camera in policy.cameras:
            feed[program.image_inputs[camera.name]] = prepare_image(observation.images[camera.name], camera)
        if program.token_input is not None and policy.task.tokenizer is not None:
            feed[program.token_input] = encode_words(observation.text, policy.task.tokenizer)
    except (InstructionError, KeyError, ValueError) as error:
        raise SourceError(f"a recorded observation does not fit this policy: {error}") from error
    if program.state_input is not None:
        feed[program.state_input] = normalise_state(observation.state, policy.state)
    return feed


def normalise_state(state: NDArray[np.float64], contract: StateContract) -> NDArray[np.float32]:
    """[elements] in the contract's units -> [1, elements] float32, normalised."""
    norm = contract.normalisation
    return ((state - np.asarray(norm.offset)) / np.asarray(norm.scale)).astype(np.float32)[None]


def to_units(normalised: NDArray[Any], contract: ActionContract) -> NDArray[np.float64]:
    """[N, steps, elements] of the graph -> the contract's units (relative elements stay relative)."""
    offset = np.asarray([row.offset for row in contract.normalisation], np.float64)
    scale = np.asarray([row.scale for row in contract.normalisation], np.float64)
    return normalised.astype(np.float64) * scale + offset


def check_samples(feeds: Sequence[Feed]) -> None:
    """Raises `SourceError` unless there are enough distinct observations to judge by."""
    distinct = {b"".join(feed[name].tobytes() for name in sorted(feed)) for feed in feeds}
    if len(distinct) < MIN_SAMPLES:
        raise SourceError(
            f"parity needs at least {MIN_SAMPLES} distinct recorded observations, got {len(distinct)}; "
            "give a larger recording with --observations"
        )


def element_limits(contract: ActionContract, precision: str, max_error_rad: float | None) -> list[float]:
    """The limit of each action element. `max_error_rad` replaces the one of joints, in rad."""
    limits = dict(LIMITS[precision])
    if max_error_rad is not None:
        limits |= {"rad": max_error_rad, "deg": float(np.degrees(max_error_rad))}
    return [limits[element.unit] for element in contract.elements]


def compare(
    reference: NDArray[Any], found: NDArray[Any], contract: ActionContract, limits: Sequence[float], name: str
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
    return out


def golden_tolerance(contract: ActionContract, limits: Sequence[float]) -> float:
    """Largest difference of a normalised output that stays inside every element's limit in robot units."""
    scale = np.asarray([row.scale for row in contract.normalisation])
    return float((np.asarray(limits) / scale).min())


def stack(feeds: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Samples of batch 1 -> one array per name with the samples along the first axis."""
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
