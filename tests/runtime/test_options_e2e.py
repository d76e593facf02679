"""Options of vla-run whose effect shows on the simulated robot."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.drivers.feetech.bus import FeetechBus, allow_all, write_eeprom
from holdfast.drivers.simulated.launch import Simulator, start_simulator
from holdfast.drivers.transport import open_port

from .rig import MOTOR_IDS, VlaRun, arm_options, no_real_time_priority, torque
from .tiny_bundle import write_tiny_bundle

pytest.importorskip("onnx")
pytestmark = [pytest.mark.e2e, pytest.mark.sim]


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with start_simulator(tmp_path_factory.mktemp("sim")) as made:
        yield made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.vla")


@contextmanager
def bus_of(simulator: Simulator) -> Iterator[FeetechBus]:
    """The bus, as any other program would use it."""
    port = open_port(simulator.arm_url, 1_000_000, time.monotonic_ns)
    try:
        yield FeetechBus(port, MOTOR_IDS, allow_all, 50.0)
    finally:
        port.close()


def test_a_pause_before_each_task(tmp_path: Path, bundle: Path, simulator: Simulator):
    options = [
        "--pause",
        "1.5",
        "--duration",
        "0.5",
        "--task",
        "touch the cube",
        "--task",
        "touch the red cube",
    ]
    with VlaRun(tmp_path, str(bundle), *arm_options(simulator), *options) as run:
        assert run.finish() == 0, run.output
    tasks = run.report()["tasks"]
    assert len(tasks) == 2
    for task in tasks:
        assert (task["start_ns"] - task["ready_ns"]) / 1e9 >= 1.5
    codes = [event["code"] for event in run.events() if event["code"].startswith("task_")]
    assert codes == ["task_ready", "task_start", "task_end"] * 2


def test_other_gains_are_refused_and_write_gains_writes_them(
    tmp_path: Path, bundle: Path, simulator: Simulator
):
    options = [str(bundle), *arm_options(simulator), "--duration", "0.5"]
    with bus_of(simulator) as bus:
        write_eeprom(bus, 2, {"p_gain": 32})
    try:
        with VlaRun(tmp_path / "refused", *options) as run:
            assert run.finish() == 3, run.output
        assert "shoulder_lift: gain p: expected 16, found 32" in run.output
        assert "--write-gains" in run.output
        with VlaRun(tmp_path / "check", *options, "--check", "--write-gains") as run:
            assert run.finish() == 0, run.output
        with bus_of(simulator) as bus:
            assert bus.read_register(2, "p_gain") == 32, "--check writes nothing"
        with VlaRun(tmp_path / "written", *options, "--write-gains") as run:
            assert run.finish() == 0, run.output
        with bus_of(simulator) as bus:
            assert [bus.read_register(2, name) for name in ("p_gain", "lock")] == [16, 1]
    finally:
        with bus_of(simulator) as bus:
            write_eeprom(bus, 2, {"p_gain": 16})


def test_without_permission_for_real_time_strict_refuses(tmp_path: Path, bundle: Path, simulator: Simulator):
    """Control and the check come to the same; a warning is only said. (No run with `warn`: without priority
    a busy machine may well stop it.)"""
    options = [str(bundle), *arm_options(simulator)]
    for rt, code in (("strict", 3), ("warn", 0)):
        look = [*options, "--rt", rt, "--check", "--json"]
        with VlaRun(tmp_path / rt, *look, prepare=no_real_time_priority) as run:
            assert run.finish() == code, run.output
        row = next(row for row in json.loads(run.output)["rows"] if row["what"] == "real time")
        assert "SCHED_FIFO: not permitted" in row["actual"]
        assert row["ok"] == (rt == "warn")
    with VlaRun(tmp_path / "run", *options, "--rt", "strict", prepare=no_real_time_priority) as run:
        assert run.finish() == 3, run.output
    assert "SCHED_FIFO (not permitted" in run.report()["reason"]
    assert run.count("armed") == 0
    assert torque(simulator) == [0] * len(MOTOR_IDS)


def test_a_stop_input_or_watchdog_that_is_not_there_refuses_the_start(
    tmp_path: Path, bundle: Path, simulator: Simulator
):
    watchdog = ["--watchdog", "/dev/no-watchdog"]
    for number, wanted in enumerate((["--stop-input", "evdev:/dev/no-button"], watchdog)):
        folder = tmp_path / str(number)
        with VlaRun(folder, str(bundle), *arm_options(simulator), *wanted) as run:
            assert run.finish() == 3, run.output
        assert wanted[1].rpartition(":")[2] in run.output
        assert "armed" not in [event["code"] for event in run.events()]
    look = ["--check", "--json", *watchdog]
    with VlaRun(tmp_path / "check", str(bundle), *arm_options(simulator), *look) as run:
        assert run.finish() == 3, run.output
    assert watchdog[1] in run.output
    assert torque(simulator) == [0] * len(MOTOR_IDS)


def test_a_limit_of_the_tools_speed_slows_the_arm_and_is_shown(
    tmp_path: Path, bundle: Path, simulator: Simulator
):
    """Here it shows in what is armed; that the tip keeps to it, the core's own tests show."""
    options = [str(bundle), *arm_options(simulator), "--duration", "0.5"]
    speeds: list[float] = []
    for number, limit in enumerate(([], ["--max-tool-speed", "0.1"])):
        with VlaRun(tmp_path / str(number), *options, *limit) as run:
            assert run.finish() == 0, run.output
        guards = run.report()["guards"]
        (row,) = [row for row in guards if row.startswith("tool speed: ") and "checked on" not in row]
        assert row == ("tool speed: at most 100 mm/s" if limit else "tool speed: no limit of its own")
        (pan,) = [row for row in guards if row.startswith("shoulder_pan: ")]
        speeds.append(float(pan.split(", ")[1].removesuffix("/s")))
        assert run.report()["options"]["tool_speed_m_s"] == (0.1 if limit else None)
    assert speeds[1] < 0.5 * speeds[0]
    look = ["--check", "--json", "--max-tool-speed", "0.1", "--endpoint", str(tmp_path / "arm.sock")]
    with VlaRun(tmp_path / "check", *options, *look) as run:
        assert run.finish() == 0, run.output
    rows = {row["what"]: row["actual"] for row in json.loads(run.output)["rows"]}
    assert rows["tool speed"].startswith("at most 0.1 m/s: joints at ")
    assert rows["endpoint"] == f"{tmp_path / 'arm.sock'}; after a protective stop: wait"
