"""Keys, their files, and datagrams about them. A target raises for a fault, and nothing else."""

from __future__ import annotations

import re
from typing import Final

from canbroker.errors import CanError
from canbroker.keys import authorized, known_brokers, offer, secret_file
from canbroker.keys.authorized import IdentifierRange
from canbroker.model.frame import MAX_EXTENDED_ID, MAX_STANDARD_ID
from canbroker.model.key import PublicKey, SecretKey

#: Parts of a text that may be a secret. No word of a message is as long.
_SECRETS: Final = re.compile(r"[A-Za-z0-9_-]{20}")

_KEY: Final = PublicKey(bytes(range(32)))
_NONCE: Final = bytes(range(16))


def public_key(data: bytes) -> None:
    """A key has one text."""
    text = data.decode(errors="replace")
    try:
        key = PublicKey.parse(text)
    except ValueError as error:
        _shows_nothing(text, error)
        return
    assert str(key) == text
    assert PublicKey(key.raw) == key


def secret_key(data: bytes) -> None:
    """A key has one text, and a fault does not quote it."""
    text = data.decode(errors="replace")
    try:
        key = SecretKey.parse(text)
    except ValueError as error:
        _shows_nothing(text, error)
        return
    assert key.reveal_text() == text


def key_file(data: bytes) -> None:
    """A file has one key, or the error names the file and quotes nothing."""
    try:
        key = secret_file.parse(data, "f.key")
    except CanError as error:
        _names(error, "f.key")
        _shows_nothing(data.decode("ascii", "replace"), error)
        return
    assert key.reveal_text().encode() in data


def identifiers(data: bytes) -> None:
    """A range lies within its format, and its text is read again."""
    try:
        found = IdentifierRange.parse(data.decode(errors="replace"))
    except ValueError:
        return
    assert IdentifierRange.parse(str(found)) == found
    assert 0 <= found.first <= found.last
    assert found.last <= (MAX_EXTENDED_ID if found.extended else MAX_STANDARD_ID)


def authorized_file(data: bytes) -> None:
    """Each key is one name's; whatever is wrong is told with the file."""
    text = data.decode(errors="replace")
    try:
        found = authorized.parse(text, "f.toml")
    except CanError as error:
        _names(error, "f.toml")
        return
    assert sum(len(grant.keys) for grant in found.grants.values()) == len(found.by_key)
    for key, grant in found.by_key.items():
        assert key in grant.keys
        assert found.grants[grant.name] is grant


def known_file(data: bytes) -> None:
    """Each broker has keys; whatever is wrong is told with the file."""
    try:
        found = known_brokers.parse(data.decode(errors="replace"), "f.toml")
    except CanError as error:
        _names(error, "f.toml")
        return
    for address, keys in found.items():
        assert address.startswith("tcp://")
        assert len(set(keys)) == len(keys) > 0


def datagram(data: bytes) -> None:
    """An answer is shorter than its question; a key is read from answers to ours alone."""
    reply = offer.answer(data, _KEY)
    if reply is not None:
        assert len(reply) < len(data)
    key = offer.key_in(data, _NONCE)
    if key is not None:
        assert data.endswith(_NONCE + key.raw)


def _names(error: CanError, file: str) -> None:
    assert file in str(error), error


def _shows_nothing(text: str, error: Exception) -> None:
    said = str(error)
    for part in _SECRETS.findall(text.replace("cb1-secret:", " ")):
        assert part not in said, said
