"""The arrows between the rooms, and what each room must never do, read from the syntax trees.

The tables are the specification (ARCHITECTURE.md explains them); the tests walk them.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .house import ROOMS, ROOT, calls, closure, imports, modules, ours, tree, within

PURE = (
    "body",
    "body_checks",
    "body_model",
    "chain",
    "config",
    "core",
    "deadlines",
    "executor",
    "gate",
    "gate_table",
    "requests",
    "settle",
    "smoother",
    "spline",
    "state",
    "strategies",
    "tools",
    "watch",
)
"""Modules of runtime/control that have neither clock nor I/O; nor has what they use of it."""
SHARED_WITH_EXPORT = (
    "runtime.arguments",
    "runtime.bundle",
    "runtime.policy.errors",
    "runtime.policy.inputs",
    "runtime.policy.preprocess",
    "runtime.policy.programs",
    "runtime.policy.words",
)
"""What export and the run path must do in the same way: schema, resize, tokenizers, programs."""

ARROWS: dict[str, tuple[str, ...]] = {
    "drivers": ("drivers",),
    "runtime": ("runtime", "drivers"),
    "runtime.bundle": ("runtime.bundle", "drivers"),
    "runtime.backends": ("runtime.backends", "runtime.bundle"),
    # Control never reaches into the policy's half, nor the policy into control's.
    "runtime.control": ("runtime", "drivers"),
    "calibration": ("calibration", "drivers", "runtime.bundle"),
    "export": ("export", *SHARED_WITH_EXPORT),
    # Training goes through the runtime's real chain and the simulated world.
    "export.training": (
        "export",
        *SHARED_WITH_EXPORT,
        *(f"runtime.control.{name}" for name in PURE),
        "drivers.calibration",
        "drivers.robots",
        "drivers.simulated",
        "drivers.units",
    ),
    "benchmarks": ROOMS,
}
"""Room -> what it may import of ours. The longest matching name of a room counts."""

NEVER: dict[str, tuple[str, ...]] = {
    "runtime": ("torch", "drivers.simulated", "pickle", "marshal", "shelve", "multiprocessing"),
    "runtime.control": (
        "onnxruntime",
        "cv2",
        "tensorrt",
        "tokenizers",
        "runtime.policy",
        "runtime.backends",
        "drivers.cameras",
    ),
    "runtime.policy": (
        "runtime.control",
        "drivers.arm",
        "drivers.transport",
        "drivers.feetech",
        "drivers.physics",
    ),
    "drivers": ("torch", "onnxruntime", "tensorrt", "pickle", "marshal", "shelve"),
}
"""Room -> what it must not import, directly or through others of ours, not even inside a function."""

MUJOCO_IS_FOR = ("drivers.physics", "drivers.simulated", "export.training", "benchmarks")
"""Rooms that may import MuJoCo, by whatever means."""
PHYSICS_IS_FOR = ("runtime.control.body", *MUJOCO_IS_FOR)
"""Rooms that may ask `drivers.physics` for it: of the run path, the shape of the arm alone."""

IMPURE_IMPORTS = (
    "asyncio", "datetime", "fcntl", "io", "logging", "mmap", "os", "pathlib", "random", "select", "serial",
    "signal", "socket", "subprocess", "sys", "tempfile", "threading", "time", "urllib",
)  # fmt: skip

MAY_SLEEP = {
    "drivers.transport": "one nap of known length while a reply is on the wire",
}
"""Drivers that may sleep, and why. The simulated ones stand for hardware and are exempt."""


def room_of(module: str, rooms: tuple[str, ...]) -> str | None:
    matching = [room for room in rooms if within(module, room)]
    return max(matching, key=len, default=None)


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_follow_the_arrows(module: str) -> None:
    room = room_of(module, tuple(ARROWS))
    assert room is not None, f"{module} is in no room"
    allowed = ARROWS[room]
    strays = {name for name in ours(imports(module)) if not any(within(name, target) for target in allowed)}
    assert not strays, f"{module} (room {room}) imports {sorted(strays)}; allowed are {allowed}"


@pytest.mark.parametrize("room", sorted(NEVER))
def test_a_room_never_reaches_what_it_must_not(room: str) -> None:
    for module in modules():
        if not within(module, room) or within(module, "drivers.simulated"):
            continue
        for name, way in closure(module).items():
            banned = [bad for bad in NEVER[room] if within(name, bad)]
            assert not banned, f"{' -> '.join(way)}: {room} must not reach {banned[0]}"


def test_mujoco_is_imported_by_few() -> None:
    for module in modules():
        by_name = [
            text for text, call in calls(module) if text.endswith("import_module") and _names_mujoco(call)
        ]
        if by_name or any(within(name, "mujoco") for name in imports(module)):
            assert any(within(module, room) for room in MUJOCO_IS_FOR), module
        if any(within(name, "drivers.physics") for name in imports(module)):
            assert any(within(module, room) for room in PHYSICS_IS_FOR), module


def _names_mujoco(call: ast.Call) -> bool:
    return any("mujoco" in ast.unparse(argument) for argument in call.args)


def test_the_run_path_does_not_import_the_simulator() -> None:
    for module in modules():
        if within(module, "runtime") or (
            within(module, "drivers") and not within(module, "drivers.simulated")
        ):
            simulated = [name for name in closure(module) if within(name, "drivers.simulated")]
            assert not simulated, f"{module} reaches {simulated}"


def test_mujoco_is_there_to_compute_and_looks_for_no_display() -> None:
    """Loaded as control does it: no window system, no OpenGL, nothing printed."""
    script = "import sys, holdfast.drivers.physics as p; p.load_mujoco(); print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=100, check=True
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "mujoco" in loaded
    assert not loaded & {"glfw", "OpenGL", "torch", "onnxruntime", "cv2"}
    assert not done.stderr


@pytest.mark.parametrize("process", ["runtime.control.process"])
def test_the_control_process_loads_no_inference_library(process: str) -> None:
    """The same as the arrows say, seen on the real process: what is loaded after the import."""
    script = f"import sys, holdfast.{process}; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=True
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "onnxruntime", "tensorrt", "cv2", "mujoco"}


def test_the_pure_core_has_no_clock_and_no_io() -> None:
    named = {f"runtime.control.{name}" for name in PURE}
    assert named <= set(modules()), f"there is no {sorted(named - set(modules()))}"
    reached = {name for module in named for name in closure(module) if name in modules()}
    for module in sorted(name for name in reached if within(name, "runtime.control")):
        impure = {used for used in imports(module) if used.split(".")[0] in IMPURE_IMPORTS}
        assert not impure, f"{module} imports {sorted(impure)}"
        called = {text for text, _ in calls(module)} & {"open", "print", "input", "exec", "eval"}
        assert not called, f"{module} calls {sorted(called)}"


def test_drivers_do_not_sleep() -> None:
    for module in modules():
        if not within(module, "drivers") or within(module, "drivers.simulated") or module in MAY_SLEEP:
            continue
        assert "time.sleep" not in {text for text, _ in calls(module)}, (
            f"{module}: wait with a deadline instead"
        )


def test_no_wall_clock_in_the_run_path() -> None:
    """Stamps and ages are CLOCK_MONOTONIC: a clock that is set while the arm moves must change nothing."""
    for module in modules():
        if within(module, "runtime.control") or within(module, "runtime.policy") or within(module, "drivers"):
            used = {text for text, _ in calls(module)} & {"time.time", "time.time_ns", "datetime.now"}
            assert not used, f"{module} calls {sorted(used)}"


def test_nothing_executes_data() -> None:
    """No pickle is read, no text is run, and a checkpoint is loaded as weights only."""
    banned = {"pickle.load", "pickle.loads", "pickle.Unpickler", "eval", "exec", "__import__", "yaml.load"}
    for module in modules():
        for text, call in calls(module):
            assert text not in banned, f"{module} calls {text}"
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            if text == "torch.load":
                assert keywords.get("weights_only") == "True", (
                    f"{module}: torch.load without weights_only=True"
                )
            assert keywords.get("allow_pickle", "False") == "False", f"{module}: {text} with allow_pickle"
            assert keywords.get("shell", "False") == "False", f"{module}: {text} through a shell"


def test_there_are_no_globals() -> None:
    for module in modules():
        named = [node for node in ast.walk(tree(module)) if isinstance(node, ast.Global)]
        assert not named, f"{module} has a `global` statement"


def test_package_files_are_empty() -> None:
    """So that importing one module of a room loads nothing else of it."""
    for module, path in modules().items():
        if path.name == "__init__.py":
            beyond = [node for node in tree(module).body if not _is_docstring(node)]
            assert not beyond, f"{path.relative_to(ROOT)} holds more than a docstring"


def test_every_package_is_installed() -> None:
    """pyproject's list matches the folders, so that an installed Holdfast is the whole house."""
    settings = setuptools_table()
    folders = {
        ".".join(("holdfast", *path.parent.relative_to(ROOT).parts))
        for path in modules().values()
        if path.name == "__init__.py"
    }
    assert sorted(settings["packages"]) == sorted(folders)
    assert settings["package-dir"] == {f"holdfast.{room}": room for room in ROOMS}
    for path in modules().values():
        assert (path.parent / "__init__.py").exists(), f"{path.parent.relative_to(ROOT)} is no package"


def setuptools_table() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def test_every_data_file_is_installed() -> None:
    """Robot files, calibrations and the shipped checkpoint are package data."""
    data = setuptools_table()["package-data"]
    installed: set[Path] = set()
    for package, patterns in data.items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        installed |= {path for pattern in patterns for path in folder.glob(pattern)}
    for room in ROOMS:
        for suffix in ("*.yaml", "*.json", "*.xml", "*.pt", "*.npz"):
            for path in (ROOT / room).rglob(suffix):
                assert path in installed, f"{path.relative_to(ROOT)} is not in pyproject's package-data"
