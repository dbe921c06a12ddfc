"""Where something listens. Addresses are text on the wire, on command lines and in files only."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from canbroker.errors import CanInitializationError
from canbroker.system.portable import PORTABLE

if TYPE_CHECKING:
    from canbroker.model.key import PublicKey

#: sun_path of a Unix socket holds 108 bytes, the last of them 0.
MAX_SOCKET_PATH: Final = 107

_IPC: Final = "ipc://"
_TCP: Final = "tcp://"

#: Instead of a key: this connection, on one host, is not encrypted.
UNENCRYPTED: Final = "none"

#: Names of hosts (RFC 1123), with the underscores that some networks have; ``*`` is for listeners.
_HOST: Final = r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?|\*"

#: The names of sockets in a runtime directory.
_SOCKET: Final = r"[A-Za-z0-9_.-]{1,64}"

_PORT: Final = r"[0-9]{1,5}"
_MAX_PORT: Final = 65_535

#: The interface that an IPv6 address of a link belongs to.
_ZONE: Final = r"[A-Za-z0-9_.-]{1,32}"

_Fault: TypeAlias = Callable[[str], CanInitializationError]


class IpcAddress(msgspec.Struct, frozen=True):
    """A Unix socket at an absolute path; as text ``ipc://<path>``.

    Where sockets are portable it is the path of a file that says on which port of this host
    something listens (:mod:`canbroker.transport.loopback`).

    :raises CanInitializationError: the path is longer than :data:`MAX_SOCKET_PATH` bytes.
    """

    path: Path

    def __post_init__(self) -> None:
        if not PORTABLE and len(os.fsencode(self.path)) > MAX_SOCKET_PATH:
            raise CanInitializationError(
                f"directory {self.path.parent} is too long: the socket {self.path.name!r} in it "
                f"would have more than {MAX_SOCKET_PATH} bytes"
            )

    def __str__(self) -> str:
        return f"{_IPC}{self.path.as_posix()}"


class TcpAddress(msgspec.Struct, frozen=True):
    """A gateway, or one socket of the broker behind it.

    As text ``tcp://<host>:<port>``, with ``?key=<key>`` and ``#<socket>`` if they are given. An
    IPv6 address is in brackets there, and without them in ``host``. ``key`` is the broker's;
    without ``encrypted`` there is none, and the host is this one. ``socket`` is the name of a
    socket in the broker's runtime directory.
    """

    host: str
    port: int
    key: PublicKey | None = None
    socket: str = ""
    encrypted: bool = True

    def __str__(self) -> str:
        key = self.key if self.encrypted else UNENCRYPTED
        return (
            self.endpoint
            + ("" if key is None else f"?key={key}")
            + (f"#{self.socket}" if self.socket else "")
        )

    @property
    def endpoint(self) -> str:
        """As ZeroMQ spells it, and people: without key and socket."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{_TCP}{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it can be reached from this host only."""
        return is_loopback(self.host)


Address: TypeAlias = IpcAddress | TcpAddress


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or a number, stands for the host itself."""
    import ipaddress  # noqa: PLC0415 - only those pay for it that go beyond this host

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def is_tcp(text: str) -> bool:
    """Whether ``text`` is meant as the address of a gateway."""
    return text.startswith(_TCP)


def is_address(text: str) -> bool:
    """Whether ``text`` has the form of an address of this host."""
    path = Path(text.removeprefix(_IPC))
    return text.startswith(_IPC) and text.isprintable() and path.is_absolute()


def parse_address(text: str) -> Address:
    """The address that ``text`` names.

    :raises CanInitializationError: the text is not an address, or its path is too long.
    """
    if is_tcp(text):
        return parse_tcp(text)
    if not is_address(text):
        raise CanInitializationError(
            f"address {text!r} is neither ipc://<absolute path> nor tcp://<host>:<port>"
        )
    return parse_ipc(text)


def parse_ipc(text: str) -> IpcAddress:
    """The address of this host that ``text`` names.

    :raises CanInitializationError: the text is not such an address, or its path is too long.
    """
    if not is_address(text):
        raise CanInitializationError(f"address {text!r} is not ipc://<absolute path>")
    return IpcAddress(Path(text.removeprefix(_IPC)))


def parse_tcp(text: str) -> TcpAddress:
    """The address of a gateway that ``text`` names.

    :raises CanInitializationError: it does not; says what is wrong with which part.
    """

    def fault(what: str) -> CanInitializationError:
        # Without the key, which may be a secret one by mistake.
        return CanInitializationError(f"address {text.partition('?')[0]!r}: {what}")

    rest, _, socket = text.removeprefix(_TCP).partition("#")
    where, question, query = rest.partition("?")
    if "#" in text and not re.fullmatch(_SOCKET, socket):
        raise fault("after # comes the name of a socket, like can0.rx")
    host, port = _split(where, fault)
    key, encrypted = None, True
    if question:
        from canbroker.model.key import PublicKey  # noqa: PLC0415 - as above

        name, equals, value = query.partition("=")
        if name != "key" or not equals:
            raise fault("after ? comes key=cb1:… , the key of the broker")
        encrypted = value != UNENCRYPTED
        if not encrypted and not is_loopback(host):
            raise fault("only connections within a host may be unencrypted (key=none)")
        try:
            key = PublicKey.parse(value) if encrypted else None
        except ValueError as error:
            raise fault(str(error)) from error
    return TcpAddress(host, port, key, socket, encrypted)


def parse_listen(text: str) -> TcpAddress:
    """Where a gateway shall listen: ``tcp://*:5655``, or with the address of one interface.

    :raises CanInitializationError: ``text`` is not such an address.
    """
    if not is_tcp(text):
        raise CanInitializationError(f"a gateway listens on tcp://<host>:<port>, got {text!r}")
    address = parse_tcp(text)
    if address.key is not None or address.socket:
        raise CanInitializationError(
            f"a gateway listens on tcp://<host>:<port> without more, got {address}"
        )
    return address


def _split(where: str, fault: _Fault) -> tuple[str, int]:
    """Host and port of ``<host>:<port>``."""
    import ipaddress  # noqa: PLC0415 - as above

    host, colon, port = where.rpartition(":")
    if where.endswith("]") or not colon:
        raise fault("it has no port; write tcp://<host>:<port>")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        number, has_zone, zone = host.partition("%")
        try:
            ipaddress.IPv6Address(number)
        except ValueError:
            raise fault(f"{host!r} in brackets is not an IPv6 address") from None
        if has_zone and not re.fullmatch(_ZONE, zone):
            raise fault(f"{zone!r} is not the name of a network interface")
    elif ":" in host:
        raise fault(f"an IPv6 address is written in brackets: tcp://[{where}]:<port>")
    elif not re.fullmatch(_HOST, host):
        raise fault(f"{host!r} is not the name or number of a host")
    if not re.fullmatch(_PORT, port) or int(port) > _MAX_PORT:
        raise fault(f"{port!r} is not a port, a number from 1 to {_MAX_PORT:,}")
    return host, int(port)
