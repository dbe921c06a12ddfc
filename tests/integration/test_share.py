"""One adapter, several processes: nothing lost, one order, own frames only on request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from canbroker import Bus, Message
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.processes import Program
from tests.support.simulated import Simulated

FRAMES = 400

#: Opens the adapter, waits for the word, sends its share, receives until it has everything.
SHARER = """
bus = Bus(arguments["path"], "slcan", bitrate=500000,
          receive_own_messages=arguments["own"])
say("ready")
hear()
for number in range(arguments["send"]):
    bus.send(Message(arbitration_id=arguments["id"], is_extended_id=False,
                     data=number.to_bytes(4, "big")))
got = []
while len(got) < arguments["expect"]:
    message = bus.recv(20)
    if message is None:
        break
    got.append([message.arbitration_id, int.from_bytes(message.data, "big"), message.is_rx])
extra = bus.recv(0.3)
bus.flush(20)
say({"got": got, "extra": str(extra) if extra else None, "lost": bus.stats.lost,
     "sent": bus.stats.sent})
hear()
bus.shutdown()
say("closed")
"""


@pytest.fixture
def adapter() -> Iterator[Simulated]:
    with Simulated() as simulated:
        yield simulated


def test_four_processes_see_every_frame_once_in_one_order(
    runtime: Runtime, adapter: Simulated
) -> None:
    senders = {0x100: False, 0x200: True}  # identifier -> receives its own
    with ExitStack() as stack:
        programs = []
        for identifier in (0x100, 0x200, 0x300, 0x400):
            sends = identifier in senders
            own = senders.get(identifier, False)
            programs.append(
                stack.enter_context(
                    Program(
                        SHARER,
                        path=adapter.path,
                        id=identifier,
                        own=own,
                        send=FRAMES if sends else 0,
                        expect=2 * FRAMES if own or not sends else FRAMES,
                    )
                )
            )
        assert [program.said() for program in programs] == ["ready"] * 4
        for program in programs:
            program.tell("go")
        accounts: list[dict[str, Any]] = [program.said() for program in programs]
        for program in programs:
            program.tell("close")
        assert [program.said() for program in programs] == ["closed"] * 4
        assert [program.end() for program in programs] == [0] * 4

    on_the_bus = [
        (int(identifier, 16), int(data, 16))
        for identifier, _, data in (text.partition("#") for text in adapter.accepted())
    ]
    assert len(on_the_bus) == 2 * FRAMES
    for identifier, account in zip((0x100, 0x200, 0x300, 0x400), accounts, strict=True):
        assert account["lost"] == 0
        assert account["extra"] is None
        assert account["sent"] == (FRAMES if identifier in senders else 0)
        own = senders.get(identifier, False)
        expected = [entry for entry in on_the_bus if own or entry[0] != identifier]
        assert [(entry[0], entry[1]) for entry in account["got"]] == expected
        assert all(is_rx == (sender != identifier) for sender, _, is_rx in account["got"])


def test_frames_from_the_bus_reach_everyone_by_filter(runtime: Runtime, adapter: Simulated) -> None:
    filters = [{"can_id": 0x100, "can_mask": 0x700, "extended": False}]
    with (
        Bus(adapter.path, "slcan", bitrate=500_000) as everything,
        Bus(adapter.path, "slcan", can_filters=filters) as some,
    ):
        for line in ("t1230", "t2231AA", "T000001231BB", "t1FF2CCDD", "r1002"):
            adapter.command(f"inject {line}")
        received = [everything.recv(5) for _ in range(5)]
        assert [message.arbitration_id for message in received if message] == [
            *(0x123, 0x223, 0x123, 0x1FF, 0x100)
        ]
        passed = [some.recv(5) for _ in range(3)]
        assert [(m.arbitration_id, m.is_extended_id) for m in passed if m] == [
            *((0x123, False), (0x1FF, False), (0x100, False))
        ]
        assert some.recv(0) is None
        assert all(message.is_rx for message in received if message)


def test_clients_take_turns(runtime: Runtime, adapter: Simulated) -> None:
    with (
        Bus(adapter.path, "slcan", bitrate=100_000) as first,
        Bus(adapter.path, "slcan") as second,
    ):
        for bus, identifier in ((first, 0x100), (second, 0x200)):
            bus.send_batch([Message(arbitration_id=identifier, is_extended_id=False)] * 300)
        first.flush(30)
        second.flush(30)
    order = [text.partition("#")[0] for text in adapter.accepted()]
    begin = order.index("200")  # from here on, both have frames that wait
    assert begin < 150
    assert 80 <= order[begin : begin + 200].count("100") <= 120


def test_sending_and_leaving_at_once_loses_nothing(runtime: Runtime, adapter: Simulated) -> None:
    source = """
    bus = Bus(arguments["path"], "slcan", bitrate=500000)
    for number in range(512):
        bus.send(Message(arbitration_id=0x321, is_extended_id=False,
                         data=number.to_bytes(2, "big")))
    bus.shutdown()
    """
    with Program(source, path=adapter.path) as program:
        assert program.end() == 0
    assert adapter.accepted() == [f"321#{number:04X}" for number in range(512)]


def test_a_killed_client_disturbs_nobody_and_leaves_nothing(
    runtime: Runtime, adapter: Simulated
) -> None:
    source = """
    bus = Bus(arguments["path"], "slcan", bitrate=500000,
              can_filters=[{"can_id": 0x7, "can_mask": 0x7}])
    say("ready")
    number = 0
    while True:
        bus.send(Message(arbitration_id=0x111, is_extended_id=False,
                         data=number.to_bytes(4, "big")))
        number += 1
    """
    with (
        Bus(adapter.path, "slcan", bitrate=500_000) as survivor,
        Program(source, path=adapter.path) as victim,
    ):
        assert victim.said() == "ready"
        first = survivor.recv(10)
        assert first is not None
        wait_until(lambda: routes(runtime) == 2, "the victim's route is open")
        victim.process.kill()
        victim.end()
        wait_until(lambda: routes(runtime) == 1, "the victim's route is dropped")
        wait_until(lambda: survivor.recv(0) is None, "the victim's frames end")
        adapter.command("inject t5550")
        message = survivor.recv(10)
        while message is not None and message.arbitration_id == 0x111:
            message = survivor.recv(10)
        assert message is not None
        assert message.arbitration_id == 0x555
        survivor.send(Message(arbitration_id=0x556, is_extended_id=False), timeout=5)
        assert survivor.stats.lost == 0
        numbers = [int(text.partition("#")[2], 16) for text in adapter.accepted()[:-1]]
        assert numbers == list(range(len(numbers)))  # what was sent went out in order, unbroken


def routes(runtime: Runtime) -> int:
    """Routes that are open on the only channel."""
    (channel,) = status_of(runtime).channels
    return channel.state.routes if channel.state else 0
