"""A listening Unix socket without libzmq: whoever connects, and whatever they send."""

from __future__ import annotations

import errno
import os
import random
import socket as sockets
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

from canbroker.errors import CanInitializationError
from canbroker.system import clock, unix_sockets
from canbroker.system.portable import PORTABLE
from canbroker.transport import ipc_listener, kept_out
from canbroker.transport.address import IpcAddress
from canbroker.transport.ipc_listener import IpcListener
from canbroker.transport.ipc_peer import IpcPeer
from canbroker.transport.kept_out import KeptOut
from canbroker.transport.listening import LOOK_NS
from canbroker.transport.waiter import Waiter
from canbroker.transport.zmtp import encode, encode_topic, opening
from canbroker.wire import MAX_MESSAGE_BYTES

pytestmark = pytest.mark.skipif(PORTABLE, reason="sockets are not Unix sockets")

PATIENCE_NS = 20 * clock.SECOND
HELLO = opening("DEALER")


class Hall:
    """A listener, and what it has taken. ``now`` is its clock, if it is set."""

    def __init__(self, path: Path, kept: KeptOut | None = None) -> None:
        self.path = path
        self.messages: list[list[bytes]] = []
        self.senders: list[IpcPeer] = []
        self.kept = kept or KeptOut()
        self.listener = IpcListener(
            IpcAddress(path), "ROUTER", {b"DEALER", b"REQ"}, self.kept, MAX_MESSAGE_BYTES
        )
        self.waiter = Waiter()
        self.waiter.add(self.listener)

    def serve(self, until: Callable[[], object]) -> None:
        """Takes one message after each wait until something is so."""
        end = clock.monotonic_ns() + PATIENCE_NS
        while not until():
            assert clock.monotonic_ns() < end
            if self.waiter.wait(clock.SECOND // 100):
                self.take()

    def take(self) -> None:
        taken = self.listener.take()
        if taken is not None:
            self.senders.append(taken[0])
            self.messages.append(taken[1])

    def quiet(self) -> None:
        """Takes all that is there."""
        while self.waiter.wait(0):
            self.take()

    def connect(self, first: bytes = b"") -> sockets.socket:
        """A connection of this process, without libzmq."""
        made = sockets.socket(sockets.AF_UNIX)
        made.settimeout(20)
        made.connect(str(self.path))
        made.sendall(first)
        return made


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    made = Hall(tmp_path / "socket")
    yield made
    made.listener.close()


def is_open(end: sockets.socket) -> bool:
    """Whether the other end has it open. Takes away what has arrived."""
    end.setblocking(False)
    try:
        while end.recv(65_536):
            pass
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
    return False


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 3, 70, 100_000])
def test_messages_arrive_in_pieces_of_any_size(hall: Hall, size: int) -> None:
    sent = [[b"a"], [b"", b"b" * 300], [b"c" * 400], [b""]]
    data = HELLO + b"".join(
        b"".join(map(encode_topic, topics)) + encode(body) for *topics, body in sent
    )
    with hall.connect() as peer:
        for piece in pieces(data, size):
            peer.sendall(piece)
            hall.quiet()
        hall.serve(lambda: len(hall.messages) == len(sent))
    assert hall.messages == sent


def test_a_waiter_reports_it_until_everything_was_taken(hall: Hall) -> None:
    with hall.connect(HELLO + b"".join(encode(b"%d" % number) for number in range(100))):
        hall.serve(lambda: hall.messages)
        while len(hall.messages) < 100:
            assert hall.waiter.wait(0) == {hall.listener}
            assert hall.listener.has_more
            hall.take()
        assert not hall.listener.has_more
        hall.quiet()
        assert hall.messages == [[b"%d" % number] for number in range(100)]


def test_peers_take_turns(hall: Hall) -> None:
    many = HELLO + b"".join(encode(b"flood") for _ in range(20_000))
    with hall.connect(HELLO) as flood, hall.connect(HELLO) as other:
        flood.setblocking(False)
        with suppress(BlockingIOError):
            flood.sendall(many[len(HELLO) :])
        other.sendall(encode(b"me"))
        hall.serve(lambda: [b"me"] in hall.messages)
        assert len(hall.messages) < 20


def test_who_never_pauses_holds_up_nobody(hall: Hall) -> None:
    """The first one has always more, as it sends whenever there is room for it."""
    many = encode(bytes(90)) * 2_000
    with hall.connect(HELLO) as flood, hall.connect(HELLO) as other:
        flood.setblocking(False)
        hall.quiet()

        def heard() -> bool:
            with suppress(BlockingIOError):
                flood.sendall(many)
            hall.take()
            return [b"me"] in hall.messages

        heard()
        other.sendall(encode(b"me"))
        hall.serve(heard)
        assert len(hall.messages) < 300


