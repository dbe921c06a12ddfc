"""A serial adapter that misbehaves, seen by the clients of the broker that owns it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from canbroker import Bus, BusState, CanInitializationError, CanOperationError, Message
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, stop_broker, wait_until
from tests.support.simulated import Simulated

pytestmark = pytest.mark.long


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Simulated]:
    with Simulated(tmp_path) as simulated:
        yield simulated


@pytest.fixture
def link(adapter: Simulated) -> str:
    """The adapter's path, which stays the same when it is plugged in again."""
    return adapter.link


def frame(identifier: int, data: bytes = b"") -> Message:
    return Message(arbitration_id=identifier, data=data, is_extended_id=False)


def test_unplugged_and_plugged_in_again(runtime: Runtime, adapter: Simulated, link: str) -> None:
    with Bus(link, "slcan", bitrate=500_000) as bus:
        bus.send(frame(0x100), timeout=10)
        adapter.command("unplug")
        wait_until(lambda: bus.state is BusState.ERROR, "the bus knows")
        with pytest.raises(CanOperationError, match=r"101#.*gone"):
            bus.send(frame(0x101))
        adapter.replug()
        wait_until(lambda: bus.state is BusState.ACTIVE, "the adapter is open again")
        adapter.command("inject t2221AB")
        message = bus.recv(10)
        assert message is not None
        assert message.arbitration_id == 0x222
        bus.send(frame(0x102), timeout=10)
        assert adapter.accepted() == ["100#", "102#"], "nothing stale was sent"
        assert bus.stats.restarts == 0, "the actor lives on"


def test_what_was_on_its_way_when_it_was_unplugged_is_reported(
    runtime: Runtime, adapter: Simulated, link: str
) -> None:
    with Bus(link, "slcan", bitrate=10_000) as bus:
        for number in range(300):
            bus.send(frame(number, bytes(8)))
        adapter.command("unplug")
        with pytest.raises(CanOperationError, match=r"was not sent: .*gone.*and \d+ more"):
            bus.flush(20)
        stats = bus.stats
        assert stats.sent + stats.failed == 300
        assert stats.failed > 0


def test_a_hung_adapter_is_given_up_and_opened_again(
    runtime: Runtime, adapter: Simulated, link: str
) -> None:
    with Bus(link, "slcan", bitrate=500_000) as bus:
        adapter.command("hang 3")
        bus.send(frame(0x100))
        with pytest.raises(CanOperationError, match=r"100#.*did not acknowledge"):
            bus.flush(20)
        wait_until(lambda: bus.state is BusState.ACTIVE, "it is open again", timeout=30)
        bus.send(frame(0x101), timeout=10)


def test_listen_only_by_state_and_back(runtime: Runtime, adapter: Simulated, link: str) -> None:
    with (
        Bus(link, "slcan", bitrate=500_000) as bus,
        Bus(link, "slcan") as other,
    ):
        bus.state = BusState.PASSIVE
        assert bus.state is BusState.PASSIVE
        wait_until(lambda: other.state is BusState.PASSIVE, "the others know")
        with pytest.raises(CanOperationError, match="listen-only"):
            other.send(frame(0x100), timeout=10)
        adapter.command("inject t2220")
        message = other.recv(10)
        assert message is not None
        bus.state = BusState.ACTIVE
        bus.send(frame(0x100), timeout=10)
        assert adapter.accepted() == ["100#"]


def test_noise_on_the_line_is_counted_and_nothing_else(
    runtime: Runtime, adapter: Simulated, link: str
) -> None:
    with Bus(link, "slcan", bitrate=500_000) as bus:
        for line in ("t12G0", "t1239", "x", "t123211", "t8000", "\xe9\xe9", "t1231AA"):
            adapter.command(f"inject {line}")
        message = bus.recv(10)
        assert message is not None
        assert bytes(message.data) == b"\xaa"
        wait_until(lambda: counted(runtime) >= 6, "each is counted")


def counted(runtime: Runtime) -> int:
    (channel,) = status_of(runtime).channels
    return sum(channel.state.counters.values()) if channel.state else 0


def test_a_channel_without_an_adapter_is_refused_by_name(runtime: Runtime, tmp_path: Path) -> None:
    not_an_adapter = tmp_path / "file"
    not_an_adapter.write_text("no adapter")
    with pytest.raises(CanInitializationError, match=str(not_an_adapter)):
        Bus(str(not_an_adapter), "slcan", bitrate=500_000)


def test_conflicting_parameters_of_a_second_opener(
    runtime: Runtime, adapter: Simulated, link: str
) -> None:
    with Bus(link, "slcan", bitrate=500_000):
        with pytest.raises(CanInitializationError, match=r"bitrate=500000.*bitrate=125000"):
            Bus(link, "slcan", bitrate=125_000)
        with pytest.raises(CanInitializationError, match=r"listen_only=False.*listen_only=True"):
            Bus(link, "slcan", listen_only=True)


