"""Observations to judge parity by: the user's, or made up, and it is said which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.export.errors import SourceError
from holdfast.export.sources.observations import gather, synthetic
from holdfast.export.sources.types import ReadOptions
from holdfast.runtime.bundle.schema import Element, History, ImageSpec, Normalisation, StateContract

pytestmark = pytest.mark.export
CAMERA = ImageSpec(
    name="top", height=12, width=16, channels="rgb", layout="hwc", dtype="uint8", resize="area",
    aspect="centre_crop", scale=1.0, mean=[], std=[],
)  # fmt: skip
STATE = StateContract(
    elements=[Element(name="a", unit="rad"), Element(name="b", unit="rad")],
    normalisation=Normalisation(source="mean_std", offset=[1.0, -20.0], scale=[0.1, 3.0]),
)
PAST = History(steps=3, dt_s=0.1)
TEXTS = ["one", "two"]


def save(path: Path, **arrays: Any) -> ReadOptions:
    np.savez(path, **arrays)
    return ReadOptions(observations=path)


@pytest.mark.parametrize("history", [None, PAST])
def test_made_up_ones_are_distinct_and_say_what_they_are(history: History | None) -> None:
    made, evidence = gather(ReadOptions(), [CAMERA], history, STATE, TEXTS)
    assert evidence.kind == "synthetic"
    assert evidence.samples == len(made) >= 4
    assert {observation.text for observation in made} == set(TEXTS)
    pictures = [moment.images["top"] for observation in made for moment in observation.moments]
    assert all(picture.shape == (12, 16, 3) for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    states = np.array([moment.state for observation in made for moment in observation.moments])
    assert (np.abs(states - [1, -20]) <= [0.1, 3]).all()
    assert states.std(0).min() > 0
    assert len(made[0].moments) == (1 if history is None else 3)


def test_a_policy_without_state() -> None:
    assert synthetic([CAMERA], None, None, TEXTS)[0].moments[0].state is None


def test_a_recording(tmp_path: Path) -> None:
    pictures = np.arange(5 * 3 * 20 * 30 * 3, dtype=np.uint32).astype(np.uint8).reshape(5, 3, 20, 30, 3)
    state = np.arange(5 * 3 * 2, dtype=np.float32).reshape(5, 3, 2)
    options = save(tmp_path / "a.npz", **{"image.top": pictures, "state": state})
    recorded, evidence = gather(options, [CAMERA], PAST, STATE, TEXTS)
    assert (evidence.kind, evidence.samples, evidence.text) == ("recorded", 5, "a.npz")
    assert recorded[3].text == "one"
    assert np.array_equal(recorded[3].moments[1].images["top"], pictures[3, 1])
    assert np.array_equal(np.asarray(recorded[3].moments[2].state), state[3, 2])


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"state": np.zeros([2, 2])}, "no image.top"),
        ({"image.top": np.zeros([2, 4, 4, 3], np.uint8)}, "no state"),
        ({"image.top": np.zeros([0, 4, 4, 3], np.uint8), "state": np.zeros([0, 2])}, "empty"),
        ({"image.top": np.zeros([2, 4, 4, 3]), "state": np.zeros([2, 2])}, "expected uint8"),
        ({"image.top": np.zeros([2, 4, 4], np.uint8), "state": np.zeros([2, 2])}, "expected uint8"),
        ({"image.top": np.zeros([2, 4, 4, 3], np.uint8), "state": np.zeros([2, 3])}, "expected [2, 2]"),
        ({"image.top": np.zeros([2, 4, 4, 3], np.uint8), "state": np.full([2, 2], np.nan)}, "not finite"),
        (
            {"image.top": np.zeros([2, 4, 4, 3], np.uint8), "state": np.array([["a", "b"]] * 2)},
            "expected [2, 2]",
        ),
        (
            {"image.top": np.zeros([2, 4, 4, 3], np.uint8), "state": np.zeros([2, 2]), "text": ["a"]},
            "1 texts",
        ),
        ({"image.top": np.uint8(3), "state": np.zeros([2, 2])}, "cannot be used"),
    ],
)
def test_recordings_that_cannot_be_used(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(SourceError) as caught:
        gather(save(tmp_path / "a.npz", **arrays), [CAMERA], None, STATE, TEXTS)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_recordings(tmp_path: Path) -> None:
    for data in (b"", b"PK\x03\x04nothing", b"\x93NUMPY"):
        (tmp_path / "a.npz").write_bytes(data)
        with pytest.raises(SourceError, match="cannot be used"):
            gather(ReadOptions(observations=tmp_path / "a.npz"), [CAMERA], None, STATE, TEXTS)
    with pytest.raises(SourceError, match="cannot be used"):
        gather(ReadOptions(observations=tmp_path / "absent"), [CAMERA], None, STATE, TEXTS)
