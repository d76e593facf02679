"""Arbitrary values of any dataclass, derived from its fields: a field added tomorrow is tested tomorrow."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

FLOATS = st.floats(allow_nan=False, allow_infinity=True)
"""Infinities, subnormals and both zeros."""
INTS = st.integers(-(2**63), 2**63 - 1)


def arbitrary(kind: Any, **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Of a dataclass or any type that its fields may have. `given`: fields that are not arbitrary."""
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        names = [field.name for field in fields(kind)]
        values = {name: given[name] if name in given else arbitrary(hints[name]) for name in names}
        return st.builds(kind, **values)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(arbitrary, arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return st.lists(arbitrary(arguments[0]), max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(*map(arbitrary, arguments))
    if origin is dict:
        return st.dictionaries(*map(arbitrary, arguments), max_size=3)
    if origin is frozenset:
        return st.frozensets(arbitrary(arguments[0]), max_size=3)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    simple = {float: FLOATS, int: INTS, bool: st.booleans(), str: st.text(), type(None): st.none()}
    return simple[kind]
