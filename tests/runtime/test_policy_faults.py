"""What the policy process says of itself is what control takes from it."""

from __future__ import annotations

import ast

from holdfast.runtime.control.deadlines import POLICY_FAULTS, REACTIONS
from tests.house import ROOT


def test_control_takes_every_fault_that_the_policy_process_declares():
    declared = {
        node.args[0].value
        for path in (ROOT / "runtime" / "policy").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id in ("Fault", "FrameFault") and node.args and isinstance(node.args[0], ast.Constant)
    }
    assert {"joint_state_stale", "frame_age"} <= declared
    assert declared <= POLICY_FAULTS <= set(REACTIONS)
