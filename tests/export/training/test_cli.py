"""vla-train's command line."""

from __future__ import annotations

import subprocess
import sys

import pytest


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


def test_both_lengths_at_once_are_refused():
    assert vla_train("fit", "--data", "x", "--minutes", "1", "--steps", "1").returncode == 2
