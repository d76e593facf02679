"""The table of precisions: from the fp32 graph to the graph that ships."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ...runtime.bundle.schema import PrecisionReport
from ..sessions import Feed
from .audit import bytes_per_dtype, nodes_per_dtype
from .fp16 import to_mixed_fp16
from .graph_view import prepare

Precision = Literal["fp32", "fp16"]


@dataclass(frozen=True)
class Converted:
    """A graph in its final precision, and the audit of it."""

    data: bytes
    report: PrecisionReport


def _fp32(data: bytes, feeds: Sequence[Feed]) -> tuple[bytes, dict[str, str]]:
    return data, {}


def _fp16(data: bytes, feeds: Sequence[Feed]) -> tuple[bytes, dict[str, str]]:
    model, kept = to_mixed_fp16(data, feeds)
    return model.SerializeToString(), kept


PRECISIONS: dict[Precision, Callable[[bytes, Sequence[Feed]], tuple[bytes, dict[str, str]]]] = {
    "fp32": _fp32,
    "fp16": _fp16,
}
"""Name -> conversion of an fp32 graph, given recorded graph inputs; returns it and the nodes left in fp32."""


def convert(precision: Precision, data: bytes, feeds: Sequence[Feed]) -> Converted:
    """The graph in the asked precision, audited. Raises `PrecisionError`."""
    final, kept = PRECISIONS[precision](data, feeds)
    model = prepare(final)
    report = PrecisionReport(
        requested=precision,
        kept_fp32=kept,
        bytes_per_dtype=bytes_per_dtype(model),
        nodes_per_dtype=nodes_per_dtype(model),
    )
    return Converted(final, report)
