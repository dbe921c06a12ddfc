"""Users of a lab's gateway: each with a key of its own, by a bus or by plain sockets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

import msgspec
import pytest
import zmq

from canbroker.keys.authorized import authorized_path
from canbroker.keys.identity import KEY_VARIABLE
from canbroker.model.key import PublicKey, SecretKey
from canbroker.transport.curve import new_pair
from canbroker.wire import control
from canbroker.wire.ids import new_id, owner_of_key
from tests.support.brokers import wait_until
from tests.support.remote import Lab

_ANSWER_MS: Final = 10_000


class RemoteUser:
    """Somebody with a key of the lab; ``name``: under which the lab knows it, once authorized."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.name = name
        self.lab = lab
        self.key, self.secret = new_pair()

    @property
    def owner(self) -> str:
        return owner_of_key(self.key.raw)

    def new_id(self) -> str:
        return new_id(self.owner)

    @contextmanager
    def acting(self) -> Iterator[str]:
        """This process is that user meanwhile; the address of the broker."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(KEY_VARIABLE, self.secret.reveal_text())
            yield self.lab.address

    def socket(self, name: str, secret: str = "") -> PlainSocket:
        """A socket of that name at the gateway, without canbroker's client around it."""
        return PlainSocket(self.lab, self.key, self.secret, name, secret or os.urandom(16).hex())


class PlainSocket:
    """A DEALER at the gateway that sends anything."""

    def __init__(
        self, lab: Lab, key: PublicKey, secret: SecretKey, name: str, unguessable: str
    ) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.CURVE_SERVERKEY, lab.key.raw)
        self.socket.setsockopt(zmq.CURVE_PUBLICKEY, key.raw)
        self.socket.setsockopt(zmq.CURVE_SECRETKEY, secret.reveal())
        self.socket.setsockopt(zmq.ROUTING_ID, f"{name}/{unguessable}".encode())
        host, port = lab.endpoint
        self.socket.connect(f"tcp://{host}:{port}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.socket.close()
        self.context.term()

    def send(self, *parts: bytes) -> None:
        self.socket.send_multipart(parts)

    def receive(self, timeout_ms: int = _ANSWER_MS) -> list[bytes] | None:
        """The next message; ``None`` if there is none in time."""
        while self.socket.poll(timeout_ms):
            parts = self.socket.recv_multipart()
            if parts[0] and parts != [control.NOTHING]:  # else only to see if we are connected
                return parts
        return None

    def call(self, method: str, params: control.Params, number: int = 7) -> control.Reply:
        """The reply to a call."""
        self.send(control.encode_request(number, method, params))
        while True:
            parts = self.receive()
            assert parts is not None, f"{method} was not answered"
            reply = control.decode_reply(parts[0])
            if reply.id == number:
                return reply

    def error(self, method: str, params: control.Params) -> control.ErrorResult | None:
        """The error that a call is answered with; ``None`` if it succeeds."""
        reply = self.call(method, params)
        return None if reply.ok else msgspec.msgpack.decode(reply.result, type=control.ErrorResult)


def authorize(*users: tuple[RemoteUser, str]) -> None:
    """Writes the file of users anew, each with these lines; nobody else is one any more."""
    lines = [f'[{user.name}]\nkeys = ["{user.key}"]\n{rights}\n' for user, rights in users]
    path = authorized_path()
    fresh = path.with_suffix(".new")
    fresh.write_text("\n".join(lines))
    fresh.replace(path)


def wait_until_in_force(user: RemoteUser, role: str) -> None:
    """Waits until the gateway knows that the user, who may use channel can0, has that role."""
    nonsense = control.SetState(state="nonsense")  # which an admin may ask for, in vain

    def is_in_force() -> bool:
        with user.socket("can0.ctl") as socket:
            socket.send(control.encode_request(1, "set_state", nonsense))
            while (parts := socket.receive(1_000)) is not None:
                reply = control.decode_reply(parts[0])
                if reply.id == 1:
                    error = msgspec.msgpack.decode(reply.result, type=control.ErrorResult)
                    return bool(error.details.get("role", "admin") == role)
        return False

    wait_until(is_in_force, f"{user.name} has the role {role}", timeout=20)
