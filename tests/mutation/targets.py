"""What is mutated, and the unit tests that must notice: fast ones, those that are about it first."""

from __future__ import annotations

CONTROL = "runtime/control"
TESTS = "tests/runtime/control"


def _tests(*names: str) -> list[str]:
    return [f"{TESTS}/test_{name}.py" for name in names]


TARGETS: dict[str, list[str]] = {
    f"{CONTROL}/gate.py": _tests("gate"),
    f"{CONTROL}/chain.py": _tests("chain", "chain_setpoints", "core_stops"),
    f"{CONTROL}/tools.py": _tests("tools", "chain_setpoints"),
    f"{CONTROL}/core.py": _tests(
        "core_exact", "core_leftovers", "core_paths", "core_edges", "core", "core_stops", "stop_categories"
    ),
    f"{CONTROL}/input_spec.py": _tests("input_spec"),
    f"{CONTROL}/gpio.py": _tests("gpio_exact", "input_spec", "gpio"),
    f"{CONTROL}/deadlines.py": _tests("deadlines", "latch_and_table", "reactions"),
    f"{CONTROL}/watch.py": _tests("watch", "core_stops"),
    f"{CONTROL}/settle.py": _tests("settle", "core_stops"),
    f"{CONTROL}/requests.py": _tests("requests", "core_stops"),
    f"{CONTROL}/gate_table.py": _tests("gate_table", "gate"),
    f"{CONTROL}/latch.py": _tests("latch", "latch_and_table"),
    f"{CONTROL}/stop_inputs.py": _tests("stop_inputs", "evdev", "input_spec"),
    f"{CONTROL}/evdev.py": _tests("evdev", "stop_inputs", "input_spec"),
}
