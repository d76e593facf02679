"""A safetensors file is read as it was written, or refused in one line; never anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.export.errors import SourceError
from holdfast.export.sources.safetensors import read_header, read_tensors

pytestmark = pytest.mark.export
REAL = Path(__file__).parent / "families" / "act" / "two_cameras" / "model.safetensors"


def write(path: Path, header: Any, data: bytes, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read_header(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_of_the_original_library() -> None:
    tensors = read_tensors(read_header(REAL))
    assert tensors["model.action_head.weight"].shape == (7, 16)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def test_every_dtype_and_an_odd_start(tmp_path: Path) -> None:
    data = bytes([7]) + b"\x00\x00\x80\x3f" + b"\x80\x3f" + b"\x00\x3c" + (5).to_bytes(8, "little")
    header = {
        "__metadata__": {"format": "pt"},
        "byte": entry("U8", [], 0, 1),
        "single": entry("F32", [1, 1], 1, 5),
        "brain": entry("BF16", [1], 5, 7),
        "half": entry("F16", [1], 7, 9),
        "count": entry("I64", [], 9, 17),
        "none": entry("F32", [0, 3], 17, 17),
    }
    tensors = read_tensors(read_header(write(tmp_path / "a", header, data)))
    assert {name: tensor.reshape(-1).tolist() for name, tensor in tensors.items()} == {
        "byte": [7], "single": [1.0], "brain": [1.0], "half": [1.0], "count": [5], "none": [],
    }  # fmt: skip
    assert tensors["none"].shape == (0, 3)


def test_writing_to_a_tensor_does_not_change_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a", {"x": entry("F32", [2], 0, 8)}, bytes(8))
    tensor = read_tensors(read_header(path))["x"]
    tensor += 1
    assert path.read_bytes().endswith(bytes(8))


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        ({"x": entry("F32", [2], 0, 8)}, bytes(7), "the file has"),
        ({"x": entry("F32", [2], 0, 8)}, bytes(9), "the file has"),
        ({"x": entry("F32", [3], 0, 8)}, bytes(8), "cannot have 8 bytes"),
        ({"x": entry("F8_E4M3", [8], 0, 8)}, bytes(8), "which is not read"),
        ({"x": entry("F32", [-2], 0, 8)}, bytes(8), "shape"),
        ({"x": entry("F32", [True], 0, 4)}, bytes(4), "shape"),
        ({"x": entry("F32", [1 << 60], 0, 8)}, bytes(8), "shape"),
        ({"x": entry("F32", [1], 0, 4), "y": entry("F32", [1], 2, 6)}, bytes(6), "one after the other"),
        ({"x": entry("F32", [1], 4, 8)}, bytes(8), "one after the other"),
        ({"x": {"dtype": "F32", "shape": [1]}}, bytes(4), "described by"),
        ({"x": 3}, b"", "described by"),
        ([1, 2], b"", "no table"),
        (b'{"x": 1, "x": 2}', b"", "twice"),
        (b"[" * 5000 + b"]" * 5000, b"", ""),
        (b"\xff\xfe", b"", ""),
        (b"version https://git-lfs.github.com/spec/v1", b"", "git-lfs"),
    ],
)
def test_what_is_refused(tmp_path: Path, header: Any, data: bytes, said: str) -> None:
    assert said in refusal(write(tmp_path / "x.safetensors", header, data))


def test_absurd_sizes_of_the_header(tmp_path: Path) -> None:
    for length in (0, 1, 3, 1 << 40, (1 << 64) - 1):
        assert "header would have" in refusal(write(tmp_path / "x", b"{}", b"", length))
    (tmp_path / "x").write_bytes(b"")
    assert "the file has 0" in refusal(tmp_path / "x")
    assert "no complete" in refusal(tmp_path)
    assert "no complete" in refusal(tmp_path / "absent")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, REAL.stat().st_size - 1))
def test_any_truncation_is_refused(tmp_path: Path, cut: int) -> None:
    (tmp_path / "cut").write_bytes(REAL.read_bytes()[:cut])
    refusal(tmp_path / "cut")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 9000), bit=st.integers(0, 7))
def test_a_flipped_bit_gives_tensors_or_one_line(tmp_path: Path, at: int, bit: int) -> None:
    data = bytearray(REAL.read_bytes())
    data[at] ^= 1 << bit
    (tmp_path / "flipped").write_bytes(data)
    said, size = "", 0
    try:
        size = sum(tensor.nbytes for tensor in read_tensors(read_header(tmp_path / "flipped")).values())
    except SourceError as error:
        said = str(error)
    assert "\n" not in said
    assert size < len(data)