# ------------------------------------------------------------------------- adapters in a network


class Remote:
    """A serial adapter behind a TCP port, as a terminal server has it. A context manager.

    It says yes to everything but what begins with ``refused``; ``heard`` is every command.
    """

    def __init__(self, refused: str = "nothing") -> None:
        self.heard: list[str] = []
        self.is_mute = False
        self._refused = refused
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.address = self._listener.getsockname()
        self.channel = "socket://{}:{}".format(*self.address)
        self._connection: socket.socket | None = None
        self._waiting: list[socket.socket] = []
        self._accept = threading.Event()
        self._accept.set()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._accept.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self.disconnect()
        self._thread.join()
        for one in (self._listener, *self._waiting):
            one.close()

    def disconnect(self) -> None:
        with suppress(OSError):  # the other side was first
            if (connection := self._connection) is not None:
                connection.shutdown(socket.SHUT_RDWR)

    def vanish(self) -> None:
        """Answers no connection any more: the queue of those that want one is full."""
        self._accept.clear()
        self.disconnect()
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(self.address)
            self._waiting.append(one)

    def _run(self) -> None:
        while self._accept.wait():
            try:
                self._connection, _ = self._listener.accept()
            except OSError:  # shut down
                return
            with self._connection, suppress(ConnectionError):
                self._serve(self._connection)
            self._connection = None

    def _serve(self, connection: socket.socket) -> None:
        unread = b""
        while data := connection.recv(4096):
            *lines, unread = (unread + data).split(b"\r")
            for line in lines:
                command = line.decode("ascii")
                self.heard.append(command)
                if not self.is_mute:
                    connection.sendall(self._answer(command))

    def _answer(self, command: str) -> bytes:
        answers = {"V": b"V1013\r", "N": b"NA123\r"}
        return b"\a" if command.startswith(self._refused) else answers.get(command, b"\r")


def reason_of(bus: Bus) -> str:
    with pytest.raises(CanOperationError) as refused:
        bus.send(frame(0x666))
    return str(refused.value)


def test_a_state_that_the_adapter_refuses_changes_nothing(runtime: Runtime) -> None:
    with (
        Remote(refused="L") as remote,
        Bus(remote.channel, "slcan", bitrate=500_000) as bus,
        Bus(remote.channel, "slcan") as other,
        ThreadPoolExecutor(2) as pool,
    ):

        def listen(bus: Bus) -> None:
            bus.state = BusState.PASSIVE

        for asking in [pool.submit(listen, bus), pool.submit(listen, other)]:
            with pytest.raises(CanOperationError, match=r"refused 'L' \(open the channel listen"):
                asking.result(20)
        wait_until(lambda: bus.state is BusState.ACTIVE, "as it was")
        assert remote.heard.count("L") == 2, "tried for each"
        interruptions = bus.stats.interruptions
        remote.disconnect()
        wait_until(lambda: bus.stats.interruptions > interruptions, "the adapter is gone")
        wait_until(lambda: bus.state is BusState.ACTIVE, "it is open again")
        assert remote.heard.count("L") == 2
        assert [command for command in remote.heard if command in ("L", "O")][-1] == "O"


def test_an_adapter_that_answers_no_more_is_named_and_keeps_nobody(runtime: Runtime) -> None:
    with Remote() as remote, Bus(remote.channel, "slcan", bitrate=500_000) as bus:
        remote.is_mute = True
        remote.disconnect()
        wait_until(lambda: bus.state is BusState.ERROR, "the bus knows")
        wait_until(lambda: "no answer from socket://" in reason_of(bus), "why it stays so")
        assert "gone" in reason_of(bus)
        remote.is_mute = False
        wait_until(lambda: bus.state is BusState.ACTIVE, "it is open again")


def test_a_channel_ends_while_it_tries_to_reach_its_adapter(runtime: Runtime) -> None:
    with Remote() as remote, Bus(remote.channel, "slcan", bitrate=500_000) as bus:
        [channel] = status_of(runtime).channels
        actor = psutil.Process(channel.pid)
        remote.vanish()

        def is_trying() -> bool:
            return any(
                link.status == psutil.CONN_SYN_SENT and link.raddr[1:] == remote.address[1:]
                for link in actor.net_connections("tcp4")
            )

        wait_until(is_trying, "it waits for a connection")
        assert bus.state is BusState.ERROR
        stop_broker(runtime)
        wait_until(lambda: not actor.is_running(), "the actor leaves")
        assert "killing it" not in runtime.log_path.read_text(), "by itself"
