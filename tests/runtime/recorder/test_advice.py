"""Every stop has its advice, and the same words stand in the documentation."""

from __future__ import annotations

from pathlib import Path

from holdfast.runtime.control.deadlines import REACTIONS
from holdfast.runtime.recorder.advice import ADVICE, look_at

TROUBLESHOOTING = Path(__file__).parents[3] / "docs" / "troubleshooting.md"


def test_every_condition_that_can_stop_the_arm_has_advice() -> None:
    can_stop = {code for code, row in REACTIONS.items() if "stop" in (row.kind, *row.choices)}
    assert {code for row in ADVICE for code in row.codes} == can_stop


def test_no_condition_has_two_pieces_of_advice() -> None:
    codes = [code for row in ADVICE for code in row.codes]
    assert len(codes) == len(set(codes))
    assert look_at("camera_lost").startswith("the camera's cable")
    assert look_at("of a later version") == ""


def test_the_documentation_says_the_same() -> None:
    lines = TROUBLESHOOTING.read_text().splitlines()
    for row in ADVICE:
        codes = ", ".join(f"`{code}`" for code in row.codes)
        assert f"| {codes} | {row.look_at} |" in lines
