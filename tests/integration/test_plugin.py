"""The interface ``canbroker`` of python-can: its buses, its tasks, and its command line tools."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import can
import pytest
from can.broadcastmanager import (
    CyclicSendTaskABC,
    LimitedDurationCyclicSendTaskABC,
    ModifiableCyclicTaskABC,
    RestartableCyclicTaskABC,
)

import canbroker
from canbroker import detect_available_configs
from canbroker.backends import parse_options
from canbroker.integrations.python_can import CanbrokerBus
from canbroker.transport.runtime import Runtime
from canbroker.transport.waiter import Waiter
from tests.support.brokers import status_of, wait_until
from tests.support.processes import Program

PATIENCE_S = 20.0


def open_bus(channel: Any = "bench", **parameters: Any) -> can.BusABC:
    return can.Bus(channel, interface="canbroker", adapter="virtual", **parameters)


def frame(identifier: int, data: bytes = b"") -> can.Message:
    return can.Message(arbitration_id=identifier, data=data, is_extended_id=False)


def received(bus: can.BusABC) -> can.Message:
    message = bus.recv(PATIENCE_S)
    assert message is not None
    return message


def filters_of_clients(runtime: Runtime) -> set[str]:
    """What the only channel's clients have subscribed to."""
    [channel] = status_of(runtime).channels
    return {client.filters for client in channel.clients}


# ------------------------------------------------------------------------------------------- buses


def test_a_bus_of_python_can_shared_with_one_of_ours(runtime: Runtime) -> None:
    with open_bus() as bus, canbroker.Bus("bench", "virtual") as other:
        assert isinstance(bus, CanbrokerBus)
        assert bus.protocol is can.CanProtocol.CAN_20
        assert bus.state is can.BusState.ACTIVE
        assert bus.channel_info == other.channel_info == str(bus)
        sent = can.Message(
            arbitration_id=0x1ABCDEF,
            data=bytes(range(64)),
            is_fd=True,
            bitrate_switch=True,
            channel="bench",
        )
        bus.send(sent, timeout=PATIENCE_S)
        theirs = other.recv(PATIENCE_S)
        assert theirs is not None
        other.send(theirs)
        back = received(bus)
        assert type(back) is can.Message
        assert back.equals(sent, timestamp_delta=None)
        assert back.timestamp > theirs.timestamp > 0
        remote = can.Message(
            arbitration_id=0x7FF, is_extended_id=False, is_remote_frame=True, dlc=5
        )
        bus.send(remote)
        theirs = other.recv(PATIENCE_S)
        assert theirs is not None
        other.send(theirs)
        assert received(bus).equals(remote, timestamp_delta=None, check_channel=False)


def test_messages_carry_the_channel_as_it_was_given(runtime: Runtime) -> None:
    with open_bus(0, receive_own_messages=True) as bus:
        bus.send(frame(1))
        own = received(bus)
        assert (own.channel, own.is_rx) == (0, False)
        assert bus.recv(0) is None
        descriptor = bus.fileno()
        assert select.select([descriptor], [], [], 0)[0] == []
        bus.send(frame(2))
        assert select.select([descriptor], [], [], PATIENCE_S)[0] == [descriptor]
        assert received(bus).arbitration_id == 2


def test_filters_run_in_the_adapters_process(runtime: Runtime) -> None:
    only = [{"can_id": 0x100, "can_mask": 0x700, "extended": False}]
    with open_bus(can_filters=only) as bus, open_bus() as other:
        wait_until(lambda: "s100:700" in filters_of_clients(runtime), "the broker knows of it")
        for identifier in (0x200, 0x123, 0x7FF, 0x1FF):
            other.send(frame(identifier))
        assert [received(bus).arbitration_id for _ in range(2)] == [0x123, 0x1FF]
        with pytest.raises(ValueError, match=r"can_filters\[0\]"):
            bus.set_filters([{"can_id": -1, "can_mask": 0}])
        assert bus.filters == only
        bus.set_filters(None)
        assert bus.filters is None
        other.send(frame(0x200))
        assert received(bus).arbitration_id == 0x200


