"""Where something listens. Addresses are text on the wire, on command lines and in files only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from canbroker.errors import CanInitializationError

#: sun_path of a Unix socket holds 108 bytes, the last of them 0.
MAX_SOCKET_PATH: Final = 107

_IPC: Final = "ipc://"


@dataclass(frozen=True)
class IpcAddress:
    """A Unix socket at an absolute path; as text ``ipc://<path>``.

    :raises CanInitializationError: the path is longer than :data:`MAX_SOCKET_PATH` bytes.
    """

    path: Path

    def __post_init__(self) -> None:
        if len(os.fsencode(self.path)) > MAX_SOCKET_PATH:
            raise CanInitializationError(
                f"directory {self.path.parent} is too long: the socket {self.path.name!r} in it "
                f"would have more than {MAX_SOCKET_PATH} bytes"
            )

    def __str__(self) -> str:
        return f"{_IPC}{self.path}"


Address: TypeAlias = IpcAddress


def is_address(text: str) -> bool:
    """Whether ``text`` has the form of an address."""
    path = Path(text.removeprefix(_IPC))
    return text.startswith(_IPC) and text.isprintable() and path.is_absolute()


def parse_address(text: str) -> Address:
    """The address that ``text`` names.

    :raises CanInitializationError: the text is not an address, or its path is too long.
    """
    if not is_address(text):
        raise CanInitializationError(f"address {text!r} is not ipc://<absolute path>")
    return IpcAddress(Path(text.removeprefix(_IPC)))
