"""Golden samples survive the round trip; anything else is refused, and nothing is unpickled."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.runtime.bundle.errors import BundleError
from holdfast.runtime.bundle.golden import MOST_VALUES, Sample, pack_golden, read_golden, thin, unpack_golden
from holdfast.runtime.bundle.reading import load_bundle
from holdfast.runtime.bundle.schema import Bundle
from holdfast.runtime.bundle.writing import write_bundle

from .programs import flow_spec, validate


def samples(spec: Bundle, count: int = 3) -> list[Sample]:
    """Zeros as inputs, the sample's number as outputs."""
    from holdfast.runtime.bundle.schema import observed

    observation = observed(spec.cameras, spec.history, spec.state, spec.task)
    inputs = {name: np.zeros(tensor.shape, tensor.dtype) for name, tensor in observation.items()}
    shape = (1, spec.action.steps, len(spec.action.elements))
    noise = spec.program.noise_shape(spec.action)
    return [
        Sample(
            inputs,
            None if noise is None else np.full(noise, i, np.float32),
            np.full(shape, i, np.float32),
            {
                graph: {t.name: thin(np.full(t.shape, i, t.dtype)) for t in spec.graphs[graph].outputs}
                for graph in spec.numerics.components
            },
            np.full(shape, -i, np.float32) if "denoise_step_guided" in spec.graphs else None,
        )
        for i in range(count)
    ]


@pytest.fixture
def checked(spec: dict[str, Any]) -> Bundle:
    return validate(spec)


def test_round_trip_of_a_single_graph(checked: Bundle) -> None:
    found = unpack_golden(pack_golden(samples(checked)), checked)
    assert len(found) == 3
    assert found[2].inputs["image.front"].shape == (1, 96, 96, 3)
    assert found[2].actions.shape == (1, 16, 6)
    assert (found[2].actions == 2).all()
    assert found[2].noise is None
    assert found[2].outputs == {}


def test_round_trip_of_noise_components_and_guidance() -> None:
    values = flow_spec(guided=True)
    values["numerics"]["components"] = {"prefill": 1e-3, "denoise_step_guided": 1e-3}
    spec = validate(values)
    found = unpack_golden(pack_golden(samples(spec)), spec)
    assert found[1].noise is not None
    assert found[1].noise.shape == (1, 20, 8)
    assert (found[1].noise == 1).all()
    assert found[1].guided is not None
    assert (found[1].guided == -1).all()
    assert set(found[1].outputs) == {"prefill", "denoise_step_guided"}
    cache = found[1].outputs["prefill"]["key.0"]
    assert cache.size == min(MOST_VALUES, 4 * 5 * 3)


@pytest.mark.parametrize("size", [1, MOST_VALUES, MOST_VALUES + 1, 3 * MOST_VALUES - 1, 10**5])
def test_thinning_keeps_a_bounded_even_part(size: int) -> None:
    kept = thin(np.arange(size).reshape(1, size))
    assert 0 < kept.size <= MOST_VALUES
    assert kept[0] == 0
    assert len(set(np.diff(kept))) <= 1


def test_other_shapes_types_counts_and_names_are_refused(checked: Bundle) -> None:
    good = samples(checked)

    def packed(**changes: Any) -> bytes:
        rows = [Sample({**s.inputs, **changes}, s.noise, s.actions, s.outputs) for s in good]
        return pack_golden(rows)

    lacking = [Sample({k: v for k, v in s.inputs.items() if k != "state"}, None, s.actions, {}) for s in good]
    with pytest.raises(ValueError, match="no samples of in/state"):
        unpack_golden(pack_golden(lacking), checked)
    for wrong in (
        {"state": np.zeros([1, 7], np.float32)},
        {"state": np.zeros([1, 6], np.float64)},
        {"state": np.zeros([2, 6], np.float32)},
        {"more": np.zeros([1, 6], np.float32)},
    ):
        with pytest.raises(ValueError, match=r"state|samples|more"):
            unpack_golden(packed(**wrong), checked)


def test_pickles_and_garbage_in_a_bundle_are_refused(
    tmp_path: Path, spec: dict[str, Any], files: Any
) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, np.array([object()], dtype=object))
    for name, data in (("pickle", buffer.getvalue()), ("garbage", b"PK\x03\x04no"), ("empty", b"")):
        bundle = write_bundle(tmp_path / f"{name}.vla", spec, files | {"golden/observations.npz": data})
        with pytest.raises(BundleError, match=r"observations.npz is not valid"):
            read_golden(load_bundle(bundle))


@pytest.mark.parametrize("shape", ["(100000000000000, 6)", f"(1{'0' * 30}, 6)", "(3, 6)", "()"])
def test_a_header_that_claims_more_than_there_is_is_refused(
    tmp_path: Path, spec: dict[str, Any], files: Any, shape: str, checked: Bundle
) -> None:
    rows = [
        Sample({k: v for k, v in s.inputs.items() if k != "state"}, None, s.actions) for s in samples(checked)
    ]
    buffer = io.BytesIO(pack_golden(rows))
    raw = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("in/state.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw)
    bundle = write_bundle(tmp_path / "huge.vla", spec, files | {"golden/observations.npz": buffer.getvalue()})
    with pytest.raises(BundleError, match=r"observations.npz is not valid: in/state"):
        read_golden(load_bundle(bundle))


def test_read_from_a_bundle(tmp_path: Path, spec: dict[str, Any], files: Any, checked: Bundle) -> None:
    data = pack_golden(samples(checked))
    bundle = write_bundle(tmp_path / "a.vla", spec, files | {"golden/observations.npz": data})
    assert len(read_golden(load_bundle(bundle))) == 3
