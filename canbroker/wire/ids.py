"""The ids of clients and leases, and their owners.

A local client's id is random. One that comes through a gateway begins with the key of its user, so
each id shows its owner: a user cannot use the id of another user's client, or of a local one,
however it was learnt.
"""

from __future__ import annotations

import os
from typing import Final

#: Characters of a key in an id: 72 bits, so that a key with the same ones cannot be found.
OWNER_CHARACTERS: Final = 12

_RANDOM_BYTES: Final = 6


def owner_of_key(raw: bytes) -> str:
    """What the ids of a user with this public key begin with; ``raw``: its 32 bytes."""
    return _text(raw)[:OWNER_CHARACTERS]


def new_id(owner: str = "") -> str:
    """A fresh id. ``owner``: as of :func:`owner_of_key`; empty for a local client."""
    if not owner:
        return os.urandom(_RANDOM_BYTES).hex()
    return owner + _text(os.urandom(_RANDOM_BYTES))


def is_owned(name: str, owner: str) -> bool:
    """Whether an id is one of that owner's."""
    return len(owner) == OWNER_CHARACTERS < len(name) and name.startswith(owner)


def _text(raw: bytes) -> str:
    import base64  # noqa: PLC0415 - local clients need none

    return base64.urlsafe_b64encode(raw).decode()
