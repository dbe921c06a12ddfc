"""The slcan backend on the simulated adapter: two processes and a pty between them."""

from __future__ import annotations

import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import can
import pytest
import serial

from canbroker.backends import AdapterGoneError, Backend, Transmit, open_backend, parse_options
from canbroker.backends.slcan.window import WINDOW
from canbroker.errors import CanInitializationError
from canbroker.model.frame import BITRATE_SWITCH, EXTENDED, FD, HARDWARE_TIMESTAMP, REMOTE, Frame
from canbroker.simulator.firmware import FIRMWARES
from tests.support.brokers import wait_until
from tests.support.simulated import Simulated, collect, read_count
from tests.support.systems import open_descriptors

FRAMES = 600


@pytest.fixture
def trace(tmp_path: Path) -> str:
    """A log of 600 frames in 0.6 s, with ten identifiers."""
    path = tmp_path / "trace.log"
    path.write_text(
        "".join(f"({1 + i / 1000:.6f}) can0 {0x100 + i % 10:03X}#{i:08X}\n" for i in range(FRAMES))
    )
    return str(path)


@contextmanager
def opened(channel: str, **parameters: Any) -> Iterator[Backend]:
    backend = open_backend("slcan", parse_options("slcan", {"channel": channel} | parameters))
    try:
        yield backend
    finally:
        backend.close()


def payloads(happened: list[Frame | Transmit]) -> list[int]:
    """The running numbers in the trace's frames."""
    return [
        int.from_bytes(item.data, "big")
        for item in happened
        if isinstance(item, Frame) and isinstance(item.data, bytes)
    ]


def transmits(count: int) -> list[Transmit]:
    return [Transmit(Frame(0, number, 0, b"\x55"), "me", None, 0) for number in range(count)]


def send_all(backend: Backend, waiting: list[Transmit]) -> list[Frame | Transmit]:
    """Sends as room allows, reading meanwhile; returns what happened until all have ended."""
    happened: list[Frame | Transmit] = []
    expected = len(waiting)
    rest = list(waiting)

    def pushed(got: list[Frame | Transmit]) -> bool:
        while rest and (room := backend.room("me")):
            backend.send(rest[:room])
            del rest[:room]
        return sum(isinstance(item, Transmit) for item in got) == expected

    collect(backend, pushed, happened)
    return happened


# ----------------------------------------------------------------------------------------- traffic


