"""The picture of a recording: drawn without a display, whatever the recording lacks."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from holdfast.drivers.types import StampSource
from holdfast.runtime.recorder import plot
from holdfast.runtime.recorder.account import account_of
from holdfast.runtime.recorder.observed import FrameRecord
from holdfast.runtime.recorder.plot import NoMatplotlib, draw

from ..control.world import MS
from .flight import Flight


def frames(flight: Flight, count: int) -> tuple[FrameRecord, ...]:
    """Pure red pictures, 200 ms apart."""
    red = np.zeros((90, 120, 3), np.uint8)
    red[:, :, 2] = 255
    jpeg = cv2.imencode(".jpg", red)[1].tobytes()
    now = flight.bench.now_ns
    return tuple(
        FrameRecord("front", now - 200 * k * MS, StampSource.HEADER, now - 200 * k * MS, k, jpeg)
        for k in reversed(range(count))
    )


def picture_of(account: object, path: Path) -> np.ndarray:
    draw(account, path)  # pyright: ignore[reportArgumentType]
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture


def test_a_stop_is_drawn_with_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.delenv("DISPLAY", raising=False)
    flight = Flight(goal=0.9).go(150)
    pictures = frames(flight, 4)
    recording = flight.stop().rest().recording(frames=pictures)
    picture = picture_of(account_of(recording), tmp_path / "stop.png")
    assert picture.shape[0] > 400
    assert picture.shape[1] > 1000
    blue, green, red = (picture[:, :, k].astype(int) for k in range(3))
    assert np.count_nonzero((red > 240) & (green < 30) & (blue < 30)) > 4 * 1000, "the thumbnails"
    without = picture_of(account_of(replace(recording, frames=())), tmp_path / "without.png")
    assert without.shape[0] < picture.shape[0]


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    """No stop, no state to replay from, no answer of the motors, a picture that is none."""
    pytest.importorskip("matplotlib")
    flight = Flight().go(3)
    broken = replace(frames(flight, 1)[0], jpeg=b"no picture")
    recording = flight.recording(frames=(broken,), states=())
    ticks = tuple(replace(tick, joint=None) for tick in recording.ticks)
    picture_of(account_of(replace(recording, ticks=ticks)), tmp_path / "bare.png")


def test_it_is_for_its_owner_alone_and_replaces_no_recording(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    account = account_of(replace(Flight().go(3).recording(), path=str(tmp_path / "odd.png")))
    (tmp_path / "odd.png").write_bytes(b"a recording")
    with pytest.raises(OSError, match="the recording itself"):
        draw(account, tmp_path / "odd.png")
    assert (tmp_path / "odd.png").read_bytes() == b"a recording"
    (tmp_path / "link.png").symlink_to(tmp_path / "target")
    draw(account, tmp_path / "link.png")
    assert not (tmp_path / "target").exists()
    assert (tmp_path / "link.png").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.png", "odd.png"]


def legends(flight: Flight, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> str:
    """What the lines of its plot are called."""
    seen: list[str] = []

    def keep(figure: Any, *_: object) -> None:
        seen.extend(
            text.get_text() for axes in figure.axes if (box := axes.get_legend()) for text in box.texts
        )

    monkeypatch.setattr(plot, "_save", keep)
    draw(account_of(flight.recording(**changes)), Path("none.png"))
    return "; ".join(seen)


def test_what_a_dry_run_told_the_core_is_not_called_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    flight = Flight().go(20)
    assert "measured" in legends(flight, monkeypatch)
    dry = legends(flight, monkeypatch, run={"options": {"dry_run": True}})
    assert "what the core was told (dry run: the arm was not moved)" in dry
    assert "measured" not in dry


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(NoMatplotlib, match=r"pip install 'holdfast\[plot\]'"):
        draw(account_of(Flight().go(3).recording()), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
