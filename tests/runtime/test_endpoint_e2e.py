"""A run on the simulated robot that is asked over its endpoint, by programs and by `vla-run --ask`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.drivers.simulated.launch import Simulator, start_simulator

from .rig import VlaRun, arm_options, assert_still, wait_gone
from .tiny_bundle import write_tiny_bundle

pytest.importorskip("onnx")
pytestmark = [pytest.mark.e2e, pytest.mark.sim]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.vla")


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    with start_simulator(tmp_path / "sim") as made:
        yield made


def ask(run: VlaRun, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    """As a person does in another terminal."""
    return subprocess.run(
        [sys.executable, "-m", "holdfast.runtime.cli", "--ask", command, *options],
        env={**os.environ, "XDG_STATE_HOME": str(run.state), "XDG_RUNTIME_DIR": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def asked(run: VlaRun, command: str) -> dict[str, Any]:
    """The answer's document."""
    done = ask(run, command, "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == (0 if answer["ok"] else 1), done.stderr
    return answer


def test_stop_reset_and_next_without_a_terminal(
    tmp_path: Path, bundle: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    options = [str(bundle), *arm_options(simulator), "--on-stop", "wait"]
    with VlaRun(tmp_path / "run", *options) as run:
        run.event("running")
        assert asked(run, "reset")["error"] == "nothing is stopped"
        stopped = asked(run, "stop")
        assert (stopped["ok"], stopped["stop"]["code"]) == (True, "requested")
        assert stopped["stop"]["text"].startswith("asked for by process ")
        run.event("stopped")
        assert "reset it first" in asked(run, "next")["error"]
        assert asked(run, "stop")["text"].startswith("the arm is stopped already")
        assert_still(simulator)

        reset = asked(run, "reset")
        assert (reset["ok"], reset["stage"], reset["stop"], reset["ready"]) == (True, "held", None, True)
        assert_still(simulator)
        assert asked(run, "status")["stage"] == "held"
        assert asked(run, "next")["ok"]
        run.wait_for(lambda: run.count("running") == 2)
        shown = ask(run, "status")
        assert shown.stdout.splitlines()[0] == "stage    running (control: run)"
        assert "stop     none" in shown.stdout
        assert asked(run, "quit")["ok"]
        assert run.finish() == 0, run.output
    done = [e["text"].partition(",")[0] for e in run.events() if e["code"] == "asked"]
    # A stop is sent on even to an arm that is stopped: a reset may be on its way.
    assert done == ["stop", "stop", "reset", "next", "quit"]
    assert ask(run, "status").returncode == 3


def test_a_second_run_of_the_same_arm_is_refused_and_takes_nothing_away(
    tmp_path: Path, bundle: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    # Named, so that the bus is not probed: that would be refused already.
    options = [str(bundle), *arm_options(simulator), "--robot", "sim_arm"]
    with VlaRun(tmp_path / "first", *options) as first:
        first.event("running")
        with VlaRun(tmp_path / "second", *options, state=first.state) as second:
            assert second.finish() == 3, second.output
        assert "belongs to a run that is going on" in second.event("endpoint")["text"]
        path = first.event("endpoint")["text"]
        with VlaRun(tmp_path / "third", *options, "--endpoint", path) as third:
            assert third.finish() == 3, third.output
        assert third.report()["reason"].startswith(f"{path} belongs to a run that is going on")
        assert asked(first, "status")["pid"] == first.process.pid
        assert first.count("stop") == 0
        assert asked(first, "quit")["ok"]
        assert first.finish() == 0, first.output


def test_a_run_with_an_endpoint_of_its_own_waits_after_a_stop(
    tmp_path: Path, bundle: Path, simulator: Simulator
):
    """Somebody can reset it, although there is no terminal. Its folder is killed with it, and found again."""
    path = tmp_path / "sockets" / "arm.sock"
    options = [str(bundle), *arm_options(simulator), "--endpoint", str(path)]
    with VlaRun(tmp_path / "first", *options) as run:
        run.event("running")
        assert ask(run, "stop", "--endpoint", str(path)).returncode == 0
        run.event("stopped")
        assert json.loads(ask(run, "status", "--endpoint", str(path), "--json").stdout)["stage"] == "stopped"
        run.process.kill()
        run.process.wait()
        wait_gone(run.pid_of("control"))
    assert path.exists(), "nobody was left to remove it"
    assert ask(run, "status", "--endpoint", str(path)).returncode == 3
    with VlaRun(tmp_path / "again", *options, "--reset", state=run.state) as again:
        again.event("armed")
        assert ask(again, "status", "--endpoint", str(path)).returncode == 0


def test_clients_that_behave_badly_do_not_disturb_a_run(tmp_path: Path, bundle: Path, simulator: Simulator):
    """They give way to the others on the processor: what a busy computer does to a run is not meant here."""
    path = tmp_path / "arm.sock"
    options = [str(bundle), *arm_options(simulator), "--endpoint", str(path)]
    flood = str(Path(__file__).with_name("flood.py"))
    with VlaRun(tmp_path / "run", *options) as run:
        run.event("running")
        bad = [
            subprocess.Popen(["nice", "-n", "19", sys.executable, flood, str(path), kind, "4"])
            for kind in ("status", "garbage", "connections", "commands")
        ]
        for process in bad:
            process.wait(60)
        assert run.count("stop") == 0, run.last_events()
        assert run.count("late") == 0
        answer = json.loads(ask(run, "status", "--endpoint", str(path), "--json").stdout)
        assert (answer["ok"], answer["stage"]) == (True, "running")
        assert ask(run, "quit", "--endpoint", str(path)).returncode == 0
        assert run.finish() == 0, run.output
    assert run.count("asked") == 1