def test_who_sends_something_else_is_hung_up_on(hall: Hall) -> None:
    chance = random.Random(7)
    wrong = [
        b"GET / HTTP/1.1\r\n\r\n",
        HELLO[:64] + encode(b"before READY"),
        opening("SUB"),
        HELLO + b"\x02" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big"),
        HELLO + b"\xff\xff",
        HELLO + encode_topic(b"") * 65,
        HELLO[:32].replace(b"NULL", b"PLAIN") + HELLO[32:],
        *(chance.randbytes(200) for _ in range(20)),
        *(HELLO + b"\x08" + chance.randbytes(200) for _ in range(20)),
    ]
    with hall.connect(HELLO + encode(b"first")) as good:
        hall.serve(lambda: hall.messages)
        for data in wrong:
            with hall.connect(data) as peer:
                hall.serve(lambda: not is_open(peer))
        good.sendall(encode(b"goes on"))
        hall.serve(lambda: len(hall.messages) == 2)
        assert len(hall.listener) == 1


def test_random_bytes_at_any_time_are_nobodys_trouble(hall: Hall) -> None:
    chance = random.Random(24)
    valid = HELLO + encode(b"one") + encode_topic(b"two") + encode(b"three")
    for _ in range(200):
        data = bytearray(valid)
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        with hall.connect() as peer:
            for piece in pieces(bytes(data[: chance.randrange(len(data))]), 40):
                with suppress(BrokenPipeError, ConnectionResetError):
                    peer.sendall(piece)
                hall.quiet()
    hall.quiet()
    assert len(hall.listener) == 0
    with hall.connect(HELLO + encode(b"at last")):
        hall.serve(lambda: hall.messages[-1:] == [[b"at last"]])


def test_what_was_sent_before_the_end_is_taken(hall: Hall) -> None:
    with hall.connect(HELLO + encode(b"1") + encode(b"2")) as peer:
        peer.shutdown(sockets.SHUT_RDWR)
    hall.serve(lambda: len(hall.messages) == 2)
    hall.serve(lambda: not len(hall.listener))


def test_who_does_not_read_gets_so_many_messages_and_nobody_waits(hall: Hall) -> None:
    body = bytes(10_000)
    with hall.connect(HELLO + encode(b"hello")) as slow:
        hall.serve(lambda: hall.messages)
        (peer,) = hall.senders
        for number in range(1_000):
            hall.listener.send(peer, encode(number.to_bytes(2, "big") + body), 100)
        received = b""
        slow.setblocking(False)

        def read() -> bool:
            nonlocal received
            with suppress(BlockingIOError):
                received += slow.recv(1 << 20)
            return not peer.has_waiting

        hall.serve(read)
        while read() and (len(received) - len(HELLO.replace(b"DEALER", b"ROUTER"))) % 10_011:
            pass
        stream = received[len(HELLO) :]
        numbers = [
            int.from_bytes(stream[at + 9 : at + 11], "big") for at in range(0, len(stream), 10_011)
        ]
        assert numbers == list(range(len(numbers))), "those that came too late are left out"
        assert 100 < len(numbers) < 300
        hall.listener.send(peer, encode(b"again"), 100)
        hall.serve(lambda: read() and received.endswith(encode(b"again")))


def test_who_reads_no_more_costs_nothing(hall: Hall) -> None:
    with hall.connect(HELLO + encode(b"hello")) as deaf:
        hall.serve(lambda: hall.messages)
        deaf.shutdown(sockets.SHUT_RD)
        for _ in range(3):
            hall.listener.send(hall.senders[0], encode(b"unheard"), 100)
        hall.quiet()
        assert not hall.senders[0].has_waiting
        deaf.sendall(encode(b"is heard"))
        hall.serve(lambda: hall.messages[-1] == [b"is heard"])


def test_a_copy_of_a_connection_that_has_ended_keeps_nobody_busy(hall: Hall) -> None:
    """A process that a driver has forked may have one."""
    with hall.connect(HELLO + encode(b"hello")) as peer:
        hall.serve(lambda: hall.messages)
        with sockets.socket(fileno=os.dup(hall.senders[0].number)):
            peer.close()
            hall.serve(lambda: not len(hall.listener))
            assert not hall.waiter.wait(0)


