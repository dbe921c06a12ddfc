"""Requests over real sockets: every one is answered, whatever it is, and the server lives on."""

from __future__ import annotations

import logging
import queue
import random
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgpack
import msgspec
import pytest
import zmq

from canbroker.system import clock
from canbroker.system.throttle import Throttle
from canbroker.system.wake import Wake
from canbroker.transport.address import parse_ipc
from canbroker.transport.calls import ControlError, call
from canbroker.transport.links import KeepingLink, Link
from canbroker.transport.replier import Caller, Replier
from canbroker.transport.routers import Router, router
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import Waiter
from canbroker.wire import MAX_MESSAGE_BYTES, WireError, control
from canbroker.wire.transmit import MAX_REPLY_BYTES, Status, decode_reply, encode_reply
from tests.support.brokers import wait_until
from tests.support.stations import DEADLINE_S, Station, numbered
from tests.support.systems import natively

# The tests' own sockets are Unix sockets; what the portable side refuses: test_fabric.py.
pytestmark = natively

#: What those send who don't know what listens.
SCANS = [
    b"",
    b"\0",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # TLS
    b"SSH-2.0-scan\r\n",
    b"\xff" * 4096,
    b"\xff\0\0\0\0\0\0\0\x01\x7f",  # the beginning of a ZMTP greeting, and no more
    b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL" + bytes(16 + 32) + b"\x02" + b"\x7f" + b"\xff" * 7,
    random.Random(4).randbytes(65536),
]


class Server:
    """A replier on a thread: ``hello`` answers at once, ``status`` when :attr:`later` is set."""

    def __init__(self, endpoint: str) -> None:
        self.refused = Throttle(logging.getLogger("test"))
        self.later = threading.Event()
        self._endpoint = endpoint
        self._stop = Wake()
        self._waiting: list[Caller] = []
        self._made: queue.Queue[None] = queue.Queue()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._made.get(timeout=DEADLINE_S)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._stop.close()

    def _run(self) -> None:
        context = Context()
        handlers = {"hello": self._hello, "status": self._status}
        replier = Replier(
            context, parse_ipc(self._endpoint), control.BROKER_METHODS, handlers, self.refused
        )
        waiter = Waiter()
        replier.watch(waiter)
        waiter.add(self._stop)
        self._made.put(None)
        while self._stop not in waiter.wait(10 * clock.MILLISECOND):
            replier.serve(waiter)
            while self._waiting and self.later.is_set():
                replier.reply(self._waiting.pop(), control.Discarded(2))
        replier.close()
        context.close()

    def _hello(self, caller: Caller, _: control.Params) -> msgspec.Struct:
        return control.Discarded(caller.request_id)

    def _status(self, caller: Caller, _: control.Params) -> None:
        self._waiting.append(caller)


@pytest.fixture
def server(endpoint: str) -> Iterator[Server]:
    server = Server(endpoint)
    yield server
    server.close()


def ask(context: Context, endpoint: str, method: str = "hello") -> control.Discarded | None:
    deadline = clock.deadline_after(DEADLINE_S)
    return call(context, parse_ipc(endpoint), method, control.Params(), control.Discarded, deadline)


@contextmanager
def dealer(endpoint: str) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.setsockopt(zmq.RCVTIMEO, int(DEADLINE_S * 1000))
        peer.setsockopt(zmq.LINGER, 0)
        peer.connect(endpoint)
        yield peer


def test_a_request_is_answered(context: Context, endpoint: str, server: Server) -> None:
    assert ask(context, endpoint) == control.Discarded(1)


def test_an_answer_may_come_later(context: Context, endpoint: str, server: Server) -> None:
    soon = clock.monotonic_ns() + 50 * clock.MILLISECOND
    params, kind = control.Params(), control.Discarded
    assert call(context, parse_ipc(endpoint), "status", params, kind, soon) is None
    server.later.set()  # the first caller has left: nobody's loss
    assert ask(context, endpoint, "status") == control.Discarded(2)


def test_nobody_answers_where_nobody_listens(context: Context, endpoint: str) -> None:
    soon = clock.monotonic_ns() + 20 * clock.MILLISECOND
    assert (
        call(context, parse_ipc(endpoint), "hello", control.Params(), control.Nothing, soon) is None
    )


