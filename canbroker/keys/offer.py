"""A broker tells its public key to any host that asks; a client shows it on first use.

CURVE needs the broker's key before it begins, and the broker's TCP port speaks nothing else. So
the question is a datagram of UDP to the same port number. The answer proves nothing: it is shown to
a person, or chooses among keys that are known already, and CURVE proves the rest.

A question is 128 bytes, :data:`_ASKED`, 16 random bytes and zeros; the answer is
:data:`_ANSWERED`, the same 16 bytes and the key. It is shorter than the question, so that a broker
does not amplify a flood of questions with forged senders. Only a host that has seen the question
knows the 16 bytes.
"""

from __future__ import annotations

import secrets
import selectors
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Final

from canbroker.errors import CanInitializationError
from canbroker.model.key import KEY_BYTES, PublicKey
from canbroker.system.closing import Closing

_ASKED: Final = b"canbroker: your key? 1\n"
_ANSWERED: Final = b"canbroker: my key. 1\n"
_NONCE_BYTES: Final = 16
_QUESTION_BYTES: Final = 128

#: Questions that one call answers; others wait, or are dropped by the system.
_ANSWERS: Final = 32

#: How often a question is repeated: datagrams get lost.
_REPEAT_S: Final = 0.4

#: A name may have many addresses.
_MAX_ADDRESSES: Final = 8


def answer(question: bytes, key: PublicKey) -> bytes | None:
    """The answer to a datagram; ``None`` if it is not a question."""
    if len(question) != _QUESTION_BYTES or not question.startswith(_ASKED):
        return None
    nonce = question[len(_ASKED) : len(_ASKED) + _NONCE_BYTES]
    return _ANSWERED + nonce + key.raw


def key_in(reply: bytes, nonce: bytes) -> PublicKey | None:
    """The key in the answer to the question with ``nonce``; ``None`` if it is something else."""
    beginning = _ANSWERED + nonce
    if not reply.startswith(beginning) or len(reply) != len(beginning) + KEY_BYTES:
        return None
    try:
        return PublicKey(reply[len(beginning) :])
    except ValueError:
        return None


class KeyOffer(Closing):
    """Answers questions for a broker's key, when :meth:`answer` is called. One thread."""

    def __init__(self, host: str, port: int, key: PublicKey) -> None:
        """:param host: as the gateway's TCP socket: a local address, or ``*`` for all.
        :raises CanInitializationError: another program has that UDP port, or there is no such
            address.
        """
        self._key = key
        try:
            self._socket = _bound(host, port)
        except OSError as error:
            raise CanInitializationError(
                f"cannot tell clients the broker's key at UDP port {port} of {host}: "
                f"{error.strerror}"
            ) from error

    def fileno(self) -> int:
        """Readable when there may be questions."""
        return self._socket.fileno()

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    def answer(self) -> None:
        """Answers the questions that have arrived, some of them if there are many. Never waits."""
        for _ in range(_ANSWERS):
            try:
                question, peer = self._socket.recvfrom(_QUESTION_BYTES + 1)
                reply = answer(question, self._key)
                if reply is not None:
                    self._socket.sendto(reply, peer)
            except BlockingIOError:
                return
            except OSError:  # the asker is gone, or cannot be reached
                continue

    def close(self) -> None:
        self._socket.close()


def ask_for_key(host: str, port: int, timeout: float) -> PublicKey | None:
    """The key that the broker at ``host`` says to have; ``None`` if none answers in time.

    Anybody on the way may have answered: show the key to somebody who can compare it.

    :param timeout: seconds.
    :raises CanInitializationError: the name does not resolve.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise CanInitializationError(f"host {host!r} does not resolve: {error.strerror}") from error
    except UnicodeError as error:  # no resolver takes such a name
        raise CanInitializationError(f"{host!r} is not the name of a host") from error
    nonce = secrets.token_bytes(_NONCE_BYTES)
    question = (_ASKED + nonce).ljust(_QUESTION_BYTES, b"\0")
    with ExitStack() as stack:
        asking = []
        for family, _, _, _, address in found[:_MAX_ADDRESSES]:
            with suppress(OSError):  # this machine has no route by that family
                asked = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
                asked.setblocking(False)
                asked.connect(address)
                asking.append(asked)
        return _await_key(asking, question, nonce, time.monotonic() + timeout)


def _await_key(
    asking: Sequence[socket.socket], question: bytes, nonce: bytes, deadline: float
) -> PublicKey | None:
    by_descriptor = {each.fileno(): each for each in asking}
    with selectors.DefaultSelector() as selector:
        for descriptor in by_descriptor:
            selector.register(descriptor, selectors.EVENT_READ)
        again = 0.0
        while by_descriptor and (now := time.monotonic()) < deadline:
            if now >= again:
                again = now + _REPEAT_S
                for each in by_descriptor.values():
                    with suppress(OSError):  # what the question before it met is told now
                        each.send(question)
            for ready, _ in selector.select(min(again, deadline) - now):
                try:
                    reply = by_descriptor[ready.fd].recv(_QUESTION_BYTES)
                except BlockingIOError:
                    continue
                except OSError:  # nobody listens there
                    selector.unregister(ready.fd)
                    del by_descriptor[ready.fd]
                    continue
                found = key_in(reply, nonce)
                if found is not None:
                    return found
    return None


def _bound(host: str, port: int) -> socket.socket:
    """:raises OSError: it is taken, or not an address of this machine."""
    if host != "*":
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    else:
        everywhere = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - as asked for
        family = socket.AF_INET6 if ":" in everywhere else socket.AF_INET
        address = (everywhere, port)
    with ExitStack() as on_error:
        bound = on_error.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        if host == "*" and family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.setblocking(False)
        bound.bind(address)
        on_error.pop_all()
    return bound