def test_what_waits_is_sent_at_the_end(tmp_path: Path) -> None:
    hall = Hall(tmp_path / "socket")
    with hall.connect(HELLO + encode(b"hello")) as peer:
        hall.serve(lambda: hall.messages)
        for _ in range(50):
            hall.listener.send(hall.senders[0], encode(bytes(10_000)), 100)
        assert hall.senders[0].has_waiting
        received: list[bytes] = []
        reading = threading.Thread(
            target=lambda: received.extend(iter(lambda: peer.recv(65_536), b""))
        )
        reading.start()
        hall.listener.close()
        reading.join()
    assert b"".join(received).endswith(encode(bytes(10_000)) * 50)


# ------------------------------------------------------------------------------------ the file


def test_a_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        CanInitializationError, match=f"cannot listen on ipc://{tmp_path}/no/socket"
    ):
        Hall(tmp_path / "no" / "socket")


def test_a_file_of_a_predecessor_is_replaced_and_that_of_a_successor_left(tmp_path: Path) -> None:
    former = Hall(tmp_path / "socket")
    present = Hall(tmp_path / "socket")
    former.listener.close()
    with present.connect(HELLO + encode(b"hello")):
        present.serve(lambda: present.messages)
    present.listener.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_removed_is_there_again(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hall.connect(HELLO + encode(b"1")) as former:
        hall.serve(lambda: hall.messages)
        hall.listener.attend()
        hall.path.unlink()
        later(monkeypatch, LOOK_NS)
        hall.listener.attend()
        with hall.connect(HELLO + encode(b"2")):
            former.sendall(encode(b"3"))
            hall.serve(lambda: len(hall.messages) == 3)


def later(monkeypatch: pytest.MonkeyPatch, ns: int) -> None:
    now = clock.monotonic_ns
    monkeypatch.setattr(clock, "monotonic_ns", lambda: now() + ns)


# ---------------------------------------------------------------------------------- its bounds


def test_who_does_not_say_who_it_is_has_to_go(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    with hall.connect(HELLO[:-1]) as half, hall.connect(HELLO + encode(b"hello")) as good:
        hall.serve(lambda: hall.messages)
        assert len(hall.listener) == 2
        later(monkeypatch, 31 * clock.SECOND)
        hall.listener.attend()
        assert (is_open(half), is_open(good)) == (False, True)


def test_others_wait_until_there_is_room(hall: Hall, caplog: pytest.LogCaptureFixture) -> None:
    hall.listener.at_most = 2
    first, second = hall.connect(HELLO), hall.connect(HELLO)
    hall.serve(lambda: len(hall.listener) == 2)
    assert not hall.path.exists()
    assert "have to wait: it has 2" in caplog.text
    first.close()
    hall.serve(hall.path.exists)
    with hall.connect(HELLO + encode(b"me")):
        hall.serve(lambda: hall.messages)
    second.close()


def test_no_descriptor_is_left(
    hall: Hall, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: object) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(ipc_listener, "accepted", fails)
    with hall.connect(HELLO + encode(b"hello")):
        hall.serve(lambda: "have to wait: [Errno 24]" in caplog.text)
        assert not hall.waiter.wait(0), "it does not try without end"
        monkeypatch.setattr(ipc_listener, "accepted", unix_sockets.accepted)
        later(monkeypatch, LOOK_NS)
        hall.listener.attend()
        hall.serve(lambda: hall.messages)


def test_a_process_that_is_kept_out_waits(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    hall.kept.add(os.getpid(), clock.monotonic_ns())
    with hall.connect(HELLO + encode(b"hello")) as peer:
        hall.serve(lambda: len(hall.listener))
        hall.quiet()
        assert hall.messages == []
        assert hall.listener.peers() == []
        assert is_open(peer)
        later(monkeypatch, (kept_out.KEPT_OUT_S + 1) * clock.SECOND)
        hall.listener.attend()
        hall.serve(lambda: hall.messages)
        assert hall.listener.peers() == [os.getpid()]


def test_of_a_process_that_is_kept_out_not_all_connections_wait(hall: Hall) -> None:
    hall.kept.add(os.getpid(), clock.monotonic_ns())
    hall.listener.at_most = 8
    connections = [hall.connect() for _ in range(5)]
    hall.serve(lambda: len(hall.listener) == 2)
    hall.quiet()
    assert sorted(map(is_open, connections)) == [False] * 3 + [True] * 2
    for connection in connections:
        connection.close()


def test_libzmq_pings_and_stays(hall: Hall) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.setsockopt(zmq.LINGER, 0)
        peer.setsockopt(zmq.HEARTBEAT_IVL, 20)
        peer.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2_000)
        events = peer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        peer.connect(f"ipc://{hall.path}")
        until = clock.monotonic_ns() + 3 * clock.SECOND
        hall.serve(lambda: clock.monotonic_ns() > until)
        assert not events.poll(0), "it is answered"
        peer.disable_monitor()
        events.close()
