"""Every command explains itself, without loading what it would need to run."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMANDS = {
    "vla-export": "holdfast.export.cli",
    "vla-run": "holdfast.runtime.cli",
    "vla-sim": "holdfast.drivers.simulated.cli",
    "vla-bench": "holdfast.benchmarks.cli",
    "vla-train": "holdfast.export.training.cli",
}
HEAVY = ("torch", "onnxruntime", "cv2", "mujoco", "numpy", "pydantic")
"""Libraries that take longer to import than a person waits for `--help`."""


@pytest.mark.parametrize(("command", "module"), COMMANDS.items(), ids=COMMANDS)
def test_help_names_the_command_and_exits_0(command: str, module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert command in done.stdout


@pytest.mark.parametrize("module", COMMANDS.values(), ids=COMMANDS)
def test_a_command_imports_nothing_heavy_before_it_runs(module: str) -> None:
    script = f"import sys, {module}; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & set(HEAVY)
