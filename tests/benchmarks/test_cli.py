"""vla-bench as a person meets it: refusals in one line, and an end that leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.benchmarks import cli
from tests.processes import PATIENCE_S, command, descendants, wait_for, wait_gone

PARTS = {"simulated.cli", "simulated.camera_process", "runtime.cli", "control.process", "policy.process"}
"""Modules that the processes of a demo run."""

BENCH = [sys.executable, "-m", "holdfast.benchmarks.cli"]


def parts(pid: int) -> set[str]:
    commands = [command(found) for found in descendants(pid)]
    return {part for part in PARTS if any(part in text for text in commands)}


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["bus", "--arm", "serial:/dev/nope", "--no-vendor"], 3, "does not exist"),
        (["bus", "--arm", "serial:/dev/null", "--no-vendor"], 3, "not a serial port"),
        (["bus", "--arm", "/dev/ttyUSB0", "--no-vendor"], 2, "expected serial:"),
        (["demo", "--output", "/proc/x"], 2, "cannot be written"),
        (["jitter", "--output", __file__], 2, "cannot be written"),
        (["demo", "--bundle", "nope", "--output", "OUTPUT"], 2, "is no bundle"),
        (["endurance", "--bundle", "nope", "--output", "OUTPUT"], 2, "is no bundle"),
        (["endurance", "--output", "/proc/x"], 2, "cannot be written"),
        (["peers", "--output", "/proc/x"], 2, "cannot be written"),
        (["peers", "--inference-ms", "80", "30", "--output", "OUTPUT"], 2, "expected 0 < low <= high"),
        (["task", __file__], 2, "not a torch file"),
        (["task", "nope"], 2, "does not exist"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_cannot_be_used_is_refused_in_one_line(
    words: list[str], code: int, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[:2] == ["task", __file__]:
        pytest.importorskip("torch")
    pytest.importorskip("mujoco")
    assert cli.main([str(tmp_path) if word == "OUTPUT" else word for word in words]) == code
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["bus", "--cycles", "0"],
        ["bus", "--rounds", "x"],
        ["demo", "--port", "99999"],
        ["demo", "--seed", "-1"],
        ["demo", "--duration", "nan"],
        ["jitter", "--attempts", "0"],
        ["endurance", "--seconds", "0"],
        ["endurance", "--control-hz", "5"],
        ["endurance", "--inference-ms", "30", "0"],
        ["tick", "--ticks", "1"],
        ["peers", "--seconds", "1"],
        ["task", "policy", "--processes", "0"],
    ],
    ids=" ".join,
)
def test_numbers_out_of_bounds_are_refused_with_the_bounds(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert f"'{words[-1]}' is not a " in capsys.readouterr().err


@pytest.mark.sim
@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_a_killed_demo_leaves_no_process_behind(
    demo_bundle: Path, tmp_path: Path, number: signal.Signals
) -> None:
    words = [
        "demo",
        "--bundle",
        str(demo_bundle),
        "--output",
        str(tmp_path),
        "--port",
        "0",
        "--attempts",
        "9",
    ]
    with subprocess.Popen([*BENCH, *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as demo:
        try:
            wait_for(lambda: parts(demo.pid) >= PARTS, "every part of the demo")
            left = descendants(demo.pid)
        finally:
            demo.send_signal(number)
        assert demo.wait(2 * PATIENCE_S) == (128 + number if number == signal.SIGTERM else -number)
    for pid in left:
        if "cyclictest" not in command(pid):  # it ends by itself, after its --duration
            wait_gone(pid)
        else:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.sim
@pytest.mark.export
def test_workers_end_with_a_killed_parent() -> None:
    pytest.importorskip("torch")
    model = str(Path(cli.__file__).parents[1] / "export/models/demo/model.pt")
    words = ["task", model, "-n", "1000"]
    with subprocess.Popen([*BENCH, *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as bench:
        try:
            workers: list[int] = []

            def started() -> bool:
                workers[:] = [pid for pid in descendants(bench.pid) if "spawn_main" in command(pid)]
                return len(workers) >= 2

            wait_for(started, "two workers")
        finally:
            bench.kill()
    for pid in workers:
        wait_gone(pid)
