"""CURVE, the encryption of ZeroMQ (RFC 26): the only module that gives keys to a socket."""

from __future__ import annotations

import secrets
from typing import Final

import zmq
from zmq.utils import z85

from canbroker.errors import CanInitializationError
from canbroker.model.key import PublicKey, SecretKey
from canbroker.transport.address import TcpAddress

#: How often each side shows that it lives, and after which silence the other one ends the
#: connection. The kernel does not tell that the other end of a network has vanished.
_HEARTBEAT_MS: Final = 1_000
_DEAD_MS: Final = 3_000

#: A connection that is not made in this time is given up, and tried again. Five round trips.
_HANDSHAKE_MS: Final = 10_000

#: Bytes of the random part of a routing id. Guessing it would give access to another's messages.
_SECRET_BYTES: Final = 16


def new_pair() -> tuple[PublicKey, SecretKey]:
    """A new key, with the secret that proves it."""
    public, secret = zmq.curve_keypair()
    return PublicKey(z85.decode(public)), SecretKey(z85.decode(secret))


def public_of(secret: SecretKey) -> PublicKey:
    """The public key that belongs to ``secret``."""
    return PublicKey(z85.decode(zmq.curve_public(z85.encode(secret.reveal()))))


def keep_alive(socket: zmq.Socket[bytes]) -> None:
    """Has either end of a TCP connection notice soon that the other one is gone."""
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _DEAD_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)


def serve(socket: zmq.Socket[bytes], secret: SecretKey) -> None:
    """Has ``socket`` accept encrypted connections only."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret.reveal())


def join(socket: zmq.Socket[bytes], public: PublicKey, secret: SecretKey) -> None:
    """Prepares ``socket`` to be connected to one that has the same key as we."""
    socket.setsockopt(zmq.CURVE_SERVERKEY, public.raw)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, public.raw)
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret.reveal())


def reach(socket: zmq.Socket[bytes], address: TcpAddress, identity: SecretKey | None) -> None:
    """Prepares ``socket`` to be connected to a gateway.

    :param identity: our own key.
    :raises CanInitializationError: a key is missing.
    """
    keep_alive(socket)
    # Not shown anywhere: it is the right to this session.
    routing_id = f"{address.socket}/{secrets.token_hex(_SECRET_BYTES)}"
    socket.setsockopt(zmq.ROUTING_ID, routing_id.encode())
    if not address.encrypted:
        return
    if address.key is None or identity is None:
        whose = "our own" if identity is None else "the broker's"
        raise CanInitializationError(
            f"cannot connect to {address.endpoint}: {whose} key is missing"
        )
    socket.setsockopt(zmq.CURVE_SERVERKEY, address.key.raw)
    socket.setsockopt(zmq.CURVE_SECRETKEY, identity.reveal())
    socket.setsockopt(zmq.CURVE_PUBLICKEY, public_of(identity).raw)
