"""Numbers on command lines: what is taken, and that a refusal says what is expected."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

import pytest

from holdfast.runtime.arguments import number, own_core, seed_number, whole_number
from holdfast.runtime.cli import make_parser


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (whole_number(1, 64), "64", 64),
        (whole_number(0), "0", 0),
        (number(0), "0", 0.0),
        (number(0, 1, low_excluded=True), "1e-9", 1e-9),
        (seed_number, "4294967295", 2**32 - 1),
        (own_core, str(max(os.sched_getaffinity(0))), max(os.sched_getaffinity(0))),
    ],
)
def test_numbers_within_their_bounds(kind: Callable[[str], float], text: str, value: float) -> None:
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (whole_number(1, 64), "65", "a whole number from 1 to 64"),
        (whole_number(1), "1.5", "a whole number from 1 on"),
        (number(10, 1000, unit="Hz"), "nan", "a number from 10 up to 1000, in Hz"),
        (number(0, low_excluded=True), "0", "a number above 0"),
        (number(0, low_excluded=True), "inf", "a number above 0"),
        (number(0, unit="s"), "-1", "a number from 0 on, in s"),
        (seed_number, "-1", "a whole number from 0 to 4294967295"),
        (own_core, "-1", "one of this process's cores"),
        (own_core, "none", "one of this process's cores"),
    ],
)
def test_others_are_refused_with_what_is_expected(
    kind: Callable[[str], float], text: str, expected: str
) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        kind(text)
    assert str(caught.value).startswith(f"{text!r} is not {expected}")


@pytest.mark.parametrize("option", ["--duration", "--pause", "--control-hz", "--cpu", "--threads"])
def test_vla_run_names_the_option_and_not_a_function(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args([option, "words"])
    said = capsys.readouterr().err
    assert f"argument {option}: 'words' is not" in said
    assert "invalid" not in said
