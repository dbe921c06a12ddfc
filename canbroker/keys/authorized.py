"""``authorized.toml``: who may use a broker over the network, with which keys, and for what.

::

    [bob]
    keys = ["cb1:…", "cb1:…"]                       # each of them is bob
    role = "transmit"                               # observe, transmit or admin
    channels = ["can0", "can1"]                     # optional: no others
    transmit = ["100-1FF", "x18DA0000-18DAFFFF"]    # optional: no other identifiers
"""

from __future__ import annotations

import enum
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from canbroker.errors import CanInitializationError
from canbroker.keys import files
from canbroker.keys.key_list import public_keys
from canbroker.model.frame import MAX_EXTENDED_ID, MAX_STANDARD_ID
from canbroker.model.key import PublicKey
from canbroker.system import toml_file
from canbroker.system.toml_file import Source

_KEYS: Final = ("keys", "role", "channels", "transmit")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_RANGE: Final = re.compile(r"(x?)([0-9A-Fa-f]{1,8})(?:-([0-9A-Fa-f]{1,8}))?")

_logger = logging.getLogger("canbroker.keys")


class Role(enum.IntEnum):
    """What a user may do; each role may do what those before it may."""

    OBSERVE = 1
    TRANSMIT = 2
    ADMIN = 3

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> Role:
        """:raises ValueError: ``text`` is not the name of a role."""
        for role in cls:
            if str(role) == text:
                return role
        raise ValueError(f"must be observe, transmit or admin, got {text!r}")


class IdentifierRange(NamedTuple):
    """Identifiers ``first`` to ``last`` of one format; as text ``100-1FF``, ``x18DA0000``."""

    first: int
    last: int
    extended: bool

    @classmethod
    def parse(cls, text: str) -> IdentifierRange:
        """:raises ValueError: ``text`` is not a range of identifiers; says why."""
        match = _RANGE.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is not FIRST-LAST in hex digits, with x before 29-bit identifiers: "
                "100-1FF, x18DA0000-18DAFFFF"
            )
        extended = bool(match[1])
        first, last = int(match[2], 16), int(match[3] or match[2], 16)
        highest = MAX_EXTENDED_ID if extended else MAX_STANDARD_ID
        if max(first, last) > highest:
            hint = "" if extended else f"; 29-bit identifiers have x before them: x{text}"
            raise ValueError(f"{text!r} goes beyond {highest:X}{hint}")
        if first > last:
            raise ValueError(f"{text!r} ends before it begins")
        return cls(first, last, extended)

    def has(self, identifier: int, extended: bool) -> bool:
        """Whether an identifier of that format is one of these."""
        return self.first <= identifier <= self.last and extended == self.extended

    def __str__(self) -> str:
        prefix, digits = ("x", 8) if self.extended else ("", 3)
        first = f"{prefix}{self.first:0{digits}X}"
        return first if self.first == self.last else f"{first}-{self.last:0{digits}X}"


@dataclass(frozen=True)
class Grant:
    """What one name may do. ``None`` as ``channels`` or ``transmit`` means all of them."""

    name: str
    keys: tuple[PublicKey, ...]
    role: Role
    channels: tuple[str, ...] | None = None
    transmit: tuple[IdentifierRange, ...] | None = None

    def may_use(self, channel: str) -> bool:
        """Whether this user may see that channel at all."""
        return self.channels is None or channel in self.channels

    def may_transmit(self, identifier: int, extended: bool) -> bool:
        """Whether this user may send frames with that identifier."""
        if self.role < Role.TRANSMIT:
            return False
        return self.transmit is None or any(
            each.has(identifier, extended) for each in self.transmit
        )


@dataclass(frozen=True)
class Authorized:
    """All grants: by name in the order of the file, and by key."""

    grants: Mapping[str, Grant]
    by_key: Mapping[PublicKey, Grant]


NOBODY: Final = Authorized({}, {})


def authorized_path() -> Path:
    """The file that says who may use this user's broker."""
    return files.directory() / "authorized.toml"


def load(path: Path) -> Authorized:
    """The grants in the file ``path``; without a file, nobody's.

    :raises CanInitializationError: as :func:`parse`; or the file cannot be read, or others may
        write it.
    """
    content = files.read_trusted(path)
    return NOBODY if content is None else parse(toml_file.decoded(content, str(path)), str(path))