def test_an_unknown_method_is_named(context: Context, endpoint: str, server: Server) -> None:
    with pytest.raises(ControlError, match="unknown method 'halt'; there are: hello") as caught:
        ask(context, endpoint, "halt")
    assert caught.value.code == "malformed"
    assert server.refused.counts.total() == 1
    assert ask(context, endpoint) is not None


def test_a_result_of_another_kind_is_refused(
    context: Context, endpoint: str, server: Server
) -> None:
    deadline = clock.deadline_after(DEADLINE_S)
    with pytest.raises(WireError, match="reply to 'hello'"):
        call(
            context,
            parse_ipc(endpoint),
            "hello",
            control.Params(),
            control.HelloResult,
            deadline,
        )


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"", b""],
        [b"garbage"],
        [b"\xc1"],
        [msgpack.packb([1, -1, "hello", {}])],
        [msgpack.packb([1, 1.0, "hello", {}])],
        [msgpack.packb([9, 1, "hello", {}])],
        [msgpack.packb({"method": "hello"})],
        [msgpack.packb([1, 7, "hello", {}])] * 2,
        [b"\x91" * 100_000],
        [random.Random(7).randbytes(1000)],
    ],
)
def test_what_cannot_be_read_is_answered_too(
    context: Context, endpoint: str, server: Server, parts: list[bytes]
) -> None:
    with dealer(endpoint) as peer:
        peer.send_multipart(parts)
        version, request_id, ok, error = msgpack.unpackb(peer.recv())
        assert (version, request_id, ok, error["code"]) == (1, 0, False, "malformed")
        assert error["message"]
        good = msgpack.packb([1, 7, "hello", {}])
        peer.send(good)  # the same connection goes on
        assert msgpack.unpackb(peer.recv()) == [1, 7, True, {"count": 7}]
    assert server.refused.counts.total() == 1
    assert ask(context, endpoint) is not None


@pytest.mark.parametrize(
    "params", [{"client_id": b"c1"}, {"client_id": "c\xff1"}, {"client_id": "c1\n"}, {"x": 1}, []]
)
def test_wrong_parameters_are_answered(
    context: Context, endpoint: str, server: Server, params: object
) -> None:
    body = msgpack.packb([1, 3, "detach", params]).replace("\xff".encode(), b"\xff\xff")
    with dealer(endpoint) as peer:
        peer.send(body)
        assert msgpack.unpackb(peer.recv())[:3] == [1, 3, False]
    assert ask(context, endpoint) is not None


def test_a_message_that_is_too_large_ends_its_connection_only(
    context: Context, endpoint: str, server: Server
) -> None:
    with dealer(endpoint) as peer:
        monitor = peer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        peer.send(bytes(MAX_MESSAGE_BYTES + 1))
        assert monitor.poll(int(DEADLINE_S * 1000)), "the connection is closed"
        peer.disable_monitor()
        monitor.close()
    assert ask(context, endpoint) is not None
    assert not server.refused.counts


def scan(endpoint: str) -> None:
    """Throws bytes at a socket, as a port scanner does, and waits for what comes of it."""
    for data in SCANS:
        with socket.socket(socket.AF_UNIX) as scanner:
            scanner.settimeout(DEADLINE_S)
            scanner.connect(endpoint.removeprefix("ipc://"))
            try:
                scanner.sendall(data)
                scanner.shutdown(socket.SHUT_WR)
                while scanner.recv(4096):
                    pass
            except (BrokenPipeError, ConnectionResetError):
                continue  # it has hung up, as it should


def test_a_port_scanner_is_nobodys_trouble(context: Context, endpoint: str, server: Server) -> None:
    with dealer(endpoint) as peer:
        peer.send(msgpack.packb([1, 1, "hello", {}]))
        peer.recv()
        scan(endpoint)
        peer.send(msgpack.packb([1, 2, "hello", {}]))
        assert msgpack.unpackb(peer.recv())[1] == 2
    assert ask(context, endpoint) is not None


