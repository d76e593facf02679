"""vla-bench strategies: cells, tables, the plot, and what a person may ask for."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("mujoco")
pytest.importorskip("torch")

from holdfast.benchmarks import strategies
from holdfast.benchmarks.intervals import difference
from holdfast.benchmarks.strategies import FIRST_SEED, NAMES, Cell, Jump, Result, evaluate, tables
from holdfast.export.models.demo.checkpoint import MODEL

pytestmark = [pytest.mark.sim, pytest.mark.export]

SEEDS = range(FIRST_SEED, FIRST_SEED + 2)


def result(strategy: str, **changes: object) -> Result:
    jumps: dict[str, Jump] = {kind: Jump(0.01, 0.02) for kind in strategies.KINDS}
    made = Result(
        "carousel", 200, strategy, 100, 60, 0.5, 0.69, 3, 2.0, 200.0, 5.0, 400.0, jumps, jumps, 290.0, 0.0,
        1.0, 0,
    )  # fmt: skip
    return replace(made, **changes)


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    strategies.add_arguments(parser)
    return parser.parse_args(words)


def test_a_cell_depends_on_its_seeds_only():
    cell = Cell("carousel", 100, "newest")
    assert evaluate(MODEL, cell, SEEDS) == evaluate(MODEL, cell, SEEDS)


@pytest.mark.parametrize("strategy", NAMES)
def test_every_strategy_picks_up_a_still_cube_under_latency(strategy: str):
    found = evaluate(MODEL, Cell("static", 100, strategy), SEEDS)
    assert found.successes >= 1
    assert found.stops == 0
    assert 0 < found.jerk_rad_s3 <= found.max_jerk_rad_s3 <= 400 * 1.001, "the limit of sim_arm.yaml"
    assert found.age_ms >= found.delay_ms == 100


def test_a_policy_that_waits_for_its_inference_has_nothing_to_follow_meanwhile():
    assert evaluate(MODEL, Cell("static", 200, "sequential"), SEEDS).waiting > 0.2
    assert evaluate(MODEL, Cell("static", 200, "newest"), SEEDS).waiting == 0


def test_a_chunk_entered_late_does_not_jump_back_in_time():
    """What the naive baseline does: every chunk from its first action on, which was meant for the past."""
    newest, naive = (evaluate(MODEL, Cell("carousel", 200, name), SEEDS) for name in ("newest", "naive"))
    assert naive.target_jumps["position"].mean > 1.3 * newest.target_jumps["position"].mean


def test_the_tables_compare_with_newest():
    text = tables([result("newest"), result("fusion", successes=55, jerk_rad_s3=150.0, seconds=math.nan)])
    row = next(line for line in text.splitlines() if "fusion" in line)
    assert "-5 (-18 to +9)" in row
    assert "| 0.75 |" in row
    assert "nan" not in text
    assert "### static" not in text, "nothing was measured there"


def test_newcombe_intervals():
    """The worked example of Newcombe's paper: 56/70 - 48/80."""
    assert difference((56, 70), (48, 80)) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_the_verb_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "plot.png"
    words = ["-n", "1", "--scene", "carousel", "--delay", "0", "--delay", "2", "--strategy", "newest"]
    assert strategies.main(arguments(str(MODEL), *words, "--plot", str(plot), "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(cell["delay_ms"], cell["strategy"]) for cell in document["cells"]] == [
        (0, "newest"),
        (100, "newest"),
    ]
    assert document["environment"]["cpus"] >= 1
    assert plot.read_bytes()[:4] == b"\x89PNG"


def test_what_cannot_be_used_is_refused_before_the_measurement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert strategies.main(arguments(str(tmp_path / "nope"))) == 2
    assert "does not exist" in capsys.readouterr().err
    pytest.importorskip("matplotlib")
    assert strategies.main(arguments(str(MODEL), "--plot", str(tmp_path / "nope" / "x.png"))) == 2
    assert "is no folder" in capsys.readouterr().err
