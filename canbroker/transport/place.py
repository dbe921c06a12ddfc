"""Where a broker, its scheduler and its channels listen."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import msgspec

from canbroker.errors import CanInitializationError
from canbroker.system.endpoints import listener
from canbroker.system.files import effective_user
from canbroker.system.lock import BROKER_SOCKET
from canbroker.system.portable import PORTABLE
from canbroker.transport.address import (
    IpcAddress,
    TcpAddress,
    is_address,
    is_tcp,
    parse_ipc,
    parse_tcp,
)

#: The environment variable that chooses a broker for a program and for the programs it starts.
ADDRESS_VARIABLE: Final = "CANBROKER_ADDRESS"
_SESSION_VARIABLE: Final = "XDG_RUNTIME_DIR"

_SCHEDULER: Final = "scheduler.ctl"

#: Ends the names of the files with the rings of channels.
RING_SUFFIX: Final = ".ring"

#: The directory has files with these names, or with names that begin like this.
_RESERVED: Final = frozenset({BROKER_SOCKET, "lock", "processes", "scheduler", "starting", "tasks"})
#: What Windows takes for a device, whatever follows behind a dot.
_DEVICES: Final = frozenset(
    {"aux", "con", "nul", "prn", *(f"{name}{n}" for name in ("com", "lpt") for n in range(10))}
)
_PLAIN_NAME: Final = r"[A-Za-z0-9_.-]{1,32}"


class ChannelAddresses(msgspec.Struct, frozen=True):
    """The three sockets of a channel."""

    stream: IpcAddress
    transmit: IpcAddress
    control: IpcAddress


class Place:
    """The sockets of one broker, all in one directory. Making a place touches nothing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __repr__(self) -> str:
        return f"<Place {self.directory}>"

    @classmethod
    def at(cls, address: str | None = None) -> Place:
        """The place of the broker with this address.

        :param address: ``None`` means the value of the variable ``CANBROKER_ADDRESS``. If that is
            not set, this user's own broker: in ``XDG_RUNTIME_DIR``, unless that belongs to another
            user, else in the directory of temporary files.
        :raises CanInitializationError: the address is not ``ipc://<absolute path>/broker`` (that of
            another host is for :func:`remote_address`), or
            ``XDG_RUNTIME_DIR`` is not an absolute path.
        """
        if address is None:
            address = os.environ.get(ADDRESS_VARIABLE) or None
        if address is None:
            return cls(_default_directory())
        if is_tcp(address):
            raise CanInitializationError(
                f"{address.partition('?')[0]!r} is the address of a gateway; this needs a broker "
                "on this host: ipc://<absolute path>/broker"
            )
        if not is_address(address) or not address.endswith(f"/{BROKER_SOCKET}"):
            raise CanInitializationError(
                f"broker address {address!r} is neither ipc://<absolute path>/broker nor "
                "tcp://<host>:<port>"
            )
        return cls(parse_ipc(address).path.parent)

    @property
    def broker(self) -> IpcAddress:
        """:raises CanInitializationError: the directory's path is too long for a socket."""
        return self._address(BROKER_SOCKET)

    @property
    def scheduler(self) -> IpcAddress:
        """:raises CanInitializationError: the directory's path is too long for a socket."""
        return self._address(_SCHEDULER)

    def channel(self, name: str) -> ChannelAddresses:
        """The addresses of a channel, whether it exists or not.

        :raises CanInitializationError: the directory's path is too long for these sockets.
        """
        stem = stem_of(name)
        return ChannelAddresses(*(self._address(f"{stem}.{end}") for end in ("rx", "tx", "ctl")))

    def ring(self, name: str) -> Path:
        """The file with a channel's ring, where that has a name."""
        return self.directory / f"{stem_of(name)}{RING_SUFFIX}"

    def shares_files(self, one: str, other: str) -> bool:
        """Whether two channels would have the same files: those of Windows and macOS do not tell
        capital letters from small ones."""
        return PORTABLE and stem_of(one).lower() == stem_of(other).lower()

    def has_channel(self, name: str) -> bool:
        """Whether the channel's socket exists. Its process may have been killed.

        :raises CanInitializationError: as :meth:`channel`.
        """
        return self.channel(name).stream.path.exists()

    def broker_process(self) -> int | None:
        """The process id of the broker that listens here; ``None`` if none does, 0 if the system
        does not tell."""
        return listener(self.directory / BROKER_SOCKET)

    def describe_broker(self) -> str:
        """What to call the broker that listens here, with its process id, if known. Works with a
        broker of any version, and with one that does nothing but listen."""
        pid = self.broker_process()
        process = f" (process {pid}; 'kill {pid}' ends it)" if pid else ""
        return f"the broker at {self.broker}{process}"

    def _address(self, filename: str) -> IpcAddress:
        return IpcAddress(self.directory / filename)


