"""``known_brokers.toml``: which keys a broker has at an address, as this user has been told.

::

    "tcp://bench1:5655" = ["cb1:…", "cb1:…"]    # while a broker's key is replaced, both

"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from canbroker.errors import CanInitializationError
from canbroker.keys import files
from canbroker.keys.key_list import public_keys
from canbroker.model.key import PublicKey
from canbroker.system import toml_file
from canbroker.transport.address import TcpAddress, is_tcp, parse_tcp

#: Keys by the address, as :func:`name_of` spells it.
KnownBrokers: TypeAlias = Mapping[str, tuple[PublicKey, ...]]


def known_brokers_path() -> Path:
    """The file of this user's known brokers."""
    return files.directory() / "known_brokers.toml"


def name_of(address: TcpAddress) -> str:
    """The address as the file has it: names of hosts in small letters."""
    return address.endpoint.lower()


def load(path: Path) -> KnownBrokers:
    """The brokers in the file ``path``; none if it is not there.

    :raises CanInitializationError: as :func:`parse`; or the file cannot be read, or others may
        write it.
    """
    content = files.read_trusted(path)
    return {} if content is None else parse(toml_file.decoded(content, str(path)), str(path))


def parse(text: str, path: str) -> KnownBrokers:
    """The brokers in ``text``; ``path`` names it in errors.

    :raises CanInitializationError: a fault; names file, address, what would be right and, where it
        can be found, the line.
    """
    source, document = toml_file.parse(text, path)
    found: dict[str, tuple[PublicKey, ...]] = {}
    for address, value in document.items():
        if not is_tcp(address):
            raise source.fault((address,), 'must be an address: "tcp://bench1:5655" = ["cb1:…"]')
        try:
            parsed = parse_tcp(address)
        except CanInitializationError as error:
            raise source.fault((address,), str(error)) from error
        name = name_of(parsed)
        if address.lower() != name:
            raise source.fault((address,), f'must be the address alone: "{name}"')
        if name in found:
            raise source.fault((address,), f'"{name}" is there twice')
        found[name] = public_keys(source, (address,), value)
    return found