def test_errors_are_those_of_python_can(runtime: Runtime) -> None:
    with pytest.raises(can.CanInterfaceNotImplementedError, match="no channel given"):
        can.Bus(interface="canbroker")
    with pytest.raises(can.CanInitializationError, match="'speed'"):
        open_bus(speed=5)
    bus = open_bus(fd=False)
    with pytest.raises(can.CanOperationError, match="FD"):
        bus.send(can.Message(is_fd=True), timeout=PATIENCE_S)
    with pytest.raises(can.CanOperationError, match="no listen-only mode"):
        bus.state = can.BusState.PASSIVE
    bus.shutdown()
    bus.shutdown()
    assert bus.state is can.BusState.ERROR
    for call in (bus.recv, bus.fileno, bus.set_filters, bus.flush_tx_buffer):
        with pytest.raises(can.CanOperationError, match="shut down") as raised:
            call()
        assert isinstance(raised.value.__cause__, canbroker.CanOperationError)


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_a_waiting_recv_returns_none_when_its_bus_is_shut_down(
    runtime: Runtime, timeout: float | None
) -> None:
    bus = open_bus()
    returned: list[object] = []

    def wait() -> None:
        try:
            returned.append(bus.recv(timeout))
        except can.CanError as error:
            returned.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: _is_waiting(waiting), "the thread waits for a message")
    bus.shutdown()
    waiting.join(PATIENCE_S)
    assert returned == [None]
    with pytest.raises(can.CanOperationError, match="shut down"):
        bus.recv(timeout)


def test_between_two_recvs_of_a_thread_too(runtime: Runtime) -> None:
    """A Notifier has looked whether it shall stop, and is about to receive again."""
    bus = open_bus()
    returned: list[object] = []
    has_received, is_shut_down = threading.Event(), threading.Event()

    def receive() -> None:
        returned.append(bus.recv(0))
        has_received.set()
        assert is_shut_down.wait(PATIENCE_S)
        for _ in range(2):
            try:
                returned.append(bus.recv(0))
            except can.CanOperationError:
                returned.append("error")

    receiving = threading.Thread(target=receive)
    receiving.start()
    assert has_received.wait(PATIENCE_S)
    bus.shutdown()
    is_shut_down.set()
    receiving.join(PATIENCE_S)
    assert returned == [None, None, "error"]


