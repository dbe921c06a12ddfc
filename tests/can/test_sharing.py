"""An interface shared by processes inside and outside canbroker: exact counts, one order, and
filters that work in the kernel."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from canbroker import Bus, Message
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.processes import Program
from tests.support.vcan import LOGGED, VCAN, candump, filters_of, needs_can, one_processor

#: A kernel in user mode is slow: 45 s for the longest on an idle machine.
pytestmark = [needs_can, pytest.mark.timeout(300)]

#: Frames of the flood: what the project promises.
THOUSANDS: Final = 200

#: Frames that the flood may be ahead of the client that receives everything, in two halves. The
#: smallest receive buffer that a kernel gives by default holds about 550.
WINDOW: Final = 400

#: The frame after the last one of a flood.
END: Final = 0x7FF
UNTIL_END: Final = {"can_id": END, "can_mask": 0x7FF, "extended": False}

#: Sends frames of its own making, half a window for each word that it hears. Frame n has the
#: identifier n modulo 1000, extended if n is odd, and n as data.
FLOOD = """
import socket, struct
layout = struct.Struct("=IB3x8s")
with socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW) as raw:
    raw.bind((arguments["interface"],))
    say("ready")
    for number in range(arguments["frames"]):
        if number % arguments["each"] == 0:
            hear()
        can_id = number % 1000 | (number & 1) << 31
        raw.send(layout.pack(can_id, 4, number.to_bytes(4, "big")))
    raw.send(layout.pack(arguments["end"], 0, b""))
say("sent")
"""

#: Receives until the end; tells of every half window, if asked to.
COUNTER = """
with Bus(arguments["interface"], "socketcan", can_filters=arguments["filters"]) as bus:
    say("ready")
    numbers, wrong = [], []
    while (message := bus.recv()).arbitration_id != arguments["end"]:
        number = int.from_bytes(message.data, "big")
        numbers.append(number)
        identity = message.arbitration_id, message.is_extended_id, message.dlc, message.is_rx
        if identity != (number % 1000, bool(number & 1), 4, True):
            wrong.append(str(message))
        if arguments["tells"] and len(numbers) % arguments["tells"] == 0:
            say(len(numbers))
    say({"numbers": numbers, "wrong": wrong, "extra": bus.recv(0) is not None,
         "received": bus.stats.received, "lost": bus.stats.lost,
         "dropped": bus.stats.dropped_upstream, "restarts": bus.stats.restarts})
    hear()
"""


def run(*command: str) -> None:
    """Runs a program of can-utils to its end."""
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def test_a_flood_from_outside_is_counted_exactly_by_every_filter(runtime: Runtime) -> None:
    frames, each = 1000 * THOUSANDS, WINDOW // 2
    some = [
        {"can_id": 0x100, "can_mask": 0x700, "extended": False},  # 256 to 511
        {"can_id": 511, "can_mask": 0x1FFFFFFF, "extended": True},
        UNTIL_END,
    ]
    with ExitStack() as stack:

        def program(source: str, **arguments: Any) -> Program:
            started = Program(source, interface=VCAN, end=END, **arguments)
            stack.enter_context(started)
            assert started.said() == "ready"
            return started

        everything = program(COUNTER, filters=None, tells=each)
        clients = [
            everything,
            program(COUNTER, filters=some, tells=0),
            program(COUNTER, filters=[UNTIL_END], tells=0),
        ]
        flood = program(FLOOD, frames=frames, each=each)
        flood.tell("go")
        for received in range(each, frames + 1, each):
            if received < frames:
                flood.tell("go")
            assert everything.said() == received
        assert flood.said() == "sent"
        accounts = [client.said() for client in clients]
        wait_until(lambda: counts(runtime) == (frames + 1, 0), "the channel's state says the same")
        for client in clients:
            client.tell("close")
        assert [item.end() for item in (*clients, flood)] == [0] * 4

    # Of 1000 identifiers 256 match the mask, of which the 128 even ones are standard; and 511.
    numbers = [account.pop("numbers") for account in accounts]
    assert list(map(len, numbers)) == [1000 * THOUSANDS, 129 * THOUSANDS, 0]
    assert numbers[0] == list(range(frames))
    assert numbers[1] == [
        number
        for number in range(frames)
        if number % 1000 == 511 or (256 <= number % 1000 <= 511 and number % 2 == 0)
    ]
    assert accounts == [
        {
            "wrong": [],
            "extra": False,
            "received": len(got) + 1,
            "lost": 0,
            "dropped": 0,
            "restarts": 0,
        }
        for got in numbers
    ]


def counts(runtime: Runtime) -> tuple[int, int]:
    """Frames that the channel has received, and that were lost before."""
    (channel,) = status_of(runtime).channels
    return (channel.state.received, channel.state.dropped) if channel.state else (0, 0)


#: Sends numbered frames when told to, and receives what the others send. It sends a few, and the
#: rest when it has seen some of each of the others: nobody is through before all have begun.
SENDER = """
with Bus(arguments["interface"], "socketcan", receive_own_messages=arguments["own"]) as bus:
    seen, unseen = [], set(arguments["others"])

    def send(numbers):
        for number in numbers:
            bus.send(Message(arbitration_id=arguments["id"], is_extended_id=False,
                             data=number.to_bytes(8, "little")))

    def receive():
        message = bus.recv(25)
        if message is not None:
            text = f"{message.arbitration_id:03X}#{message.data.hex().upper()}"
            seen.append([text, message.is_rx])
            unseen.discard(message.arbitration_id)
        return message is not None

    say("ready")
    hear()
    send(range(10))
    while unseen and receive():
        pass
    send(range(10, arguments["send"]))
    while len(seen) < arguments["expect"] and receive():
        pass
    say({"seen": seen, "extra": bus.recv(0) is not None, "lost": bus.stats.lost})
