"""The fault campaign itself, small: a trial of each class on the whole system, and proof that it can fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.benchmarks.faults.classes import BY_NAME, CLASSES
from holdfast.benchmarks.faults.journal import read
from holdfast.benchmarks.faults.rig import Rig, left_out
from holdfast.benchmarks.faults.sweep import write_sweep_bundle
from holdfast.benchmarks.faults.system import RunOptions
from holdfast.benchmarks.faults.trial import Bench, Trial
from tests.processes import children, wait_for, wait_gone

pytest.importorskip("onnx")
pytestmark = [pytest.mark.e2e, pytest.mark.real_time, pytest.mark.sim]

BENCH = [sys.executable, "-m", "holdfast.benchmarks.cli", "faults"]
CAMPAIGN_S = 540
TRIES = 4
"""On a machine that stalls a trial may be void."""


@pytest.mark.timeout(CAMPAIGN_S + 30)
def test_a_small_campaign_has_no_escape(tmp_path: Path):
    done = subprocess.run(
        [*BENCH, "--trials", "1", "--workers", "2", "--json", "--allow-missing", "--output", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=CAMPAIGN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    summary = json.loads(done.stdout)
    possible = [row.name for row in CLASSES if not left_out(row.system)]
    assert [row["name"] for row in summary["classes"]] == possible
    assert summary["trials"] == len(possible) >= 25
    assert summary["escapes"] == summary["false_stops"] == summary["failures"] == 0
    assert summary["complete"] == (len(possible) == len(CLASSES))
    for row in summary["classes"]:
        if BY_NAME[row["name"]].outcome in ("stop", "coast", "park"):
            assert row["detect_ms"]["max"] <= row["bound_ms"], row
    for name in ("summary.json", "summary.md", "faults.png", "trials.jsonl"):
        assert (tmp_path / name).stat().st_size > 100


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("faults")
    bundle = write_sweep_bundle(folder / "sweep.vla")
    with Rig(folder / "rig", RunOptions(bundle, "sim_arm")) as rig:
        made = Bench(rig)
        yield made
        made.close()


def counted(bench: Bench, name: str, **sabotage: Any) -> Trial:
    """A trial that is not void; `sabotage`: what is taken away from control before."""
    for number in range(TRIES):
        if sabotage:
            bench.end_run()
            bench.rig.ready("usual").order("control", **sabotage)
        trial = bench.trial(BY_NAME[name], number, 0)
        if not trial.void:
            return trial
    raise AssertionError(f"{TRIES} void trials")


@pytest.mark.parametrize(
    ("code", "name"),
    [("chunk_bad", "chunk_nan"), ("policy_silent", "policy_stopped"), ("frame_age", "camera_stalled")],
)
def test_a_guard_that_is_missing_is_seen(bench: Bench, code: str, name: str):
    """Control is made to overlook one condition: the campaign must call what follows an escape."""
    trial = counted(bench, name, kind="ignore", code=code)
    bench.end_run()
    assert trial.verdict is not None
    assert "no stop" in trial.verdict.escapes


def test_an_arm_that_nobody_keeps_off_the_table_is_seen(bench: Bench):
    """The check of distances is taken away: the simulated arm truly touches what it must not."""
    trial = counted(bench, "chunk_wrong_units", kind="unguard", check="distances and workspace")
    bench.end_run()
    assert trial.verdict is not None
    assert any("touch" in escape for escape in trial.verdict.escapes), trial


def test_the_same_trial_without_the_sabotage_is_none(bench: Bench):
    trial = counted(bench, "chunk_nan")
    assert trial.verdict is not None
    assert trial.verdict.escapes == ()
    assert trial.stop == "chunk_bad"


def test_a_campaign_that_is_killed_leaves_nothing_and_goes_on(tmp_path: Path):
    command = [*BENCH, "--only", "chunk_nan", "--trials", "3", "--workers", "1", "--output", str(tmp_path)]
    journal = tmp_path / "trials.jsonl"
    with (tmp_path / "said.txt").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
        try:
            wait_for(lambda: journal.exists() and len(journal.read_text().splitlines()) >= 2, "a first trial")
            started = children(process.pid)
            assert started
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    for pid in started:
        wait_gone(pid)
    _, before = read(journal)
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert f"({len([row for row in before if not row['void']])} are there)" in done.stderr
    _, rows = read(journal)
    assert rows[: len(before)] == before
    assert sorted(row["number"] for row in rows if not row["void"]) == [0, 1, 2]


@pytest.mark.parametrize("virtual", [True, False])
def test_a_short_soak_is_clean(tmp_path: Path, virtual: bool):
    options = ["--soak", "20" if virtual else "4", *(["--soak-virtual"] if virtual else [])]
    done = subprocess.run(
        [*BENCH, *options, "--json", "--output", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["false_stops"] == 0
    assert document["time"] == ("virtual" if virtual else "real")
    assert json.loads((tmp_path / "soak.json").read_text()) == document