def _is_waiting(thread: threading.Thread) -> bool:
    """Whether a thread waits for messages: all that it calls is on its stack."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code is not Waiter.wait.__code__:
        frame = frame.f_back
    return frame is not None


def test_a_notifier_that_is_stopped_late_says_nothing(runtime: Runtime) -> None:
    bus = open_bus()
    errors: list[object] = []
    hook, threading.excepthook = threading.excepthook, errors.append
    try:
        notifier = can.Notifier(bus, [], timeout=30.0)
        (reader,) = (thread for thread in threading.enumerate() if "Notifier for" in thread.name)
        wait_until(lambda: _is_waiting(reader), "the notifier waits for a message")
        notifier.stop(timeout=0)
        bus.shutdown()
        reader.join(PATIENCE_S)
    finally:
        threading.excepthook = hook
    assert not reader.is_alive()
    assert not errors
    assert notifier.exception is None


def test_a_bus_is_closed_whatever_its_subclass_makes_of_shutdown(runtime: Runtime) -> None:
    program = """
        import gc, warnings
        warnings.simplefilter("ignore", ResourceWarning)
        class Careless(canbroker.BusABC):
            def shutdown(self):
                pass
        bus = Careless("bench", "virtual")
        del bus
        gc.collect()
        say("collected")
        """
    with Program(program) as other:
        assert other.said() == "collected"
        assert other.end() == 0


def test_importing_the_plugin_loads_no_zeromq() -> None:
    program = (
        "import sys, canbroker.integrations.python_can\n"
        "print([name for name in ('can', 'zmq', 'msgspec') if name in sys.modules])\n"
    )
    output = subprocess.run(
        [sys.executable, "-P", "-c", program], check=True, capture_output=True, text=True
    ).stdout
    assert output.strip() == "['can']"


# ------------------------------------------------------------------------------------------- tasks


def test_periodic_tasks_run_in_the_scheduler(runtime: Runtime) -> None:
    with open_bus() as bus, open_bus() as other:
        sent = frame(0x123, b"\x01")
        task = bus.send_periodic(sent, 0.002)
        sent.data[0] = 9  # was copied
        for kind in (
            *(CyclicSendTaskABC, LimitedDurationCyclicSendTaskABC),
            *(ModifiableCyclicTaskABC, RestartableCyclicTaskABC),
        ):
            assert isinstance(task, kind)
        assert status_of(runtime).scheduler.pid is not None
        assert bytes(received(other).data) == b"\x01"
        assert isinstance(task, ModifiableCyclicTaskABC)
        task.modify_data(frame(0x123, b"\x02"))
        wait_until(lambda: bytes(received(other).data) == b"\x02", "the data change")
        with pytest.raises(ValueError, match="rbitration"):
            task.modify_data(frame(0x124))
        assert [bytes(message.data) for message in task.messages] == [b"\x02"]
        task.stop()
        while other.recv(0) is not None:
            pass
        assert isinstance(task, RestartableCyclicTaskABC)
        task.start()
        assert received(other).arbitration_id == 0x123


def test_a_callback_changes_messages_of_python_can(runtime: Runtime) -> None:
    kinds: set[type] = set()

    def count(message: can.Message) -> None:
        kinds.add(type(message))
        message.data[0] += 1

    with open_bus() as bus, open_bus() as other:
        task = bus.send_periodic(frame(5, b"\x00"), 0.001, modifier_callback=count)
        assert [received(other).data[0] for _ in range(5)] == [1, 2, 3, 4, 5]
        task.stop()
    assert kinds == {can.Message}


# --------------------------------------------------------------------------------------- detection


def test_detection_lists_the_channels_and_starts_no_broker(runtime: Runtime) -> None:
    assert can.detect_available_configs("canbroker") == []
    assert not runtime.directory.exists()
    with open_bus(), open_bus("second"):
        found = can.detect_available_configs("canbroker")
        assert {config["interface"] for config in found} == {"canbroker"}
        assert sorted(str(config["channel"]) for config in found) == [
            channel.name for channel in sorted(status_of(runtime).channels, key=lambda c: c.name)
        ]
        for config in found:
            can.Bus(**config).shutdown()
        assert detect_available_configs("canbroker") == [], "they are no adapters"


# --------------------------------------------------------------------------------------- self-loop


def test_our_own_interface_is_no_adapters() -> None:
    with pytest.raises(canbroker.CanInitializationError, match="'canbroker' is canbroker itself"):
        parse_options("canbroker", {"channel": "can0"})


def test_a_broker_does_not_connect_to_itself(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAN_INTERFACE", "canbroker")
    monkeypatch.setenv("CAN_CHANNEL", "virtual.bench")
    with open_bus(), can.Bus() as bus, canbroker.Bus() as other:
        assert isinstance(bus, CanbrokerBus)
        assert bus.channel_info == other.channel_info
        # Opened by python-can, in a process whose environment is the same.
        with canbroker.Bus("loop://", "serial") as line:
            line.send(canbroker.Message(arbitration_id=7, is_extended_id=False))
            back = line.recv(PATIENCE_S)
            assert back is not None
            assert back.arbitration_id == 7


# ------------------------------------------------------------------------------------------- tools


@contextmanager
def tool(
    *arguments: str, terminal: int | None = None, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """One of python-can's command line tools, as a process; its output at once."""
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdin=terminal,
        stdout=subprocess.PIPE if terminal is None else terminal,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def name_of(bus: can.BusABC) -> str:
    return bus.channel_info.partition(": ")[0]