"""


def text_of(identifier: int, number: int) -> str:
    return f"{identifier:03X}#{number.to_bytes(8, 'little').hex().upper()}"


@contextmanager
def outside(each: int, log: Path) -> Iterator[None]:
    """``cangen`` sends as 003 and ``canplayer`` as 004, ``each`` at about 500 frames a second."""
    log.write_text(
        "".join(f"({number * 0.002:.6f}) {VCAN} {text_of(4, number)}\n" for number in range(each))
    )
    commands = [
        ["cangen", VCAN, "-g", "2", "-n", str(each), "-I", "3", "-L", "8", "-D", "i"],
        ["canplayer", "-I", str(log)],
    ]
    with ExitStack() as stack:
        programs = [stack.enter_context(subprocess.Popen(command)) for command in commands]
        try:
            yield
            assert [program.wait(30) for program in programs] == [0, 0]
        finally:
            for program in programs:
                program.kill()


def receive(bus: Bus, count: int) -> list[str]:
    messages: list[Message] = []
    while len(messages) < count and (message := bus.recv(20)) is not None:
        messages.append(message)
    assert all(message.is_rx for message in messages)
    return [f"{m.arbitration_id:03X}#{m.data.hex().upper()}" for m in messages]


def test_four_senders_are_seen_by_everyone_in_the_order_that_candump_sees(
    runtime: Runtime, tmp_path: Path
) -> None:
    each = 1_000
    total = 4 * each
    dump_log = tmp_path / "candump.log"
    with one_processor(), ExitStack() as stack:
        observer = stack.enter_context(Bus(VCAN, "socketcan"))
        output = stack.enter_context(dump_log.open("wb"))
        dump = stack.enter_context(candump(total, *LOGGED, stdout=output))
        plain, with_own = (
            stack.enter_context(
                Program(
                    SENDER,
                    interface=VCAN,
                    id=identifier,
                    others=[other for other in (1, 2, 3, 4) if other != identifier],
                    own=own,
                    send=each,
                    expect=total if own else total - each,
                )
            )
            for identifier, own in ((1, False), (2, True))
        )
        assert [plain.said(), with_own.said()] == ["ready"] * 2
        plain.tell("go")
        with_own.tell("go")
        first = receive(observer, 20)
        with outside(each, tmp_path / "canplayer.log"):
            order = first + receive(observer, total - len(first))
        assert dump.wait(30) == 0
        accounts = [plain.said(), with_own.said()]
        assert observer.recv(0) is None
        assert (observer.stats.lost, observer.stats.dropped_upstream) == (0, 0)
        assert [plain.end(), with_own.end()] == [0, 0]

    assert order == [line.split()[2] for line in dump_log.read_text().splitlines()]
    for identifier in (1, 2, 3, 4):
        mine = [text for text in order if text.startswith(f"{identifier:03X}#")]
        assert mine == [text_of(identifier, number) for number in range(each)]
    others = [text for text in order if not text.startswith("001#")]
    assert accounts[0] == {"seen": [[text, True] for text in others], "extra": False, "lost": 0}
    expected = [[text, not text.startswith("002#")] for text in order]
    assert accounts[1] == {"seen": expected, "extra": False, "lost": 0}
    at = [[i for i, text in enumerate(order) if text.startswith(f"00{n}#")] for n in range(1, 5)]
    assert max(places[0] for places in at) < min(places[-1] for places in at), "all at once"


def cost_of_flood(runtime: Runtime, bus: Bus, passing: int) -> float:
    """Processor seconds that the actor spends on 20,000 frames from outside.

    ``passing`` is how many of each half window pass the filters of ``bus``.
    """
    (channel,) = status_of(runtime).channels
    assert channel.pid is not None
    actor, each = psutil.Process(channel.pid), WINDOW // 2
    with Program(FLOOD, interface=VCAN, frames=100 * each, each=each, end=END) as flood:
        assert flood.said() == "ready"
        before = actor.cpu_times()
        for _ in range(100):
            flood.tell("go")
            assert len(receive(bus, passing)) == passing
        assert receive(bus, 1) == [f"{END:03X}#"]
        after = actor.cpu_times()
        assert flood.said() == "sent"
        assert flood.end() == 0
    return float(after.user + after.system - before.user - before.system)


def test_what_the_kernel_rejects_costs_the_actor_next_to_nothing(runtime: Runtime) -> None:
    with Bus(VCAN, "socketcan", can_filters=[UNTIL_END]) as bus:
        assert filters_of(VCAN, "all") == []
        rejected = cost_of_flood(runtime, bus, 0)
        bus.set_filters(None)
        received = cost_of_flood(runtime, bus, WINDOW // 2)
        assert (bus.stats.lost, bus.stats.dropped_upstream) == (0, 0)
    assert rejected < received / 5, f"{rejected:.2f} s rejecting, {received:.2f} s receiving"


@pytest.mark.parametrize("fd", [False, True])
def test_frames_of_can_utils_are_received_frames(
    runtime: Runtime, tmp_path: Path, fd: bool
) -> None:
    log = tmp_path / "replay.log"
    log.write_text(f"(0.000000) {VCAN} 001#01\n(0.001000) {VCAN} 00000001#\n")
    with Bus(VCAN, "socketcan", fd=fd) as bus:
        for text in ("123#DEADBEEF", "18FEF100#11", "123#R3", "200##5AABB"):
            run("cansend", VCAN, text)
        run("canplayer", "-I", str(log))
        run("cangen", VCAN, "-g", "0", "-n", "2", "-I", "42A", "-L", "2", "-D", "i")
        expected = [
            Message(arbitration_id=0x123, is_extended_id=False, data=b"\xde\xad\xbe\xef"),
            Message(arbitration_id=0x18FEF100, data=b"\x11"),
            Message(arbitration_id=0x123, is_extended_id=False, is_remote_frame=True, dlc=3),
            *fd_only(fd),
            Message(arbitration_id=1, is_extended_id=False, data=b"\x01"),
            Message(arbitration_id=1),
            Message(arbitration_id=0x42A, is_extended_id=False, data=b"\x00\x00"),
            Message(arbitration_id=0x42A, is_extended_id=False, data=b"\x01\x00"),
        ]
        received = [bus.recv(10) for _ in expected]
        assert bus.recv(0) is None
        for message, wanted in zip(received, expected, strict=True):
            wanted.channel = VCAN
            assert message is not None
            assert message.equals(wanted, timestamp_delta=None)
            assert message.is_rx


def fd_only(fd: bool) -> Sequence[Message]:
    """What a bus without FD does not see."""
    sent = Message(
        arbitration_id=0x200,
        is_extended_id=False,
        is_fd=True,
        bitrate_switch=True,
        data=b"\xaa\xbb",
    )
    return [sent] if fd else []


def test_error_frames_from_outside_are_received_and_not_believed(runtime: Runtime) -> None:
    """What ``cansend`` sends comes from a program, and from no controller."""
    with Bus(VCAN, "socketcan") as bus:
        run("cansend", VCAN, "20000004#0001000000000000")
        message = bus.recv(10)
        assert message is not None
        assert (message.is_error_frame, message.is_rx, message.channel) == (True, True, VCAN)
        assert (message.arbitration_id, bytes(message.data)) == (4, b"\0\1\0\0\0\0\0\0")
        run("cansend", VCAN, "20000204#0010000000001183")
        assert bus.recv(10) is not None
        wait_until(lambda: counts(runtime) == (2, 0), "the state counts them, and no overrun")
        (channel,) = status_of(runtime).channels
        assert channel.state is not None
        assert (channel.state.state, channel.state.reason) == ("active", "")
        assert channel.state.counters == {}
