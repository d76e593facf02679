"""The mutation tester itself: what it changes, that nothing else changes, and that its list is in order."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ..house import ROOT
from . import runner
from .__main__ import every_mutant, explained
from .operators import mutants
from .targets import TARGETS

SOURCE = '''
"""A module."""
LIMIT = 0.5
NAMES = {"load": "stop"}
Kind = Literal["a", "b"]


def judge(value: float, wide: bool = False) -> str | None:
    """A docstring."""
    assert value is not None
    if value > LIMIT and not wide:
        return f"{value / 2} is too much"
    total = abs(value) + 1
    return max("a", "b c") if total else None
'''


def changed() -> dict[str, str]:
    """Name of the mistake -> the module with it."""
    tree = ast.parse(SOURCE)
    return {m.key: ast.unparse(m.applied(tree)) for m in mutants("a.py", SOURCE)}


def test_each_kind_of_mistake_is_made_once_per_place() -> None:
    assert sorted(changed()) == sorted(
        [
            "LIMIT: without LIMIT = 0.5",
            "LIMIT: 0.5 -> 1.0",
            "NAMES: without NAMES = {'load': 'stop'}",
            "NAMES: 'load' -> 'not_load'",
            "NAMES: 'stop' -> 'not_stop'",
            "judge(): False -> True",
            "judge(): if value > LIMIT and (not wide): return f'{value / 2} is too much' -> "
            "if not (value > LIMIT and (not wide)): return f'{value / 2} is too much'",
            "judge(): value > LIMIT and (not wide) -> value > LIMIT or not wide",
            "judge(): value > LIMIT and (not wide) -> not wide",
            "judge(): value > LIMIT and (not wide) -> value > LIMIT",
            "judge(): value > LIMIT -> value >= LIMIT",
            "judge(): value > LIMIT -> value <= LIMIT",
            "judge(): not wide -> wide",
            "judge(): return f'{value / 2} is too much' -> return None",
            "judge(): without total = abs(value) + 1",
            "judge(): abs(value) + 1 -> abs(value) - 1",
            "judge(): abs(value) -> value",
            "judge(): 1 -> 2",
            "judge(): return max('a', 'b c') if total else None -> return None",
            "judge(): max('a', 'b c') if total else None -> max('a', 'b c')",
            "judge(): max('a', 'b c') if total else None -> None",
            "judge(): max('a', 'b c') -> min('a', 'b c')",
            "judge(): 'a' -> 'not_a'",
        ]
    )


def test_a_mistake_changes_one_place_and_the_rest_stays() -> None:
    whole = ast.unparse(ast.parse(SOURCE)).splitlines()
    for key, text in changed().items():
        lines = text.splitlines()
        assert sum(a != b for a, b in zip(whole, lines, strict=True)) == 1, key
        compile(text, "a.py", "exec")


@pytest.mark.parametrize("module", TARGETS)
def test_every_mistake_in_a_module_has_its_own_name_and_its_tests_are_there(module: str) -> None:
    found = mutants(module, (ROOT / module).read_text())
    assert len(found) >= 20
    assert len({mutant.key for mutant in found}) == len(found)
    for test in TARGETS[module]:
        assert (ROOT / test).is_file()


def test_helpers_of_the_tests_are_part_of_what_a_result_rests_on() -> None:
    found = runner.with_helpers(["tests/runtime/control/test_stop_inputs.py"])
    assert found[0] == "tests/runtime/control/test_stop_inputs.py"
    assert "tests/runtime/control/wire_devices.py" in found
    found = runner.with_helpers(["tests/runtime/control/test_core_stops.py"])
    assert {"tests/runtime/control/test_core.py", "tests/runtime/control/world.py"} <= set(found)


@pytest.mark.parametrize("always", [False, True])
def test_what_took_too_long_is_tried_again_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, always: bool
) -> None:
    """Of three, the first is too slow when it runs beside another one, or whenever it runs."""
    (tmp_path / "a.py").write_text("A, B, C = 1, 2, 3\n")
    made = mutants("a.py", "A, B, C = 1, 2, 3\n")[-3:]

    def judge(root: Path, module: str, tree: ast.Module, tests: list[str]) -> int:
        text = ast.unparse(tree)
        seen = tmp_path / "seen"
        if "2, 2, 3" in text and (always or not seen.exists()):
            seen.touch()
            time.sleep(20)
        return 0 if "1, 3, 3" in text else 1

    monkeypatch.setattr(runner, "_judge", judge)
    monkeypatch.setattr(runner, "_baseline", _no_time)
    results = list(runner.run(tmp_path, made, {"a.py": []}, workers=2))
    assert [r.outcome for r in results] == ["survived", "killed", "timeout" if always else "killed"]
    assert results[-1].mutant is made[0]


_no_time: Callable[..., float] = lambda *_: -1.8  # noqa: E731 - leaves a limit of one second


def test_what_is_explained_can_still_be_made_and_has_a_reason() -> None:
    possible = {(mutant.module, mutant.key) for mutant in every_mutant()}
    for name, why in explained().items():
        assert name in possible, name
        assert len(why) > 20
