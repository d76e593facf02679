"""The table of precisions: from the fp32 graph to the graph that ships."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ...runtime.bundle.schema import PrecisionReport
from ..errors import PrecisionError
from ..graphs import OnnxFile
from ..sessions import Feed
from .audit import bytes_per_dtype, nodes_per_dtype
from .fp16 import to_mixed_fp16
from .graph_view import prepare

Precision = Literal["fp32", "fp16"]


@dataclass(frozen=True)
class Converted:
    """A graph in its final precision, and the audit of it."""

    file: OnnxFile
    report: PrecisionReport

    @property
    def size(self) -> int:
        return self.file.size


def _fp32(file: OnnxFile, feeds: Sequence[Feed]) -> tuple[OnnxFile, dict[str, str]]:
    return file, {}


def _fp16(file: OnnxFile, feeds: Sequence[Feed]) -> tuple[OnnxFile, dict[str, str]]:
    if file.data is not None:
        raise PrecisionError(
            f"a graph of {file.size} bytes is too large for this version's fp16 conversion; export with "
            "--fp32"
        )
    model, kept = to_mixed_fp16(file.model, feeds)
    return OnnxFile(model.SerializeToString()), kept


PRECISIONS: dict[Precision, Callable[[OnnxFile, Sequence[Feed]], tuple[OnnxFile, dict[str, str]]]] = {
    "fp32": _fp32,
    "fp16": _fp16,
}
"""Name -> conversion of an fp32 graph, given recorded graph inputs; returns it and the nodes left in fp32."""


def convert(precision: Precision, file: OnnxFile, feeds: Sequence[Feed]) -> Converted:
    """The graph in the asked precision, audited. Raises `PrecisionError`."""
    final, kept = PRECISIONS[precision](file, feeds)
    model = prepare(final.model, whole=final.data is None)
    report = PrecisionReport(
        requested=precision,
        kept_fp32=kept,
        bytes_per_dtype=bytes_per_dtype(model),
        nodes_per_dtype=nodes_per_dtype(model),
    )
    return Converted(final, report)