class RemotePlace:
    """The sockets of a broker behind a gateway. Making a place connects to nothing."""

    def __init__(self, gateway: TcpAddress) -> None:
        self.gateway = gateway

    def __repr__(self) -> str:
        return f"<RemotePlace {self.gateway.endpoint}>"

    @property
    def broker(self) -> TcpAddress:
        return self._address(BROKER_SOCKET)

    def channel_control(self, name: str) -> TcpAddress:
        """The control socket of a channel, whether it exists or not."""
        return self._address(f"{stem_of(name)}.ctl")

    def reached(self, told: str) -> TcpAddress:
        """How we reach a socket that the broker has named, by its address there.

        :raises CanInitializationError: it is not an address of that host.
        """
        return self._address(parse_ipc(told).path.name)

    def describe_broker(self) -> str:
        """What to call the broker."""
        return f"the broker at {self.gateway.endpoint}"

    def _address(self, socket: str) -> TcpAddress:
        return msgspec.structs.replace(self.gateway, socket=socket)


def remote_address(address: str | None) -> TcpAddress | None:
    """The gateway with this address; ``None`` if the broker is one of this host.

    :param address: as of :meth:`Place.at`.
    :raises CanInitializationError: it is meant as the address of a gateway, and is not one.
    """
    address = address or os.environ.get(ADDRESS_VARIABLE)
    if not address or not is_tcp(address):
        return None
    gateway = parse_tcp(address)
    if not gateway.port or gateway.host == "*" or gateway.socket:
        raise CanInitializationError(
            f"broker address {address.partition('?')[0]!r} is not tcp://<host>:<port>"
        )
    return gateway


def stem_of(channel: str) -> str:
    """What the names of a channel's sockets begin with.

    Plain names can be guessed by subscribers in any language; others are hashed, because a device
    path is often longer than a socket's path may be.
    """
    is_device = channel.partition(".")[0].lower() in _DEVICES
    if re.fullmatch(_PLAIN_NAME, channel) and channel not in _RESERVED and not is_device:
        return channel
    import hashlib  # noqa: PLC0415 - imports much, and most names are plain

    return hashlib.sha256(channel.encode()).hexdigest()[:16]


def _default_directory() -> Path:
    base = os.environ.get(_SESSION_VARIABLE)
    if base:
        if not Path(base).is_absolute():
            raise CanInitializationError(f"{_SESSION_VARIABLE} is {base!r}, not an absolute path")
        if _is_ours(Path(base)):
            return Path(base) / "canbroker"
    user = effective_user()
    name = os.environ.get("USERNAME", "user") if user is None else str(user)
    import tempfile  # noqa: PLC0415 - imports much; most systems have XDG_RUNTIME_DIR

    return Path(tempfile.gettempdir()) / f"canbroker-{name}"


def _is_ours(directory: Path) -> bool:
    """Whether a directory does not belong to another user: in a root shell the variable may be
    that of the user who opened the shell."""
    user = effective_user()
    try:
        return user is None or directory.stat().st_uid == user
    except FileNotFoundError:
        return True
    except OSError:  # it is in a directory that we may not enter
        return False