def test_logger(runtime: Runtime) -> None:
    with open_bus() as bus:
        name = name_of(bus)
        with tool("can.logger", "-i", "canbroker", "-c", name) as logger:
            assert logger.stdout is not None
            assert any(b"Can Logger (Started" in line for line in logger.stdout)
            for number in range(20):
                bus.send(frame(0x100 + number, bytes([number])), timeout=PATIENCE_S)
            lines = (line for line in logger.stdout if line.startswith(b"Timestamp:"))
            logged = [next(lines).split() for _ in range(20)]
            assert [line[3] for line in logged] == [b"%x" % (0x100 + n) for n in range(20)]
            assert [line[8] for line in logged] == [b"%02x" % n for n in range(20)]
            logger.send_signal(signal.SIGINT)
            assert logger.wait(PATIENCE_S) == 0


def test_player(runtime: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "drive.log"
    with can.Logger(str(log)) as writer:
        for number in range(20):
            message = frame(0x100 + number, bytes([number]))
            message.timestamp = 1.0 + number / 100
            writer(message)
    with open_bus() as bus:
        name = name_of(bus)
        with tool("can.player", "-i", "canbroker", "-c", name, str(log)) as player:
            again = [received(bus) for _ in range(20)]
            assert player.wait(PATIENCE_S) == 0
        assert [message.arbitration_id for message in again] == [0x100 + n for n in range(20)]
        assert [bytes(message.data) for message in again] == [bytes([n]) for n in range(20)]


def test_bridge(runtime: Runtime) -> None:
    with open_bus("left") as left, open_bus("right") as right:
        names = [name_of(left), name_of(right)]
        with tool(
            *("can.bridge", "--bus1-interface", "canbroker", "--bus1-channel", names[0]),
            *("--bus2-interface", "canbroker", "--bus2-channel", names[1]),
        ) as bridge:
            assert bridge.stdout is not None
            assert b"CAN Bridge (Started" in bridge.stdout.readline()
            left.send(frame(0x111))
            assert received(right).arbitration_id == 0x111
            right.send(frame(0x222))
            assert received(left).arbitration_id == 0x222
            assert left.recv(0) is None, "nothing goes in circles"
            bridge.send_signal(signal.SIGINT)
            assert bridge.wait(PATIENCE_S) == 0


def test_viewer(runtime: Runtime) -> None:
    screen, terminal = pty.openpty()
    with open_bus() as bus, os.fdopen(screen, "wb", buffering=0):
        name = name_of(bus)
        with tool(
            *("can.viewer", "-i", "canbroker", "-c", name),
            TERM="xterm",
            LINES="24",
            COLUMNS="80",
            terminal=terminal,
        ) as viewer:
            os.close(terminal)
            task = bus.send_periodic(frame(0x5A5, b"\xca\xfe"), 0.05)
            shown = b""
            while b"0x5A5" not in shown or b"CA FE" not in shown:
                assert select.select([screen], [], [], PATIENCE_S)[0], shown
                shown += os.read(screen, 1 << 16)
            task.stop()
            os.write(screen, b"q")
            drain = threading.Thread(target=_drain, args=(screen,))
            drain.start()
            assert viewer.wait(PATIENCE_S) == 0
            drain.join(PATIENCE_S)


def _drain(screen: int) -> None:
    """Reads a terminal until nobody has it open any more, which Linux calls an error."""
    with contextlib.suppress(OSError):
        while os.read(screen, 1 << 16):
            continue


def test_another_process_shares_the_channel(runtime: Runtime) -> None:
    with open_bus() as bus:
        program = """
            import can
            with can.Bus(arguments["channel"], interface="canbroker") as bus:
                say("ready")
                message = bus.recv(20)
                bus.send(can.Message(arbitration_id=message.arbitration_id + 1))
            """
        with Program(program, channel=name_of(bus)) as other:
            assert other.said() == "ready"
            bus.send(frame(0x10))
            assert received(bus).arbitration_id == 0x11
            assert other.end() == 0
