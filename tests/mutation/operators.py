"""The mistakes: what is changed in a module's syntax tree. Pure.

Not changed: what people read (docstrings, f-strings, texts of more than one word), annotations, imports,
decorators, `assert` (here for the type checker), and `strict=` of `zip`.
"""

from __future__ import annotations

import ast
import copy
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_WORD = re.compile(r"\w+")
_SKIPPED = (ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Assert)
_SKIPPED_FIELDS = {"annotation", "returns", "decorator_list", "ctx", "bases"}
_DELETED = (ast.Expr, ast.Assign, ast.AugAssign, ast.Raise, ast.Continue, ast.Break)

Path = tuple[tuple[str, int | None], ...]
"""From the root of a tree to a node: (field, index in a list)."""


@dataclass(frozen=True)
class Mutant:
    """One mistake in one place."""

    module: str
    """The file, relative to the root."""
    where: str
    """The function or the assignment that it is in."""
    change: str
    """What stood there, and what stands there now."""
    number: int
    """Counts the same change within the same place."""
    line: int
    path: Path
    node: ast.AST | None
    """What replaces the node; None: a statement is left out."""

    @property
    def key(self) -> str:
        """Its name; it does not depend on line numbers."""
        again = f" ({self.number})" if self.number > 1 else ""
        return f"{self.where}: {self.change}{again}"

    def applied(self, tree: ast.Module) -> ast.Module:
        """The tree with the mistake in it; `tree` itself is left alone."""
        mutated = copy.deepcopy(tree)
        parent: ast.AST = mutated
        for name, index in self.path[:-1]:
            value = getattr(parent, name)
            parent = value if index is None else value[index]
        name, index = self.path[-1]
        node = ast.Pass() if self.node is None else copy.deepcopy(self.node)
        if index is None:
            setattr(parent, name, node)
        else:
            getattr(parent, name)[index] = node
        return ast.fix_missing_locations(mutated)


def mutants(module: str, source: str) -> list[Mutant]:
    """Every mistake that is made in a module."""
    tree = ast.parse(source)
    found, counts = [], Counter[tuple[str, str]]()
    for where, path, old, new in _sites(tree, "", ()):
        change = _shown(old, new)
        counts[where, change] += 1
        line = getattr(old, "lineno", 0)
        found.append(Mutant(module, where, change, counts[where, change], line, path, new))
    return found


def _shown(old: ast.AST, new: ast.AST | None) -> str:
    def short(node: ast.AST) -> str:
        text = " ".join(ast.unparse(node).split())
        return text if len(text) <= 90 else f"{text[:60]} ... {text[-25:]}"

    return f"without {short(old)}" if new is None else f"{short(old)} -> {short(new)}"


def _sites(node: ast.AST, where: str, path: Path) -> Iterator[tuple[str, Path, ast.AST, ast.AST | None]]:
    """(where, path, old node, new node or None) for all of a tree."""
    if isinstance(node, _SKIPPED) or _is_docstring_or_type(node):
        return
    where = _place(node, where)
    if path:
        for new in _changes(node):
            yield where, path, node, new
        if isinstance(node, _DELETED) and path[-1][1] is not None:
            yield where, path, node, None
    for name, value in ast.iter_fields(node):
        if name in _SKIPPED_FIELDS or (isinstance(node, ast.keyword) and node.arg == "strict"):
            continue
        if isinstance(value, ast.AST):
            yield from _sites(value, where, (*path, (name, None)))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, ast.AST):
                    yield from _sites(item, where, (*path, (name, index)))


def _is_docstring_or_type(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        # Of a Protocol's methods the body is `...`.
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, (str, type(...)))
    if isinstance(node, ast.Assign):
        return _is_docstring_or_type(node.value)
    # Literal["a"], Callable[...]: for the type checker.
    return isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("Literal", "Callable", "Mapping")


def _place(node: ast.AST, where: str) -> str:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        name = node.name if isinstance(node, ast.ClassDef) else f"{node.name}()"
        return f"{where}.{name}" if where else name
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and not where.endswith("()"):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        inner = ast.unparse(target)
        return f"{where}.{inner}" if where else inner
    return where


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in place of a node."""
    if isinstance(node, ast.Compare):
        for index, op in enumerate(node.ops):
            for other in _COMPARISONS[type(op)]:
                yield ast.Compare(
                    node.left, [*node.ops[:index], other(), *node.ops[index + 1 :]], node.comparators
                )
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        for index in range(len(node.values)):
            left = [*node.values[:index], *node.values[index + 1 :]]
            yield left[0] if len(left) == 1 else ast.BoolOp(node.op, left)
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        yield ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.Call):
        yield from _calls(node)
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.If):
        yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield ast.comprehension(node.target, node.iter, [], node.is_async)
    elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield ast.Return(ast.Constant(None))


def _constants(node: ast.Constant) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        yield ast.Constant(value * 2 if value else 1.0)
    elif isinstance(value, str) and _WORD.fullmatch(value):
        yield ast.Constant(f"not_{value}")


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    if not isinstance(node.func, ast.Name) or node.keywords:
        return
    if node.func.id in _FUNCTIONS:
        yield ast.Call(ast.Name(_FUNCTIONS[node.func.id], ast.Load()), node.args, [])
    elif node.func.id == "abs":
        yield node.args[0]