@pytest.mark.parametrize(
    "options", [{"rate": 0.0}, {"rate": 5.0}, {"rate": 5.0, "timestamps": False}]
)
def test_replay_arrives_complete_and_in_order(trace: str, options: dict[str, Any]) -> None:
    with Simulated(replay=trace, **options) as adapter, opened(adapter.path) as backend:
        happened = read_count(backend, FRAMES)
        assert payloads(happened) == list(range(FRAMES))
        stamped = [
            bool(item.flags & HARDWARE_TIMESTAMP) for item in happened if isinstance(item, Frame)
        ]
        assert all(stamped) == any(stamped) == options.get("timestamps", True)
        times = [item.timestamp_ns for item in happened if isinstance(item, Frame)]
        assert times == sorted(times)
        ledger = adapter.event("replay_done")
        assert (ledger["replayed"], ledger["overruns"]) == (FRAMES, 0)
        assert ledger["frames"] == {f"{0x100 + i:03X}": FRAMES // 10 for i in range(10)}


def test_lines_in_pieces(trace: str) -> None:
    with (
        Simulated(replay=trace, rate=0, faults=["split on"]) as adapter,
        opened(adapter.path) as backend,
    ):
        assert payloads(read_count(backend, FRAMES)) == list(range(FRAMES))
        assert backend.counters() == {}


def test_lost_and_garbled_lines_are_accounted_for(trace: str) -> None:
    with (
        Simulated(replay=trace, rate=0, faults=["drop 0.2", "garble 0.2"]) as adapter,
        opened(adapter.path) as backend,
    ):
        ledger = {}

        def ended(got: list[Frame | Transmit]) -> bool:
            stats = adapter.stats()
            ledger.update(stats)
            processed = stats["replayed"] + stats["dropped"] + stats["garbled"] == FRAMES
            bad = sum(backend.counters().values())
            return bool(processed and (bad, len(got)) == (stats["garbled"], stats["replayed"]))

        happened: list[Frame | Transmit] = []
        collect(backend, ended, happened)
        assert payloads(happened) == sorted(payloads(happened))
        assert all(ledger[name] for name in ("replayed", "dropped", "garbled"))


def test_a_host_that_does_not_read_in_time_loses_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "burst.log"
    total = 20_000
    path.write_text("".join(f"(1.{i:06d}) can0 123#{i:016X}\n" for i in range(total)))
    with Simulated(replay=str(path)) as adapter, opened(adapter.path) as backend:
        ledger = adapter.event("replay_done")
        assert ledger["overruns"] > 0
        assert ledger["replayed"] + ledger["overruns"] == total
        happened = read_count(backend, ledger["replayed"])
        assert payloads(happened) == sorted(set(payloads(happened)))
        assert backend.counters() == {}


def test_every_kind_of_frame_goes_out_and_comes_in() -> None:
    frames = [
        Frame(0, 0x7FF, 0, b"\x01\x02"),
        Frame(0, 0x1FFFFFFF, EXTENDED, bytes(8)),
        Frame(0, 0x123, REMOTE, 4),
        Frame(0, 0x123, REMOTE | EXTENDED, 0),
        Frame(0, 0x123, FD, bytes(12)),
        Frame(0, 0x123, FD | EXTENDED | BITRATE_SWITCH, bytes(64)),
    ]
    lines = ["t7FF20102", "T1FFFFFFF8" + "00" * 8, "r1234", "R000001230"]
    lines += ["d1239" + "00" * 12, "B00000123F" + "00" * 64]
    with (
        Simulated(firmware="canable2-lawicel") as adapter,
        opened(adapter.path, bitrate=500_000, fd=True, data_bitrate=2_000_000) as backend,
    ):
        sent = [Transmit(frame, "me", None, 0) for frame in frames]
        assert send_all(backend, sent) == sent
        assert [item.failure for item in sent] == [None] * len(sent)
        assert adapter.accepted() == [
            "7FF#0102",
            "1FFFFFFF#0000000000000000",
            "123#R4",
            "00000123#R",
            "123##0" + "00" * 12,
            "00000123##1" + "00" * 64,
        ]
        for line in lines:
            adapter.command(f"inject {line}")
        received = read_count(backend, len(frames))
        for item, frame in zip(received, frames, strict=True):
            assert isinstance(item, Frame)
            assert (item.arbitration_id, item.flags, item.data) == (
                frame.arbitration_id,
                frame.flags,
                frame.data,
            )


@pytest.mark.parametrize(("queue", "bitrate"), [(64, 1_000_000), (16, 500_000)])
def test_a_burst_does_not_overflow_an_ordinary_queue(queue: int, bitrate: int) -> None:
    with Simulated(queue=queue) as adapter, opened(adapter.path, bitrate=bitrate) as backend:
        sent = transmits(512)
        assert send_all(backend, sent) == sent
        assert [item.failure for item in sent] == [None] * 512
        assert adapter.accepted() == [f"{item.frame.arbitration_id:03X}#55" for item in sent]


def test_an_adapter_without_a_queue_is_asked_again() -> None:
    queue, bitrate = 1, 125_000
    with Simulated(queue=queue) as adapter, opened(adapter.path, bitrate=bitrate) as backend:
        sent = transmits(512)
        assert send_all(backend, sent) == sent
        taken = [item for item in sent if item.failure is None]
        order = [f"{item.frame.arbitration_id:03X}#55" for item in taken]
        assert adapter.accepted() == order
        # The window is wide at first: then a frame can overtake a refused one and make it fail.
        assert len(sent) - len(taken) < WINDOW
        ledger = adapter.stats()
        assert (ledger["accepted"], ledger["refused"] > 0) == (len(taken), True)


# ------------------------------------------------------------------------------------------ faults


def test_refusals_are_tried_again() -> None:
    with Simulated() as adapter, opened(adapter.path) as backend:
        adapter.command("bel 5")
        assert adapter.stats()["state"] == "open"
        sent = transmits(1)
        assert send_all(backend, sent) == sent
        assert sent[0].failure is None
        assert adapter.stats()["refused"] == 5


@pytest.mark.parametrize("fault", ["noack 1", "hang 60"])
def test_an_adapter_that_does_not_answer_is_gone(fault: str) -> None:
    with Simulated() as adapter, opened(adapter.path) as backend:
        adapter.command(fault)
        adapter.stats()
        sent = transmits(1)
        with pytest.raises(AdapterGoneError, match="did not acknowledge 000#55"):
            send_all(backend, sent)
        assert backend.abandon() == sent


def test_unplug_and_replug(tmp_path: Path) -> None:
    link = tmp_path / "adapter"
    with Simulated(link=str(link)) as adapter:
        assert str(link.readlink()) == adapter.path
        with opened(str(link)) as backend:
            adapter.command("unplug")
            with pytest.raises(AdapterGoneError, match="is gone"):
                collect(backend, lambda _: False, [])
        with pytest.raises(CanInitializationError, match="no such device"), opened(str(link)):
            pass
        assert adapter.replug() == str(link.readlink())
        with opened(str(link)) as backend:
            adapter.command("inject t1230")
            read_count(backend, 1)
        adapter.stop()
        assert not link.is_symlink()


def test_a_channel_that_a_crashed_program_left_open() -> None:
    with Simulated() as adapter:
        with serial.Serial(adapter.path, timeout=20) as crashed:
            crashed.write(b"O\rt12")
            assert crashed.read(1) == b"\r"
        adapter.command("inject t1230")
        with opened(adapter.path, bitrate=250_000) as backend:
            assert list(backend.read()) == []
            ledger = adapter.stats()
            assert (ledger["state"], ledger["opened"]) == ("open", 2)
            assert "O" not in ledger["refused_commands"]


# --------------------------------------------------------------------------------- configurations


def test_listen_only() -> None:
    with Simulated() as adapter, opened(adapter.path, listen_only=True) as backend:
        assert adapter.stats()["state"] == "listen"
        assert backend.room("me") == 0
        assert "listen-only" in str(backend.fault(Frame(0, 1, 0, b"")))
        adapter.command("inject t1230")
        read_count(backend, 1)


def test_an_adapter_that_acknowledges_nothing(trace: str) -> None:
    with (
        Simulated(silent=True, replay=trace, rate=0) as adapter,
        opened(adapter.path, bitrate=500_000) as backend,
    ):
        sent = transmits(60)
        happened = send_all(backend, sent)
        assert [item for item in happened if isinstance(item, Transmit)] == sent
        assert all(item.failure is None and item.timestamp_ns for item in sent)
        collect(backend, lambda got: len(payloads(got)) == FRAMES, happened)
        assert payloads(happened) == list(range(FRAMES))
        # It says nothing when it has taken one: the last ones are in its serial line perhaps.
        wait_until(lambda: len(adapter.accepted()) == len(sent), "it has taken all of them")
        adapter.command("unplug")
        with pytest.raises(AdapterGoneError):
            collect(backend, lambda _: False, [])


def test_fd_that_the_adapter_does_not_have() -> None:
    before = open_descriptors()
    with Simulated() as adapter:
        with (
            pytest.raises(CanInitializationError, match=r"refused 'Y5' \(data bitrate 5000000\)"),
            opened(adapter.path, fd=True, data_bitrate=5_000_000),
        ):
            pass
        assert adapter.stats()["state"] == "closed"
    assert open_descriptors() == before


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_the_reference_implementation_gets_on_with_the_simulator(
    firmware: str, tmp_path: Path
) -> None:
    log = tmp_path / "trace.log"
    log.write_text("(1.0) can0 00000455#\n(1.0) can0 00000456#AABB\n")
    expected = [(0x455, b""), (0x456, b"\xaa\xbb")]
    with (
        Simulated(firmware=firmware, replay=str(log), paused=True, boot=0.0) as adapter,
        can.Bus(
            interface="slcan", channel=adapter.path, bitrate=500_000, sleep_after_open=0
        ) as bus,
    ):
        bus.send(can.Message(arbitration_id=0x123, is_extended_id=False, data=[1, 2]))
        wait_until(lambda: adapter.accepted() == ["123#0102"], "the frame is on the bus")
        adapter.command("start")
        # python-can takes a CANdapter's ACK, behind which is no CR, for the first frame's letter.
        for number, data in expected[firmware == "candapter" :]:
            message = bus.recv(20)
            assert message is not None
            assert (message.arbitration_id, message.is_extended_id) == (number, True)
            assert bytes(message.data) == data


# -------------------------------------------------------------------------------------------- URLs


@contextmanager
def served(path: str) -> Iterator[str]:
    """A serial device on a TCP port; yields its URL."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        serial.Serial(path, timeout=0) as device,
    ):
        server.settimeout(20)
        thread = threading.Thread(target=_serve, args=(server, device))
        thread.start()
        try:
            yield f"socket://127.0.0.1:{server.getsockname()[1]}"
        finally:
            thread.join()


def _serve(server: socket.socket, device: serial.Serial) -> None:
    connection, _ = server.accept()
    with connection:
        while True:
            ready, _, _ = select.select([connection.fileno(), device.fileno()], [], [])
            if device.fileno() in ready:
                connection.sendall(device.read(4096))
            if connection.fileno() in ready:
                data = connection.recv(4096)
                if not data:
                    return
                device.write(data)


def test_an_adapter_behind_a_network(trace: str) -> None:
    with (
        Simulated(replay=trace, rate=0) as adapter,
        served(adapter.path) as url,
        opened(url, bitrate=500_000) as backend,
    ):
        sent = transmits(20)
        happened = send_all(backend, sent)
        collect(backend, lambda got: len(payloads(got)) == FRAMES, happened)
        assert [item for item in happened if isinstance(item, Transmit)] == sent
        assert payloads(happened) == list(range(FRAMES))


# ----------------------------------------------------------------------------------------- process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_the_ledger(tmp_path: Path, number: signal.Signals) -> None:
    link = tmp_path / "adapter"
    with Simulated(link=str(link)) as adapter:
        assert link.exists()
        adapter.process.send_signal(number)
        assert adapter.event("exit")["state"] == "closed"
        assert adapter.process.wait(20) == 0
        assert not link.is_symlink()
        assert adapter.stderr() == ""


def test_it_outlives_its_control_stream_and_its_hosts() -> None:
    with Simulated() as adapter:
        assert adapter.process.stdin is not None
        adapter.process.stdin.close()
        for _ in range(3):
            with opened(adapter.path):
                assert adapter.process.poll() is None
        adapter.process.send_signal(signal.SIGTERM)
        assert adapter.event("exit")["opened"] == 3


def test_wrong_commands_are_answered_and_change_nothing() -> None:
    with Simulated() as adapter:
        adapter.command("explode")
        adapter.command("drop lots")
        adapter.stop()
        assert adapter.stderr().splitlines() == [
            "unknown command 'explode'; there are: start, stats, accepted, inject, receive, drop, "
            "garble, split, bel, noack, hang, unplug, replug, quit",
            "'lots' is not a number",
        ]


def test_what_of_its_log_is_not_a_frame_is_said_at_the_end(tmp_path: Path) -> None:
    log = tmp_path / "world.log"
    log.write_bytes(b"\xef\xbb\xbf(1.0) can0 123#11\r\nhello\r\n(1.1) can0 124#\r\n(1.")
    with Simulated(replay=str(log), rate=0) as adapter:
        with opened(adapter.path):
            assert adapter.event("replay_done")["replayed"] == 2
        adapter.stop()
        assert adapter.stderr() == (
            f"{log}: skipped 2 lines without a frame to send: "
            "1 of other text (line 2: 'hello'), 1 damaged (line 4: '(1.')\n"
        )


def test_it_does_not_overwrite_a_file_with_its_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    with pytest.raises(EOFError, match="is not a symbolic link"):
        Simulated(link=str(precious))
    assert precious.read_text() == "data"


def test_it_sleeps_while_nothing_is_due(trace: str) -> None:
    with Simulated(replay=trace, paused=True) as adapter, opened(adapter.path):
        before = _switches(adapter.process.pid)
        adapter.stats()
        adapter.stats()
        assert _switches(adapter.process.pid) - before < 100


def _switches(pid: int) -> int:
    """How often a process has gone to sleep so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("voluntary_ctxt"))
    return int(line.split()[1])


