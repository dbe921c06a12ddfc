"""The key by which remote brokers know a user: in ``CANBROKER_KEY``, else in a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from canbroker.errors import CanInitializationError
from canbroker.keys import files, secret_file
from canbroker.model.key import PublicKey, SecretKey
from canbroker.transport import curve

#: The content of a file with a secret key, for CI, where secrets come in variables.
KEY_VARIABLE: Final = "CANBROKER_KEY"


@dataclass(frozen=True)
class Identity:
    """A pair of keys; ``origin``: the file or variable that it is from."""

    secret: SecretKey
    public: PublicKey
    origin: str


def identity_path() -> Path:
    """The file that keeps this user's secret key."""
    return files.directory() / "identity"


def find_identity() -> Identity | None:
    """This user's keys; ``None`` if there are none.

    :raises CanInitializationError: the variable is not a secret key, or the file is not one that
        only this user may read; names the variable, or file and line.
    """
    text = os.environ.get(KEY_VARIABLE)
    if text:
        origin = f"environment variable {KEY_VARIABLE}"
        secret = secret_file.parse(text.encode("ascii", "replace"), origin)
    else:
        path = identity_path()
        found = secret_file.load(path)
        if found is None:
            return None
        secret, origin = found, str(path)
    return Identity(secret, curve.public_of(secret), origin)


def load_identity() -> Identity:
    """This user's keys.

    :raises CanInitializationError: as :func:`find_identity`, or there are none.
    """
    found = find_identity()
    if found is None:
        raise CanInitializationError(
            f"this user has no key for remote brokers, neither in {identity_path()} nor in "
            f"{KEY_VARIABLE}; make one: canbroker keys new"
        )
    return found
