"""Messages and texts of others, made readable in one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

#: How msgspec says that a value has the wrong type, and where.
_WRONG_TYPE: Final = re.compile(r"Expected `([^`]+)`, got `[^`]+` - at `\$\.(\w+)`")
_PATH: Final = re.compile(r" - at `\$\.?([^`]*)`")

_TYPES: Final[Mapping[str, str]] = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "object": "a table",
    "str": "a text",
}


def validation_fault(error: msgspec.ValidationError, given: Mapping[str, Any]) -> str:
    """What is wrong with a value of ``given``: its key, what it must be, and what it is.

    msgspec names types as Python and JSON do, and the path in a notation of its own.
    """
    text = str(error)
    match = _WRONG_TYPE.fullmatch(text)
    if match is None or match[2] not in given:
        return _PATH.sub(lambda found: f" for {found[1]}" if found[1] else "", text)
    kinds = [_TYPES.get(kind, kind) for kind in match[1].split(" | ") if kind != "null"]
    return f"{match[2]} must be {' or '.join(kinds)}, got {given[match[2]]!r}"


def printable(text: str) -> str:
    """``text`` with escapes for control characters and the like.

    It stays in its line, and cannot control a terminal: any client chooses its program's name.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