# ---------------------------------------------------------------------------------------- firmware


def ask(port: serial.Serial, question: bytes, answer: bytes) -> bytes:
    """Asks until the answer has come; returns all that was read."""
    heard = b""

    def answered() -> bool:
        nonlocal heard
        port.write(question)
        heard += port.read(4096)
        return answer in heard

    wait_until(answered, f"{answer!r} comes")
    return heard


@pytest.mark.parametrize("firmware", ["arduino", "esp32"])
def test_a_board_is_reset_whenever_a_program_opens_its_port(firmware: str) -> None:
    with Simulated(firmware=firmware, boot=0.3) as adapter:
        for _ in range(2):
            with serial.Serial(adapter.path, timeout=0.02) as port:
                heard = ask(port, b"V\r", b"V1234\r")
                # pyserial discards what comes while it opens the port: the first text, perhaps.
                assert (b"BT Switch OFF" in heard) == (firmware == "esp32")
                assert adapter.stats()["state"] == "closed"
                assert ask(port, b"O\r", b"\r")
                wait_until(lambda: adapter.stats()["state"] == "open", "it is open")
                # While it is open, a second program resets it.
                with serial.Serial(adapter.path, timeout=0.02) as other:
                    wait_until(lambda: adapter.stats()["state"] == "closed", "it was reset")
                    ask(other, b"V\r", b"V1234\r")


def test_other_adapters_do_not_notice_that_a_port_is_opened() -> None:
    with Simulated() as adapter:
        with serial.Serial(adapter.path, timeout=20) as port:
            port.write(b"O\r")
            assert port.read(1) == b"\r"
        with serial.Serial(adapter.path, timeout=20) as port:
            port.write(b"t1230\r")
            assert port.read(2) == b"z\r"


def test_what_an_adapter_says_can_arrive_late() -> None:
    delay = 0.3
    with (
        Simulated(answer_delay=delay) as adapter,
        serial.Serial(adapter.path, timeout=20) as port,
    ):
        began = time.monotonic()
        port.write(b"V\rO\r")
        assert port.read(7) == b"V1013\r\r"
        assert time.monotonic() - began >= delay
        adapter.command("inject t1230")
        assert port.read(6) == b"t1230\r"


def test_an_adapter_without_acknowledgements_cannot_be_told_to_give_wrong_ones() -> None:
    with Simulated(firmware="canable", faults=[]) as adapter:
        adapter.command("bel 1")
        adapter.stop()
        assert "canable answers no transmit anyway" in adapter.stderr()
