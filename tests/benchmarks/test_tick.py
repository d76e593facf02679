"""The tick benchmark runs the real loop to the end of its ticks; no test asserts its figures."""

from __future__ import annotations

import json

import pytest

from holdfast.benchmarks import cli, tick_parts


def test_every_way_of_running_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tick", "--ticks", "100", "--control-hz", "500", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    ways = [(row["paced"], row["recorder"], row["ticks"]) for row in document["results"]]
    each = [(False, False, 100), (False, True, 100), (True, False, 100), (True, True, 100)]
    assert ways == [*each, (False, True, 100)]
    parts = [row["parts_p50_us"] for row in document["results"]]
    assert parts[:-1] == [{}] * 4
    assert list(parts[-1]) == [*tick_parts.PARTS, tick_parts.REST]
    assert all(p50_us > 0 for p50_us in parts[-1].values())
    for row in document["results"]:
        assert row["reference_p50_us"] > 0
        assert 0 < row["p50_us"] <= row["p99_us"] <= row["max_us"]


def test_a_part_within_another_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 0
    monkeypatch.setattr(tick_parts.time, "perf_counter_ns", lambda: now_ns)

    class Loop:
        def command(self) -> None:
            passes(3)
            self.tap()
            passes(4)

        def tap(self) -> None:
            passes(5)

    def passes(ns: int) -> None:
        nonlocal now_ns
        now_ns += ns

    loop, times = Loop(), tick_parts.PartTimes()
    times.around(loop, "command", "command")
    times.around(loop, "tap", "recorder")
    times.begin()
    passes(1)
    loop.command()
    passes(2)
    times.end()
    assert times.ticks == [{"decide": 0, "command": 7, "telemetry": 0, "recorder": 5, tick_parts.REST: 3}]
