"""The tick benchmark runs the real loop to the end of its ticks; no test asserts its figures."""

from __future__ import annotations

import json

import pytest

from holdfast.benchmarks import cli


def test_every_way_of_running_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tick", "--ticks", "100", "--control-hz", "500", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    ways = [(row["paced"], row["recorder"], row["ticks"]) for row in document["results"]]
    assert ways == [(False, False, 100), (False, True, 100), (True, False, 100), (True, True, 100)]
    for row in document["results"]:
        assert row["core_p50_us"] > 0
        assert 0 < row["p50_us"] <= row["p99_us"] <= row["max_us"]
