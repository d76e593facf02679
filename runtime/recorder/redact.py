"""Names and passwords in URLs of cameras: people hand recordings on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_USERINFO = re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s?#]*@", re.IGNORECASE)


def without_userinfo(text: str) -> str:
    """The text, its URLs without `user:password@` (RFC 3986, 3.2.1)."""
    return _USERINFO.sub(r"\1", text)


def all_without_userinfo(value: Any) -> Any:
    """The same for every text in a JSON document."""
    if isinstance(value, str):
        return without_userinfo(value)
    if isinstance(value, Mapping):
        return {key: all_without_userinfo(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [all_without_userinfo(item) for item in value]
    return value
