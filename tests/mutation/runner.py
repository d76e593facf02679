"""Runs the tests of a module against each mistake in it.

The source is never touched: a copy of the tree is taken, and a mistake exists only in the memory of one
process, where an import hook puts it in place of the module. That process is forked from one which has loaded
the slow libraries already, so that a mistake costs a second.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.abc
import importlib.util
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from ..house import ROOMS, ROOT
from .operators import Mutant

GIVEN = ("tests", "pyproject.toml", *ROOMS)
"""What is copied. The tests of documents and of the whole are not run here."""
LOADED = (
    "hypothesis",
    "numpy",
    "pytest",
    "_pytest.doctest",
    "ruckig",
    "yaml",
    "holdfast.drivers.arm",
    "holdfast.drivers.calibration",
    "holdfast.drivers.physics",
    "holdfast.drivers.robots.schema",
    "holdfast.drivers.units",
    "holdfast.runtime.budgets",
    "holdfast.runtime.messages",
)
"""Imported once, before forking; none of it imports what is changed."""
MEMORY = 8 << 30
_SURVIVED, _KILLED, _BROKEN = 0, 1, 2


@dataclass(frozen=True)
class Result:
    """What became of a mistake."""

    mutant: Mutant
    outcome: str
    """killed, survived, or timeout (which counts as killed): also when it was tried again, alone."""
    seconds: float


class BaselineFailed(RuntimeError):
    """The tests fail without any mistake: nothing can be said."""


class _Hook(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the changed tree when its module is imported."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name, self._path, self._tree = name, path, tree
        self.used = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        self.used = True
        exec(compile(self._tree, str(self._path), "exec"), module.__dict__)


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of the tree, importable as `holdfast` from this process on."""
    with tempfile.TemporaryDirectory(prefix="holdfast-mutation-") as name:
        root = Path(name)
        for part in GIVEN:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, root / part, ignore=shutil.ignore_patterns("__pycache__", "*.pt"))
            else:
                shutil.copy(source, root / part)
        links = root / ".links" / "holdfast"
        links.mkdir(parents=True)
        for room in ROOMS:
            (links / room).symlink_to(root / room)
        sys.path.insert(0, str(root / ".links"))
        before = os.getcwd()
        os.chdir(root)
        try:
            yield root
        finally:
            os.chdir(before)
            sys.path.remove(str(root / ".links"))


def prepare() -> None:
    """Loads what is slow to load. Hypothesis draws the same examples every time (its profile for CI)."""
    os.environ["CI"] = "true"
    # No plug-in is needed, and finding them takes longer than most tests.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    # In the copy: else every process would compile everything again.
    sys.dont_write_bytecode = False
    for name in [name for name in sys.modules if name.partition(".")[0] == "holdfast"]:
        del sys.modules[name]
    for name in LOADED:
        importlib.import_module(name)
    sys.modules["holdfast.drivers.physics"].load_mujoco()


def run(root: Path, mutants: Iterable[Mutant], tests: dict[str, list[str]], workers: int) -> Iterator[Result]:
    """Results as they come; stops early where the caller does. `tests`: module -> test files.

    Raises `BaselineFailed` where the tests fail without any mistake.
    """
    limits: dict[str, float] = {}
    running: dict[int, tuple[Mutant, float]] = {}
    trees: dict[str, ast.Module] = {}
    slow: list[Mutant] = []

    def begin(mutant: Mutant) -> None:
        module = mutant.module
        tree = mutant.applied(trees[module])
        pid = _fork(lambda: _judge(root, module, tree, tests[module]))
        running[pid] = (mutant, time.monotonic())

    def in_time() -> Iterator[Result]:
        for result in _reap(running, limits):
            if result.outcome == "timeout":
                slow.append(result.mutant)
            else:
                yield result

    try:
        for mutant in mutants:
            module = mutant.module
            if module not in limits:
                trees[module] = ast.parse((root / module).read_text())
                limits[module] = 10.0 + 5.0 * _baseline(root, module, trees[module], tests[module])
            while len(running) >= workers:
                yield from in_time()
            begin(mutant)
        while running:
            yield from in_time()
        # What took too long beside others is tried again alone: the machine may have been busy.
        for mutant in slow:
            begin(mutant)
            while running:
                yield from _reap(running, limits)
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def digest(names: Iterable[str]) -> str:
    """Of the text of these files."""
    summed = hashlib.sha256()
    for name in names:
        summed.update((ROOT / name).read_bytes())
    return summed.hexdigest()[:16]


def with_helpers(tests: Iterable[str], root: Path = ROOT) -> list[str]:
    """These files, and all that they import relatively: the helpers of tests are tests, too."""
    found = list(tests)
    for name in found:
        for node in ast.walk(ast.parse((root / name).read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                folder = Path(name).parents[node.level - 1].joinpath(*filter(None, [node.module]))
                paths = [folder.with_suffix(".py"), *(folder / f"{each.name}.py" for each in node.names)]
                new = [path.as_posix() for path in paths if (root / path).is_file()]
                found += [path for path in new if path not in found]
    return found


def _reap(running: dict[int, tuple[Mutant, float]], limits: dict[str, float]) -> Iterator[Result]:
    """Those that have ended by now; one that takes too long is ended."""
    time.sleep(0.005)
    for pid, (mutant, start) in list(running.items()):
        seconds = time.monotonic() - start
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            outcome = "survived" if code == _SURVIVED else "killed"
            if code == _BROKEN:
                raise RuntimeError(f"{mutant.module}: the mistake was never imported by its tests")
        elif seconds > limits[mutant.module]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            outcome = "timeout"
        else:
            continue
        del running[pid]
        yield Result(mutant, outcome, seconds)


def _baseline(root: Path, module: str, tree: ast.Module, tests: list[str]) -> float:
    """How long the tests take without any mistake."""
    start = time.monotonic()
    pid = _fork(lambda: _judge(root, module, tree, tests, quiet=False))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != _SURVIVED:
        raise BaselineFailed(f"{module}: its tests fail without any mistake: {' '.join(tests)}")
    return time.monotonic() - start


def _fork(work: Callable[[], int]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = _KILLED
    try:
        code = work()
    finally:
        os._exit(code)


def _judge(root: Path, module: str, tree: ast.Module, tests: list[str], quiet: bool = True) -> int:
    """In the forked process: the exit status."""
    import pytest

    name = "holdfast." + module.removesuffix(".py").replace("/", ".")
    output = os.open(os.devnull if quiet else root / "baseline.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    hook = _Hook(name, root / module, tree)
    sys.meta_path.insert(0, hook)
    assert name not in sys.modules
    # One file after the other: most mistakes are noticed by the first. What an assertion says, nobody reads.
    options = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "-W", "ignore", "--rootdir", str(root)]
    for test in tests:
        code = pytest.main([*options, test])
        if code == pytest.ExitCode.NO_TESTS_COLLECTED:
            return _BROKEN
        if code != 0:
            return _KILLED
    return _SURVIVED if hook.used else _BROKEN
