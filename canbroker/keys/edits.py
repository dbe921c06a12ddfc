"""Changes of the files of keys. What a person wrote there, comments too, stays as it is.

Each function changes a file under a lock and replaces it as a whole, so that two commands at once
do not lose each other's changes, and a reader sees the file before or after a change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Table

from canbroker.errors import CanInitializationError
from canbroker.keys import authorized, files, known_brokers
from canbroker.keys.authorized import Grant, IdentifierRange, Role
from canbroker.model.key import PublicKey
from canbroker.system import toml_file
from canbroker.transport.address import TcpAddress

_T = TypeVar("_T")

_AUTHORIZED: Final = """\
# Who may use this user's canbroker over the network. `canbroker keys authorize` and
# `canbroker keys revoke` change it; so may you. It takes effect as soon as it is saved.
"""

_KNOWN: Final = """\
# The keys of remote brokers, as this user was told them. `canbroker keys trust` adds to it.
"""


@dataclass(frozen=True)
class Rights:
    """What ``authorize`` is told of a name. ``None`` leaves it as it is."""

    role: Role | None = None
    channels: Sequence[str] | None = None
    transmit: Sequence[IdentifierRange] | None = None


def authorize(path: Path, name: str, key: PublicKey, rights: Rights) -> Grant:
    """Adds ``key`` to those of ``name``, which may be new, and changes its rights. Returns them.

    A new name observes unless ``rights`` say more.

    :raises CanInitializationError: the file has a fault, before or after; then it is as before.
    """
    with _edited(path, _AUTHORIZED, authorized.parse) as (document, before):
        owner = before.by_key.get(key)
        if owner is not None and owner.name != name:
            raise CanInitializationError(f"{key} is a key of {owner.name!r} already, in {path}")
        table: Any = document.setdefault(name, tomlkit.table())
        _add(table, "keys", key)
        if rights.role is not None or "role" not in table:
            table["role"] = str(rights.role or Role.OBSERVE)
        if table["role"] == str(Role.OBSERVE):
            if rights.transmit is not None:
                raise CanInitializationError(
                    f"{name!r} has the role observe, which transmits nothing: give it another one"
                )
            table.pop("transmit", None)
        if rights.channels is not None:
            table["channels"] = list(rights.channels)
        if rights.transmit is not None:
            table["transmit"] = list(map(str, rights.transmit))
    return authorized.load(path).grants[name]


def revoke(path: Path, name: str, key: PublicKey | None) -> tuple[PublicKey, ...]:
    """Removes ``name``, or one of its keys; the last key takes the name along.

    Returns the keys that are removed.

    :raises CanInitializationError: the file has a fault, or neither name nor key is there.
    """
    with _edited(path, _AUTHORIZED, authorized.parse) as (document, before):
        grant = before.grants.get(name)
        if grant is None:
            raise CanInitializationError(f"{name!r} is not in {path}")
        if key is not None and key not in grant.keys:
            raise CanInitializationError(f"{key} is not a key of {name!r} in {path}")
        if key is None or grant.keys == (key,):
            _remove(document, name)
            return grant.keys
        table: Any = document[name]
        table["keys"].remove(str(key))
        return (key,)


def trust(path: Path, address: TcpAddress, key: PublicKey, *, only: bool = False) -> None:
    """Adds ``key`` to those that the broker at ``address`` may have.

    :param only: it has no other key any more.
    :raises CanInitializationError: the file has a fault; then it is as before.
    """
    name = known_brokers.name_of(address)
    with _edited(path, _KNOWN, known_brokers.parse) as (document, _):
        spelled = next((each for each in document if each.lower() == name), name)
        if only:
            document.pop(spelled, None)
        _add(document, spelled, key)


@contextmanager
def _edited(
    path: Path, header: str, parse: Callable[[str, str], _T]
) -> Iterator[tuple[tomlkit.TOMLDocument, _T]]:
    """The document in a file, to be changed, and what the file said before.

    A new file begins with ``header``.
    """
    with files.locked(path):
        content = files.read_trusted(path)
        text = header if content is None else toml_file.decoded(content, str(path))
        before = parse(text, str(path))
        try:
            document = tomlkit.parse(text)
        except TOMLKitError as error:
            raise CanInitializationError(f"{path}: edit it by hand: {error}") from error
        yield document, before
        written = tomlkit.dumps(document)
        parse(written, str(path))
        if written != text:
            files.replace(path, written)


def _remove(document: tomlkit.TOMLDocument, name: str) -> None:
    """Removes a table, but not the comments behind it, which are about the next one."""
    body = document.body
    (place, *others) = [place for place, (key, _) in enumerate(body) if key and key.key == name]
    table = body[place][1]
    if others or not isinstance(table, Table):  # written as bob.role = "observe", say
        del document[name]
        return
    parts = table.value.body
    end = max(place for place, (key, _) in enumerate(parts) if key) + 1
    body[place : place + 1] = parts[end:]


def _add(table: Any, name: str, key: PublicKey) -> None:
    """Adds ``key`` to the list ``name`` of a table, which keeps its comments."""
    if name not in table:
        table[name] = [str(key)]
    elif str(key) not in table[name]:
        table[name].append(str(key))
