"""The real-time set-up, tried in processes of its own: it cannot be undone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.runtime.control import realtime

STEPS = (
    "garbage collection off",
    "memory locked",
    "memory touched",
    "own core",
    "SCHED_FIFO",
    "real-time share",
    "CPU idle latency",
    "performance governor",
    "kernel (information)",
    "isolation (information)",
    "interrupts (information)",
)
WORK = """
import json, resource
from holdfast.runtime.control import realtime

if {prepared}:
    kept = realtime.set_up(None, only=("garbage collection off", "memory locked", "memory touched"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def deep(levels):
    return [float(levels)] + (deep(levels - 1) if levels else [])
for _ in range(20):
    rows = [tuple(float(i + j) for j in range(6)) for i in range(8000)]
    large = bytearray(2_000_000)
    deep(40)
    del rows, large
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_every_step_is_reported_in_its_order():
    steps = json.loads(run("-m", "holdfast.runtime.real_time_probe"))
    assert tuple(step["name"] for step in steps) == STEPS
    assert all(step["detail"] for step in steps)
    for step in steps:
        assert step["ok"] or not step["name"].endswith("(information)"), "information never refuses"


def test_work_after_the_set_up_waits_for_no_page():
    faults = {prepared: int(run("-c", WORK.format(prepared=prepared))) for prepared in (True, False)}
    assert faults[False] > 500, "the work takes memory"
    assert faults[True] <= 20


def kernel(folder: Path, runtime: int) -> None:
    (folder / "sched_rt_runtime_us").write_text(f"{runtime}\n")
    (folder / "sched_rt_period_us").write_text("1000000\n")


@pytest.mark.parametrize(
    ("runtime", "ok", "text"),
    [
        (950_000, True, "950 of every 1000 ms"),
        (-1, True, "not limited"),
        (500_000, False, "500 of every 1000 ms; set kernel.sched_rt_runtime_us to 950000"),
        (0, False, "0 of every 1000 ms"),
    ],
)
def test_a_kernel_that_keeps_real_time_tasks_short_fails_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: int, ok: bool, text: str
):
    kernel(tmp_path, runtime)
    monkeypatch.setattr(realtime, "KERNEL", tmp_path)
    (step,) = realtime.set_up(None, only=("real-time share",)).steps
    assert step.ok == ok
    assert text in step.detail


@pytest.mark.parametrize(
    ("text", "cores"),
    [("", set()), ("\n", set()), ("3\n", {3}), ("0-2,5\n", {0, 1, 2, 5}), ("(null)\n", set())],
)
def test_lists_of_cores_are_read_as_the_kernel_writes_them(text: str, cores: set[int]):
    assert realtime._cores(text) == cores
