"""vla-export as a person types it: exit codes, messages, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from holdfast.export.cli import ExitCode, main
from holdfast.export.graphs import OnnxFile
from holdfast.runtime.bundle.last import last_bundle
from holdfast.runtime.bundle.reading import load_bundle

pytestmark = pytest.mark.export
Save = Callable[..., Path]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and a state folder of the test's own."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return folder


def test_fp16_model_pt(save: Save, workplace: Path) -> None:
    save().rename(workplace / "model.pt")
    (workplace.parent / "observations.npz").rename(workplace / "observations.npz")
    command = [sys.executable, "-m", "holdfast.export.cli", "--fp16", "model.pt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == ExitCode.DONE, done.stderr
    next_step = "vla-run model.vla --camera /dev/video0 --arm serial:/dev/ttyUSB0"
    for word in (
        "graphs fp16",
        "torch fp32",
        "wrist_roll",
        "Kept in fp32",
        "'touch the red cube'",
        next_step,
        "Evidence: recorded",
    ):
        assert word in done.stdout
    assert "recognised as demo because it is a torch file of format holdfast.demo_policy" in done.stderr
    assert "torchvision" not in done.stderr
    assert load_bundle("model.vla").spec.precision.requested == "fp16"
    assert last_bundle() == workplace / "model.vla"


def test_a_parity_failure_shows_the_table_and_leaves_nothing(
    save: Save,
    graph: bytes,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("holdfast.export.pipeline.export_graph", lambda *_: OnnxFile(graph))
    path = str(save())
    assert main(["--max-error", "1e-12", path]) == ExitCode.FAILED
    assert "FAILED" in capsys.readouterr().err
    code = main(["--max-error", "1e-12", "--json", path])
    out = capsys.readouterr()
    answer = json.loads(out.out)
    assert code == answer["exit_code"] == ExitCode.FAILED
    assert not answer["ok"]
    assert len(answer["parity"]["rows"]) == 6
    assert "no bundle is written" in out.err
    assert list(workplace.iterdir()) == []
    assert last_bundle() is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent.pt"], "does not exist"),
        (["notes.txt"], "no checkpoint that this version reads"),
        (["broken.pt"], "truncated"),
        ([".", "--output", "x"], "no checkpoint that this version reads"),
        (["broken.pt", "--output", "no/such/folder"], "does not exist; create it"),
        (["broken.pt", "--output", "notes.txt", "--force"], "is no bundle"),
        # Where nobody may write, not even root; noticed before the checkpoint is read.
        (["broken.pt", "--output", "/proc/x.vla"], "/proc/x.vla cannot be written"),
    ],
)
def test_what_cannot_be_used_is_usage(
    workplace: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "notes.txt").write_text("notes")
    (workplace / "broken.pt").write_bytes(b"PK\x03\x04")
    assert main(arguments) == ExitCode.USAGE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--fp16", "--fp32", "m"], ["--max-error", "-1", "m"], ["--what"]])
def test_wrong_command_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == ExitCode.USAGE
    capsys.readouterr()


HANG_WHILE_WRITING = """
import os, pathlib, sys, time
from holdfast.export import pipeline
from holdfast.export.graphs import OnnxFile
traced = pathlib.Path(sys.argv.pop(1)).read_bytes()
pipeline.export_graph = lambda *_: OnnxFile(traced)
def hang(handle):
    print("writing", flush=True)
    time.sleep(60)
os.fsync = hang
from holdfast.export.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_writing_leaves_nothing(
    save: Save, graph: bytes, workplace: Path, number: signal.Signals, code: int
) -> None:
    traced = workplace.parent / "traced.onnx"
    traced.write_bytes(graph)
    command = [sys.executable, "-c", HANG_WHILE_WRITING, str(traced), "--no-latency", str(save())]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "writing\n"
        assert {path.suffix for path in workplace.iterdir()} == {".tmp"}
        process.send_signal(number)
        error = process.stderr.read()
        assert process.wait(60) == code
    assert "no bundle has been written" in error
    assert list(workplace.iterdir()) == []


def test_an_internal_error_has_its_own_code(
    save: Save, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("holdfast.export.pipeline.export_graph", bug)
    assert main([str(save())]) == ExitCode.INTERNAL
    assert "internal error: ZeroDivisionError: a bug" in capsys.readouterr().err


def test_the_families_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--families"]) == ExitCode.DONE
    assert "Holdfast's demo policy" in capsys.readouterr().out
    assert main(["--families", "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["demo"].startswith("Holdfast's demo policy")


def test_a_torch_file_of_no_known_family_says_what_it_is(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model_state_dict": {}, "optimizer_state_dict": {}}, workplace / "training.pt")
    assert main(["training.pt"]) == ExitCode.USAGE
    error = " ".join(capsys.readouterr().err.split())
    assert "a torch file, but not of a family known here (it looks like a training checkpoint)" in error


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['vla-export', '--help']\n"
        "from holdfast.export.cli import main\n"
        "try: main()\n"
        "except SystemExit: print([m for m in ('torch', 'onnx', 'rich', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("[]")