def test_a_port_scanner_on_a_stream(endpoint: str) -> None:
    with Station(endpoint) as station, zmq.Context() as context:
        with context.socket(zmq.SUB) as subscriber:
            subscriber.setsockopt(zmq.RCVTIMEO, int(DEADLINE_S * 1000))
            subscriber.connect(endpoint)
            subscriber.subscribe(b"can0/rx;")
            wait_until(lambda: station.routes() == 1, "the route is open")
            scan(endpoint)
            station.publish(numbered([0]))
            bodies = iter(lambda: msgpack.unpackb(subscriber.recv_multipart()[1]), None)
            assert next(body for body in bodies if body[1] == 0)[5] == [[1, 0, 0, bytes(4)]]
        wait_until(lambda: station.routes() == 0, "only it was there")


def next_request(intake: Router, waiter: Waiter) -> tuple[bytes, Sequence[bytes]]:
    while (request := intake.receive()) is None:
        assert waiter.wait(int(DEADLINE_S) * clock.SECOND)
    return request


def test_the_transmit_path(context: Context, endpoint: str) -> None:
    intake = router(context, parse_ipc(endpoint), Throttle(logging.getLogger("test")))
    link = Link(context, parse_ipc(endpoint))
    wake = Wake()
    waiter = Waiter()
    intake.watch(waiter)
    try:
        assert intake.receive() is None
        assert link.receive() is None
        for number in range(3):
            assert link.send(bytes([number]))
        requests = [next_request(intake, waiter) for _ in range(3)]
        assert [parts for _, parts in requests] == [[b"\0"], [b"\1"], [b"\2"]]
        intake.reply(b"nobody", b"lost")
        intake.reply(requests[0][0], b"answer")
        link.wait(wake, int(DEADLINE_S) * clock.SECOND)
        assert link.receive() == b"answer"
        wake.set()
        link.wait(wake, None)  # is woken, though no answer comes
    finally:
        link.close()
        intake.close()
        wake.close()


def test_a_request_may_have_several_parts(context: Context, endpoint: str) -> None:
    intake = router(context, parse_ipc(endpoint), Throttle(logging.getLogger("test")))
    waiter = Waiter()
    intake.watch(waiter)
    with dealer(endpoint) as peer:
        peer.send_multipart([b"one", b"two"])
        _, parts = next_request(intake, waiter)
        assert parts == [b"one", b"two"]
    intake.close()


class StruckSocket:
    """A socket that receives, and then a signal handler raises."""

    def __init__(self, inner: zmq.Socket[bytes]) -> None:
        self._inner = inner

    def getsockopt(self, option: int) -> object:
        return self._inner.getsockopt(option)

    def recv_into(self, buffer: bytearray, *, flags: int) -> int:
        self._inner.recv_into(buffer, flags=flags)
        raise KeyboardInterrupt


def test_a_reply_is_kept_until_it_is_done(
    context: Context, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = encode_reply(1, Status.DEVICE_GONE, 0, 1, "\U0001f68c" * 4096, [*range(1024)])
    replies = [
        longest,
        encode_reply(2, Status.OK, 1, 1),
        b"\xc1 nothing",
        encode_reply(3, Status.OK, 1, 1),
    ]
    intake = router(context, parse_ipc(endpoint), Throttle(logging.getLogger("test")))
    link = KeepingLink(context, parse_ipc(endpoint), MAX_REPLY_BYTES)

    def next_reply(*, struck: bool) -> bytes | None:
        with monkeypatch.context() as patch:
            if struck:
                patch.setattr(link, "socket", StruckSocket(link.socket))
            try:
                return link.receive()
            except KeyboardInterrupt:
                return link.receive()

    try:
        assert link.receive() is None
        assert link.send(b"hello")
        waiter = Waiter()
        intake.watch(waiter)
        identity, _ = next_request(intake, waiter)
        for struck in (False, True):
            for reply in replies:
                intake.reply(identity, reply)
                link.wait(None, int(DEADLINE_S * clock.SECOND))
                for _ in range(2):  # as who was interrupted before it was done
                    kept = next_reply(struck=struck)
                    assert kept is not None
                    if reply[0] == 0xC1 and struck:
                        with pytest.raises(WireError):
                            decode_reply(kept)
                    else:
                        assert kept == reply
                link.done()
            assert link.receive() is None
    finally:
        link.close()
        intake.close()
