"""The key by which clients know a broker."""

from __future__ import annotations

from pathlib import Path

from canbroker.errors import CanInitializationError
from canbroker.keys import files, secret_file
from canbroker.model.key import SecretKey
from canbroker.transport import curve


def broker_key_path() -> Path:
    """The file that keeps the secret key of this user's broker."""
    return files.directory() / "broker.key"


def load_broker_key() -> SecretKey:
    """The broker's secret key; a new one if it has none yet.

    :raises CanInitializationError: the file is not a key that only this user may read, or a new one
        cannot be written.
    """
    path = broker_key_path()
    found = secret_file.load(path)
    if found is not None:
        return found
    _, secret = curve.new_pair()
    try:
        secret_file.create(path, secret)
    except CanInitializationError:
        found = secret_file.load(path)  # a command has made one in this moment
        if found is None:
            raise
        return found
    return secret