def parse(text: str, path: str) -> Authorized:
    """The grants in ``text``; ``path`` names it in errors.

    :raises CanInitializationError: a fault; names file, key, what would be right and, where it can
        be found, the line.
    """
    source, document = toml_file.parse(text, path)
    grants = {name: _grant(source, name, table) for name, table in document.items()}
    by_key: dict[PublicKey, Grant] = {}
    for grant in grants.values():
        for key in grant.keys:
            owner = by_key.setdefault(key, grant)
            if owner is not grant:
                raise source.fault(
                    (grant.name, "keys"), f"{key} is a key of {owner.name!r} already"
                )
    return Authorized(grants, by_key)


def check_name(name: str) -> None:
    """:raises ValueError: ``name`` cannot be the name of a user."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            "a name has 1 to 64 letters, digits and . _ @ -, and begins with a letter or digit; "
            f"got {name[:80]!r}"
        )


class AuthorizedFile:
    """The grants in force, which follow their file. One thread.

    A file with a fault changes nothing: what was in force before stays in force, and the log and
    :attr:`fault` say why. A file that is removed grants nothing any more.
    """

    def __init__(self, path: Path) -> None:
        """Reads the file; with a fault in it, or without it, nobody is authorized. Never raises."""
        self.path = path
        self.current = NOBODY
        #: What is wrong with the file; ``None`` if it is in force.
        self.fault: str | None = None
        self._seen = self._in_force = files.signature(path)
        self._read("nobody is authorized")

    def __repr__(self) -> str:
        return f"<AuthorizedFile {self.path} names={len(self.current.grants)}>"

    def poll(self) -> bool:
        """Takes over a change of the file; returns whether other grants are in force.

        Call it every 0.2 s or so. A change is read once the file has stayed the same from one call
        to the next: an editor that empties the file before it writes it must not end all sessions.
        """
        seen, self._seen = self._seen, files.signature(self.path)
        if self._seen == self._in_force or seen != self._seen:
            return False
        self._in_force = self._seen
        return self._read("what was authorized before stays in force")

    def _read(self, otherwise: str) -> bool:
        try:
            found = load(self.path)
        except CanInitializationError as error:
            self.fault = str(error)
        else:
            return self._put_in_force(found)
        _logger.error("%s; %s", self.fault, otherwise)
        return False

    def _put_in_force(self, found: Authorized) -> bool:
        is_new = found != self.current
        if is_new or self.fault is not None:
            _logger.info("%s is in force; names: %d", self.path, len(found.grants))
        self.current, self.fault = found, None
        return is_new


def _grant(source: Source, name: str, value: object) -> Grant:
    try:
        check_name(name)
    except ValueError as error:
        raise source.fault((name,), str(error)) from error
    if not isinstance(value, dict):  # the value is not quoted: it may be a key in the wrong place
        raise source.fault((name,), f"must be a table: [{name}]")
    table: dict[str, Any] = value
    source.refuse_unknown((name,), table, _KEYS)
    if "keys" not in table:
        raise source.fault((name,), 'has no keys; add them: keys = ["cb1:…"]')
    role = _role(source, name, table)
    transmit = _texts(source, (name, "transmit"), table)
    if transmit is not None and role < Role.TRANSMIT:
        raise source.fault((name, "transmit"), f"role {role} transmits nothing; remove this key")
    channels = _texts(source, (name, "channels"), table)
    return Grant(
        name,
        public_keys(source, (name, "keys"), table["keys"]),
        role,
        None if channels is None else tuple(channels),
        None if transmit is None else _ranges(source, (name, "transmit"), transmit),
    )


def _role(source: Source, name: str, table: dict[str, Any]) -> Role:
    keys, value = (name, "role"), table.get("role")
    if value is None:
        raise source.fault((name,), 'has no role; add one: role = "observe", "transmit" or "admin"')
    if not isinstance(value, str):
        raise source.fault(keys, f"must be observe, transmit or admin, got {value!r}")
    try:
        return Role.parse(value)
    except ValueError as error:
        raise source.fault(keys, str(error)) from error


def _ranges(source: Source, keys: tuple[str, ...], texts: list[str]) -> tuple[IdentifierRange, ...]:
    try:
        return tuple(map(IdentifierRange.parse, texts))
    except ValueError as error:
        raise source.fault(keys, str(error)) from error


def _texts(source: Source, keys: tuple[str, ...], table: dict[str, Any]) -> list[str] | None:
    """The list of texts at the last of ``keys``; ``None`` if ``table`` has no such key."""
    value = table.get(keys[-1])
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
        raise source.fault(keys, f"must be a list of texts, got {value!r}")
    return value
