"""vla-train's command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.processes import PATIENCE_S, descendants, wait_for, wait_gone
from tests.processes import command as process_command


def vla_train(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast.export.training.cli", *words],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_help_names_the_verbs_and_imports_nothing_heavy():
    code = "import sys, holdfast.export.training.cli as c; c.parser(); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60) == "False\n"
    assert "demos" in vla_train("--help").stdout


def test_a_folder_that_does_not_exist_is_a_usage_error(tmp_path):
    pytest.importorskip("mujoco")
    done = vla_train("demos", "--out", str(tmp_path / "no" / "demos.npz"), "--episodes", "1")
    assert done.returncode == 2
    assert "does not exist" in done.stderr


def test_missing_demonstrations_are_a_usage_error_that_says_what_to_do(tmp_path):
    pytest.importorskip("torch")
    done = vla_train("fit", "--data", str(tmp_path / "demos.npz"), "--out", str(tmp_path / "model.pt"))
    assert done.returncode == 2
    assert "vla-train demos --out" in done.stderr


def test_a_folder_that_cannot_be_written_is_found_before_the_work(tmp_path):
    done = vla_train("demos", "--out", "/proc/demos.npz", "--episodes", "1000000")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    done = vla_train("fit", "--data", "x", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "it is a folder" in done.stderr


@pytest.mark.parametrize(
    "words",
    [("--episodes", "0"), ("--seed", "-1"), ("--seed", "x"), ("--processes", "0")],
    ids=" ".join,
)
def test_numbers_out_of_bounds_are_usage_errors(words):
    done = vla_train("demos", "--out", "x.npz", *words)
    assert done.returncode == 2
    assert f"'{words[1]}' is not a whole number from" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_it_and_its_workers_with_one_line(tmp_path, number):
    pytest.importorskip("mujoco")
    command = [sys.executable, "-m", "holdfast.export.training.cli", "demos", "--processes", "2"]
    command += ["--out", str(tmp_path / "demos.npz")]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:
        workers = []

        def started():
            workers[:] = [pid for pid in descendants(process.pid) if "spawn_main" in process_command(pid)]
            return len(workers) >= 2

        try:
            wait_for(started, "two workers")
        finally:
            # To the whole group, as a terminal does.
            os.killpg(process.pid, number)
        errors = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 128 + number
    assert errors.count("\n") == 1, errors
    assert "nothing has been written" in errors
    for pid in workers:
        wait_gone(pid)
    assert not list(tmp_path.iterdir())


def test_both_lengths_at_once_are_refused():
    assert vla_train("fit", "--data", "x", "--minutes", "1", "--steps", "1").returncode == 2
