"""The latch file, and the table of reactions as the one list of codes."""

from __future__ import annotations

import re
from pathlib import Path

from holdfast.runtime.control.deadlines import REACTIONS, SlotAccount
from holdfast.runtime.control.latch import LatchFile, identity

from ...house import ROOT

DECLARED_ELSEWHERE = {
    "load",
    "stalled",
    "camera_lost",
    "over_budget",
    "current",
    "gripper_force",
    "black_camera",
}
PENDING = {"workspace", "self_collision", "table_collision", "tool_speed", "stop_input", "stop_input_lost"}
"""Codes that reach their constructor through a variable."""
SECOND = 1_000_000_000


def test_a_latch_lasts_until_it_is_cleared_and_belongs_to_one_arm(tmp_path: Path) -> None:
    latch = LatchFile.of(tmp_path, "serial:/dev/a")
    assert latch.reason() is None
    latch.set("chunk_bad", "nan", "serial:/dev/a")
    assert LatchFile.of(tmp_path, "serial:/dev/a").reason() == "chunk_bad: nan"
    assert LatchFile.of(tmp_path, "serial:/dev/b").reason() is None
    latch.clear()
    latch.clear()
    assert latch.reason() is None


def test_the_name_of_an_arm_does_not_depend_on_how_its_port_is_spelled(tmp_path: Path) -> None:
    node, by_id = tmp_path / "ttyUSB0", tmp_path / "by-id"
    node.touch()
    by_id.mkdir()
    (by_id / "usb-adapter_A1").symlink_to(node)
    names = [f"serial:{node}", f"serial:{tmp_path}/./ttyUSB0", f"serial:{by_id}/usb-adapter_A1"]
    assert {identity(name, by_id) for name in names} == {"by-id:usb-adapter_A1"}
    assert identity("serial:/x/./arm", by_id) == identity("serial:/x/arm", by_id)
    assert identity("serial:/x/arm", by_id) != identity("serial:/x/other", by_id)


def test_an_unreadable_latch_counts_as_latched(tmp_path: Path) -> None:
    latch = LatchFile.of(tmp_path, "serial:/dev/a")
    for content in ("", "{", "[]", "\x00"):
        latch.path.write_text(content)
        assert latch.reason() is not None


def test_every_code_that_the_code_raises_has_a_row() -> None:
    """A misspelt code would still stop (unknown codes do), but nobody could look it up."""
    raised = set()
    for path in [*(ROOT / "runtime" / "control").glob("*.py"), *(ROOT / "runtime" / "policy").glob("*.py")]:
        raised |= set(re.findall(r"(?:Condition|Violation|FrameFault)\(\s*\"(\w+)\"", path.read_text()))
    raised |= {"policy_lost", "supervisor_lost"}  # made of the channel's name
    raised |= {"clamped", "bus_error"}  # only ever counted: notes of these names
    assert raised | DECLARED_ELSEWHERE | PENDING == set(REACTIONS)


def test_the_window_forgets_old_misses() -> None:
    account, now = SlotAccount(), SECOND
    for _ in range(100):
        account, now = account.add(now, 0, 1, 0), now + SECOND // 100
    assert account.window_fraction == 1.0
    for _ in range(1200):
        account, now = account.add(now, 1, 0, 0), now + SECOND // 100
    assert account.window_fraction == 0.0
    assert account.missed == 100
    assert account.in_a_row == 0
