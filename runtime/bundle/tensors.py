"""The schema's ground floor: names, files, tensors and graphs."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_ELEMENTS = 1 << 28
"""Most elements of one graph input or output: 1 GiB of float32."""
MAX_TENSORS = 512
"""Most inputs, or outputs, of one graph: a cache has two tensors a layer."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$")]
Count = Annotated[int, Field(gt=0, le=1 << 20)]
Label = Annotated[str, Field(min_length=1, max_length=512)]
Positive = Annotated[float, Field(gt=0)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
DType = Literal["uint8", "int32", "int64", "float16", "float32"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class File(Strict):
    path: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)?$")]
    """Relative, at most one folder deep, no `..`."""
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Tensor(Strict):
    name: Label
    dtype: DType
    shape: Annotated[list[Count], Field(max_length=8)]
    """Static shapes, batch 1 included."""

    @model_validator(mode="after")
    def _bounded(self) -> Tensor:
        if math.prod(self.shape) > MAX_ELEMENTS:
            raise ValueError(f"tensor {self.name} has shape {self.shape}, over {MAX_ELEMENTS} elements")
        return self


class Graph(Strict):
    """One ONNX file with static shapes. Its inputs find their sources by name: see `wiring`."""

    file: str
    data: Annotated[list[str], Field(max_length=64)] = Field(default_factory=list)
    """Files beside it that hold its weights (ONNX external data)."""
    precision: Literal["fp32", "fp16", "bf16", "int8", "int4"]
    inputs: Annotated[list[Tensor], Field(max_length=MAX_TENSORS)]
    outputs: Annotated[list[Tensor], Field(min_length=1, max_length=MAX_TENSORS)]

    @model_validator(mode="after")
    def _consistent(self) -> Graph:
        for what, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            if len({tensor.name for tensor in tensors}) != len(tensors):
                raise ValueError(f"two {what} of {self.file} share a name")
        folder = self.file.rpartition("/")[0]
        if any(path.rpartition("/")[0] != folder for path in self.data):
            raise ValueError(f"the data files of {self.file} must lie in its folder, not {self.data}")
        return self
