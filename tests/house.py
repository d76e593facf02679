"""Reads the house's source as syntax trees: which module imports what, and what it calls."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("benchmarks", "calibration", "drivers", "export", "runtime")


@cache
def modules() -> dict[str, Path]:
    """Every module of the house, by its dotted name without the leading `holdfast.`."""
    found = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(), filename=str(modules()[module]))


def _inside(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, except what stands under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _inside(child)


@cache
def imports(module: str) -> frozenset[str]:
    """What a module imports, also inside functions: ours without `holdfast.`, foreign ones by full name.

    Relative names are resolved; `from . import codec` gives the module `codec`.
    """
    package = module.split(".") if modules()[module].name == "__init__.py" else module.split(".")[:-1]
    found: set[str] = set()
    for node in _inside(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                ours = full.removeprefix("holdfast.")
                found.add(full if ours in modules() else base)
    return frozenset(name.removeprefix("holdfast.") for name in found)


def ours(names: frozenset[str]) -> frozenset[str]:
    return frozenset(name for name in names if name.split(".")[0] in ROOMS)


@cache
def closure(module: str) -> dict[str, tuple[str, ...]]:
    """Every name that a module imports, directly or through ours, with the way that leads to it."""
    ways: dict[str, tuple[str, ...]] = {module: (module,)}
    waiting = [module]
    while waiting:
        current = waiting.pop()
        for name in imports(current):
            if name not in ways:
                ways[name] = (*ways[current], name)
                if name in modules():
                    waiting.append(name)
    return ways


def calls(module: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted text of what is called."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")
