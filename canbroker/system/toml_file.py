"""TOML whose faults are told with file and line, which the standard library's reader does not keep.

Every error is a :class:`CanInitializationError` that names file, key path and, where it can be
found, line.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from typing import Any, Final

import msgspec

from canbroker.errors import CanInitializationError

#: A larger file is not a configuration.
MAX_FILE_BYTES: Final = 1 << 20


class Source(msgspec.Struct, frozen=True):
    """The file that a configuration came from; says where something in it is wrong."""

    path: str
    text: str

    def fault(self, keys: tuple[str, ...], message: str) -> CanInitializationError:
        """An error about the key ``keys``; the caller raises it."""
        line = line_of(self.text, keys)
        where = [self.path] + [f"line {line}"] * (line is not None) + [".".join(keys)]
        return CanInitializationError(f"{', '.join(filter(None, where))}: {message}")

    def fault_in(
        self, keys: tuple[str, ...], table: dict[str, Any], message: str
    ) -> CanInitializationError:
        """An error about the key of ``table`` that ``message`` names; the table is at ``keys``.

        For messages of checks that know the table but not the file. Of several keys, the first
        one is to blame.
        """
        named = {key: re.search(rf"(?<!\w){re.escape(key)}(?!\w)", message) for key in table}
        positions = {key: match.start() for key, match in named.items() if match}
        blamed = min(positions, key=lambda key: positions[key], default=None)
        return self.fault(keys if blamed is None else (*keys, blamed), message)

    def table(self, keys: tuple[str, ...], value: object) -> dict[str, Any]:
        """``value``, which is at ``keys``, as a table.

        :raises CanInitializationError: it is not one.
        """
        if not isinstance(value, dict):
            raise self.fault(keys, f"must be a table, got {value!r}")
        return value

    def refuse_unknown(
        self, keys: tuple[str, ...], table: dict[str, Any], known: tuple[str, ...]
    ) -> None:
        """:raises CanInitializationError: ``table``, which is at ``keys``, has another key."""
        for key in table:
            if key not in known:
                raise self.fault((*keys, key), f"unknown key; known are {', '.join(known)}")


def decoded(content: bytes, path: str) -> str:
    """The text of a file; ``path`` names it in errors. Accepts what editors of Windows write.

    :raises CanInitializationError: it is too long for a configuration, or not UTF-8.
    """
    if len(content) > MAX_FILE_BYTES:
        raise CanInitializationError(f"{path}: a configuration has {MAX_FILE_BYTES} bytes at most")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CanInitializationError(f"{path}, line {line}: not UTF-8") from error


def parse(text: str, path: str) -> tuple[Source, dict[str, Any]]:
    """The document in ``text``, and its source; ``path`` names it in errors.

    :raises CanInitializationError: the text is not TOML.
    """
    source = Source(path, text.replace("\r\n", "\n"))  # as tomllib does
    try:
        return source, tomllib.loads(text)
    except RecursionError:
        raise CanInitializationError(f"{path}: nested too deeply") from None
    except ValueError as error:  # the message ends with line and column
        raise CanInitializationError(f"{path}: not valid TOML: {error}") from error


def line_of(text: str, keys: tuple[str, ...]) -> int | None:
    """Line (from 1) of the TOML document ``text`` on which the key path ``keys`` is given.

    ``None`` if it is not found. Lines are read one by one, so a multi-line string with a line that
    looks like a table's header misleads it; no configuration needs such a string.
    """
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), start=1):
        parsed = _parse_line(line)
        if line.lstrip().startswith("["):
            if parsed:
                table = _header_path(parsed)
            if keys and table[: len(keys)] == keys:
                return number
        elif keys[: len(table)] == table and _holds(parsed, keys[len(table) :]):
            return number
    return None


def _parse_line(line: str) -> dict[str, Any]:
    """The content of one line; a value that continues in the next line counts as 0."""
    for text in (line, f"{line.partition('=')[0]}= 0"):
        try:
            return tomllib.loads(text)
        except (ValueError, RecursionError):
            continue
    return {}


def _header_path(parsed: object) -> tuple[str, ...]:
    """The key path of a table header that was parsed alone: ``[a.b]`` is ``{a: {b: {}}}``."""
    path: tuple[str, ...] = ()
    while isinstance(parsed, dict) and parsed:
        [(key, parsed)] = parsed.items()
        path = (*path, key)
    return path


def _holds(parsed: object, keys: tuple[str, ...]) -> bool:
    """Whether the key path ``keys``, with at least one key, is in ``parsed``."""
    for key in keys:
        if not isinstance(parsed, dict) or key not in parsed:
            return False
        parsed = parsed[key]
    return bool(keys)
