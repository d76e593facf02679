"""An .npz is read back as it was written; whatever else its bytes say is a `ValueError`, soon and cheaply."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.runtime.bundle.npz import read_npz

LIMIT = 1 << 20


def packed(compress: bool = True) -> bytes:
    buffer = io.BytesIO()
    save = np.savez_compressed if compress else np.savez
    save(
        buffer,
        image=np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
        columns=np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        text=np.array(["touch", "pick up"]),
        number=np.float64(0.5),
    )
    return buffer.getvalue()


def with_header(header: str, data: bytes = b"") -> bytes:
    """An .npz with one member `state` whose header says `header`."""
    buffer = io.BytesIO()
    raw = header.encode() + b"\n"
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("state.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + data)
    return buffer.getvalue()


def header(descr: str, shape: str) -> str:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize("compress", [True, False])
def test_it_reads_what_numpy_wrote(compress: bool) -> None:
    arrays = read_npz(packed(compress), LIMIT)
    with np.load(io.BytesIO(packed(compress))) as expected:
        assert set(arrays) == set(expected.files)
        for name, array in arrays.items():
            assert array.dtype == expected[name].dtype
            np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize(
    "text",
    [
        header("<f4", "(100000000000000, 6)"),
        header("<f4", f"(1{'0' * 30}, 6)"),
        header("<f4", f"(1{'0' * 18}, 1{'0' * 18})"),
        header("<f4", "(-1, 6)"),
        header("<f4", "(0, 99999999999999999999)"),
        header("|O", "(1,)"),
        header("<f3", "(1,)"),
        header("<U0", "(1000000000000,)"),
        header("<U999999", "(1000000000000,)"),
        "(" * 5000,
        "[1, 2]",
        "",
    ],
)
def test_a_header_that_claims_too_much_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="state"):
        read_npz(with_header(text, b"\0" * 24), LIMIT)


def test_shape_and_type_are_judged_before_the_data() -> None:
    def refuse(name: str, dtype: object, shape: tuple[int, ...]) -> None:
        raise ValueError(f"{name} {dtype} {shape}")

    with pytest.raises(ValueError, match=r"state float32 \(100000000000000, 6\)"):
        read_npz(with_header(header("<f4", "(100000000000000, 6)")), LIMIT, refuse)


def test_too_much_and_unusual_archives_are_refused() -> None:
    with pytest.raises(ValueError, match="unpacks to"):
        read_npz(packed(), 10)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("state.npy", b"\0" * 100)
    with pytest.raises(ValueError, match="unusual"):
        read_npz(buffer.getvalue(), LIMIT)
    with pytest.raises(ValueError, match="damaged"):
        read_npz(b"", LIMIT)


@given(st.data())
def test_a_damaged_archive_is_a_value_error_or_still_arrays(data: st.DataObject) -> None:
    raw = bytearray(packed(data.draw(st.booleans())))
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
        raw[at] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.integers(0, len(raw)) | st.just(len(raw)))
    try:
        arrays = read_npz(bytes(raw[:cut]), LIMIT)
    except ValueError:
        return
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
