"""`vla-run --explain` and `--replay` on files: what is printed, what is drawn, the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.runtime.cli import main
from holdfast.runtime.control.state import Condition, Inbox
from holdfast.runtime.recorder import plot
from holdfast.runtime.recorder.collect import write_new, write_out
from holdfast.runtime.recorder.folder import CONTROL_RING

from ...house import closure, imports, modules, within
from .tapes import Tape


@pytest.fixture
def rings(tmp_path: Path) -> Path:
    """The folder of a run that was stopped by its camera."""
    tape = Tape(tmp_path / "run-abc").fly(150)
    tape.bench.tick(Inbox(conditions=(Condition("camera_lost", "the cable is off"),)))
    tape.bench.run(60)
    tape.beside()
    return tape.folder


@pytest.fixture
def file(rings: Path, tmp_path: Path) -> Path:
    return write_new(rings, tmp_path / "recordings", "camera_lost")


def test_the_story_and_a_plot_beside_the_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["--explain", str(file)]) == 0
    told = capsys.readouterr().out
    assert "Protective stop camera_lost: a camera is gone." in told
    assert "the cable is off" in told
    assert "Replay: the same decisions, bit for bit, in all" in told
    assert f"Plot: {file.with_suffix('.png')}" in told
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_replay_of_a_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--replay", str(file)]) == 0
    assert "the same decisions, bit for bit" in capsys.readouterr().out
    assert main(["--replay", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["replay"]["identical"] is True


def test_json_holds_facts_and_words(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--explain", str(file), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["stops"][0]["code"] == "camera_lost"
    assert document["story"][0]["title"] == "What happened"
    assert document["run"]["bundle"]["name"] == "tiny"


def test_the_rings_of_a_dead_run_are_told_as_they_lie(
    rings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["--explain", str(rings)]) == 0
    assert "Protective stop camera_lost" in capsys.readouterr().out
    pytest.importorskip("matplotlib")
    assert (tmp_path / "here" / "run-abc.png").exists()
    assert not list(rings.glob("*.png")), "nothing is put among the rings"


def test_without_a_file_the_newest_is_told(
    rings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    memory: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert main(["--explain"]) == 2
    assert "there is no recording in" in capsys.readouterr().err
    recordings = tmp_path / "state" / "holdfast" / "recordings"
    write_out(rings, recordings / "20260101T000000Z-older.flight")
    write_out(rings, recordings / "20260102T000000Z-newer.flight")
    write_out(rings, recordings / "mine.flight")
    assert main(["--explain"]) == 0
    assert "20260102T000000Z-newer.flight" in capsys.readouterr().out


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.1])
def test_a_file_that_was_cut_off_is_told_as_far_as_it_goes(
    file: Path, kept: float, capsys: pytest.CaptureFixture[str]
) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data))])
    assert main(["--explain", str(file)]) == 0
    assert "damaged or missing" in capsys.readouterr().out
    assert main(["--replay", str(file)]) == 0


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"garbage" * 1000, b"HFRING1\n"])
@pytest.mark.parametrize("option", ["--explain", "--replay"])
def test_what_is_no_recording_is_said_to_be_none(
    tmp_path: Path, content: bytes, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "not.flight"
    path.write_bytes(content)
    assert main([option, str(path)]) == 2
    assert "no recording that can be read" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--explain", "--replay"])
def test_a_file_that_is_not_there(tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([option, str(tmp_path / "nothing.flight")]) == 2
    assert "nothing.flight" in capsys.readouterr().err


def test_a_recording_that_decides_otherwise_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tape = Tape(tmp_path / "run-abc").fly(50)
    # What control would have recorded, had it computed otherwise.
    tape.bench.state = replace(tape.bench.state, task_id=7)
    tape.bench.run(5)
    tape.core.recorder.state(tape.bench.state, tape.bench.now_ns)
    assert main(["--replay", str(tape.folder)]) == 1
    told = capsys.readouterr().out
    assert "DIFFERENT at tick" in told
    assert "state.task_id" in told


def test_a_ring_without_a_tick_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Tape(tmp_path / "run-abc")
    assert (tmp_path / "run-abc" / CONTROL_RING).exists()
    assert main(["--explain", str(tmp_path / "run-abc")]) == 2
    assert "no tick of control" in capsys.readouterr().err


def test_without_matplotlib_the_story_still_comes(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    assert main(["--explain", str(file)]) == 0
    told = capsys.readouterr().out
    assert "Protective stop camera_lost" in told
    assert "No plot: the plot needs matplotlib: pip install 'holdfast[plot]'" in told


def test_a_plot_that_cannot_be_written_is_said(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("holdfast.runtime.recorder.explain.draw", full)
    assert main(["--explain", str(file)]) == 0
    assert "No plot: No space left on device" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--explain", "a", "--replay", "b"],
        ["--check", "--replay", "b"],
        ["--json"],
        ["--explain", ""],
        ["--replay", ""],
        ["tiny.vla", "--explain"],
        ["tiny.vla", "--explain", "a.flight"],
        ["tiny.vla", "--replay", "a.flight"],
        ["b.flight", "--explain", "a.flight"],
        ["b.flight", "--replay", "a.flight"],
        ["--ema", "1.01", "--check"],
    ],
)
def test_things_that_do_not_go_together(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as end:
        # argparse itself refuses.
        code = end.code
    assert code == 2
    assert "vla-run: " in capsys.readouterr().err


@pytest.mark.parametrize("what", ["file", "rings"])
def test_a_recording_named_before_the_option_is_the_one_that_is_told(
    what: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path: Path = request.getfixturevalue(what)
    monkeypatch.chdir(tmp_path)
    assert main([str(path), "--explain", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recording"]["path"] == str(path)


@pytest.mark.parametrize(
    "run",
    [
        {"bundle": "x"}, {"cameras": [1]}, {"policy_limits": None}, {"utc_less_monotonic_ns": 10**30},
        {"started_ns": "then"}, {"environment": {"packages": 3}}, {"options": []}, {"robot": {"name": {}}},
        {"of another version": 1},
    ],
)  # fmt: skip
def test_a_run_file_with_wrong_values_is_told_without_them(
    rings: Path, run: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (rings / "run.json").write_text(json.dumps({"pid": 7, **run}))
    assert main(["--explain", str(rings)]) == 0
    assert f"damaged or missing: run.json: {next(iter(run))}" in capsys.readouterr().out


def test_help_loads_nothing_of_it() -> None:
    script = "import sys, holdfast.runtime.cli; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"matplotlib", "cv2", "onnxruntime", "pydantic", "numpy"}


def test_matplotlib_is_for_plots_and_never_for_a_run() -> None:
    for module in modules():
        if within(module, "runtime") and any(within(name, "matplotlib") for name in imports(module)):
            assert module == "runtime.recorder.plot"
    for module in ("runtime.run", "runtime.control.process", "runtime.policy.process"):
        assert not [name for name in closure(module) if within(name, plot.__name__.removeprefix("holdfast."))]
