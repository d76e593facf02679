"""Programs of kind `single`: one graph gives the chunk."""

from __future__ import annotations

import numpy as np

from ...bundle.schema import ActionContract, Single
from .base import Array32, Feed, Graphs, Prefix


class SingleRunner:
    def __init__(self, program: Single, graphs: Graphs, action: ActionContract) -> None:
        self._graphs = graphs

    def begin(self) -> None:
        """Nothing is kept between chunks."""

    def run(self, feed: Feed, noise: Array32 | None = None, prefix: Prefix | None = None) -> Array32:
        return np.asarray(self._graphs.run("policy", feed)["actions"], np.float32)
