"""A broker tells its key to whoever asks, and to nobody more than was asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.errors import CanInitializationError
from canbroker.keys import offer
from canbroker.keys.offer import KeyOffer, answer, ask_for_key, key_in
from canbroker.model.key import PublicKey

KEY = PublicKey(bytes([7]) * 32)
NONCE = bytes(range(16))
QUESTION = (b"canbroker: your key? 1\n" + NONCE).ljust(128, b"\0")


@contextmanager
def answering(host: str = "127.0.0.1", drop: int = 0) -> Iterator[KeyOffer]:
    """An offer that a thread serves. It loses the first ``drop`` questions."""
    end = threading.Event()

    def serve() -> None:
        lost = 0
        while not end.wait(0.005):
            while lost < drop:
                try:
                    made._socket.recv(200)
                except BlockingIOError:
                    break
                lost += 1
            else:
                made.answer()

    with KeyOffer(host, 0, KEY) as made:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield made
        finally:
            end.set()
            thread.join()


# ----------------------------------------------------------------------------------------- texts


def test_an_answer_is_shorter_than_the_question_and_carries_its_nonce() -> None:
    reply = answer(QUESTION, KEY)
    assert reply is not None
    assert len(reply) < len(QUESTION)
    assert key_in(reply, NONCE) == KEY
    assert key_in(reply, bytes(16)) is None


@pytest.mark.parametrize(
    "question",
    [b"", QUESTION[:-1], QUESTION + b"\0", b"C" + QUESTION[1:], QUESTION.replace(b"? 1", b"? 2")],
)
def test_what_is_not_a_question_gets_no_answer(question: bytes) -> None:
    assert answer(question, KEY) is None


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_neither_question_nor_answer(data: bytes) -> None:
    assert answer(data, KEY) is None
    assert key_in(data, NONCE) is None
    assert key_in(b"canbroker: my key. 1\n" + NONCE + data[:31], NONCE) is None


def test_a_key_that_is_none_is_not_an_answer() -> None:
    assert key_in(b"canbroker: my key. 1\n" + NONCE + bytes(32), NONCE) is None


# --------------------------------------------------------------------------------------- sockets


@pytest.mark.parametrize(
    ("listens", "asked"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
        ("*", "127.0.0.1"),
        ("*", "::1"),
        ("::1", "::1"),
        ("localhost", "localhost"),
    ],
)
def test_who_asks_is_told_the_key(listens: str, asked: str) -> None:
    with answering(listens) as made:
        assert ask_for_key(asked, made.port, 10) == KEY


def test_a_question_that_is_lost_is_repeated() -> None:
    with answering(drop=1) as made:
        assert ask_for_key("127.0.0.1", made.port, 10) == KEY


def test_nobody_answers() -> None:
    with KeyOffer("127.0.0.1", 0, KEY) as silent:
        assert ask_for_key("127.0.0.1", silent.port, 0.1) is None
        port = silent.port
    assert ask_for_key("127.0.0.1", port, 10) is None, "and the kernel says so at once"


def test_a_flood_of_nonsense_does_not_hold_the_loop() -> None:
    with KeyOffer("127.0.0.1", 0, KEY) as made, socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.connect(("127.0.0.1", made.port))
        for _ in range(100):
            peer.send(b"x" * 60_000)
        for _ in range(100 // offer._ANSWERS + 1):
            made.answer()
        peer.send(QUESTION)
        made.answer()
        peer.settimeout(10)
        assert key_in(peer.recv(1000), NONCE) == KEY


def test_a_name_that_does_not_resolve() -> None:
    for name in ("no.such.host.invalid", "x" * 70):
        with pytest.raises(CanInitializationError, match=name):
            ask_for_key(name, 5655, 1)


def test_a_port_that_is_taken() -> None:
    with KeyOffer("127.0.0.1", 0, KEY) as first:
        said = (
            f"cannot tell clients the broker's key at UDP port {first.port} of 127.0.0.1: Address"
        )
        with pytest.raises(CanInitializationError, match=said):
            KeyOffer("127.0.0.1", first.port, KEY)
