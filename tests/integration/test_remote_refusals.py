"""A remote client that cannot connect says why within seconds, each reason in its own words."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Final

import pytest

from canbroker import Bus, CanInitializationError, CanOperationError
from canbroker.bus.brokers import remote_broker
from canbroker.keys.identity import KEY_VARIABLE
from canbroker.transport.curve import new_pair
from canbroker.transport.sockets import SharedContext
from tests.support.brokers import private_runtime
from tests.support.remote import Lab, free_port, lab
from tests.support.rough_link import RoughLink

#: "Within seconds" on a machine that does other things, too. Nobody who waits knows less before.
SECONDS: Final = 15


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with private_runtime() as runtime, lab(runtime, tmp_path_factory.mktemp("keys")) as opened:
        yield opened


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def refusal(address: str) -> str:
    """What a program is told that cannot connect."""
    began = time.monotonic()
    with pytest.raises(CanInitializationError) as caught:
        Bus("x", "virtual", broker=address).shutdown()
    assert time.monotonic() - began < SECONDS
    return str(caught.value)


def with_another_key(bench: Lab) -> str:
    return bench.address.replace(str(bench.key), str(new_pair()[0]))


def test_a_key_that_is_not_authorized(bench: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, secret = new_pair()
    monkeypatch.setenv(KEY_VARIABLE, secret.reveal_text())
    text = refusal(bench.address)
    assert "does not know this key" in text
    assert f"canbroker keys authorize NAME {ours}" in text, "what the administrator has to do"
    assert secret.reveal_text() not in text


def test_another_broker_than_the_one_that_is_known(bench: Lab) -> None:
    text = refusal(with_another_key(bench))
    assert "does not have the key that is known for it" in text
    assert "canbroker keys trust" in text


def test_a_client_without_encryption(bench: Lab) -> None:
    assert "do not agree on encryption" in refusal(bench.address.replace(str(bench.key), "none"))


def silent(stack: ExitStack) -> str:
    """The address of a server that is no canbroker, and says nothing."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return f"tcp://127.0.0.1:{server.getsockname()[1]}?key={new_pair()[0]}"


def test_something_that_never_says_a_word(bench: Lab, stack: ExitStack) -> None:
    assert "not a canbroker" in refusal(silent(stack))


def test_a_web_server(bench: Lab, stack: ExitStack) -> None:
    server = stack.enter_context(HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    stack.callback(thread.join)
    stack.callback(server.shutdown)
    assert "not a canbroker" in refusal(f"tcp://127.0.0.1:{server.server_port}?key={bench.key}")


def test_something_that_hangs_up(bench: Lab, stack: ExitStack) -> None:
    """As a broker does whose key is another one: no more can be said."""
    link = stack.enter_context(RoughLink(("127.0.0.1", free_port())))
    host, port = link.address
    assert "somebody else answers" in refusal(f"tcp://{host}:{port}?key={bench.key}")


def test_nobody_listens(bench: Lab) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    text = refusal(f"{address}?key={bench.key}")
    assert "nobody listens" in text
    assert address in text


def test_a_name_that_does_not_resolve(bench: Lab) -> None:
    text = refusal(f"tcp://bench.invalid:5655?key={bench.key}")
    assert "resolve" in text
    assert "bench.invalid" in text


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("tcp://bench1", "port"),
        ("tcp://:5655", "host"),
        ("tcp://bench1:five", "five"),
        ("tcp://bench1:70000", "70000"),
        ("tcp://2001:db8::7:5655", "brackets"),
        ("udp://bench1:5655", "udp"),
        ("tcp://bench1:5655?key=cb1:short", "key"),
        ("tcp://bench1:5655?key=none", "unencrypted"),
    ],
)
def test_an_address_that_is_none(address: str, named: str) -> None:
    assert named in refusal(address)


def test_statistics_of_a_bus_that_another_thread_has_shut_down(bench: Lab) -> None:
    for _ in range(5):
        bus = Bus("x", "virtual", broker=bench.address)
        asks = threading.Event()

        def shut_down(bus: Bus = bus, asks: threading.Event = asks) -> None:
            asks.wait()
            bus.shutdown()

        thread = threading.Thread(target=shut_down)
        thread.start()
        deadline = time.monotonic() + SECONDS
        while thread.is_alive() and time.monotonic() < deadline:
            assert bus.stats.lost == 0
            asks.set()
        thread.join()
        stats = bus.stats
        assert (stats.lost, stats.sent) == (0, 0)
        assert stats.round_trip is not None, "the last that was measured"


def test_a_thread_that_waits_when_another_one_closes_the_connection(
    bench: Lab, stack: ExitStack
) -> None:
    context = SharedContext()
    stack.callback(context.close)
    broker = remote_broker(silent(stack), context)
    assert broker is not None
    told: list[str] = []
    begins = threading.Event()

    def meet() -> None:
        begins.set()
        with pytest.raises(CanOperationError) as caught:
            broker.meet()
        told.append(str(caught.value))

    thread = threading.Thread(target=meet)
    thread.start()
    begins.wait()
    broker.close()
    thread.join(SECONDS)
    assert told == ["the connection to the broker is closed"]
    broker.close()
    assert broker.distance() is None
