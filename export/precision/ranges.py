"""Activation ranges: how large does each value get on recorded observations?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from ..sessions import Feed, OnnxGraph
from .graph_view import FLOAT, FLOAT16, GraphView


def probe_ranges(model: onnx.ModelProto, feeds: Sequence[Feed]) -> dict[str, float]:
    """Largest magnitude of every floating value that the graph takes or computes, over all feeds.

    Infinity stands for a value that was not finite. The graph is run as written, with every value as an
    output: a backend may otherwise keep a wider type between nodes and hide an overflow.
    """
    view = GraphView(model)
    wanted = [value for value in view.producer if view.types[value] in (FLOAT, FLOAT16)]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.helper.make_tensor_value_info(v, view.types[v], None) for v in wanted)
    session = OnnxGraph(probe.SerializeToString(), literal=True)
    ranges = dict.fromkeys(wanted, 0.0)
    for feed in feeds:
        given = {name: array for name, array in feed.items() if array.dtype.kind == "f"}
        for name, array in {**given, **session.run(feed)}.items():
            largest = float(np.abs(array).max(initial=0.0))
            ranges[name] = max(ranges.get(name, 0.0), largest if np.isfinite(largest) else float("inf"))
    return ranges
