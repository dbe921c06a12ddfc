"""The contract of a bus whose adapter goes away and comes back, over every kind that can."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psutil
import pytest

from canbroker import Bus, BusState, CanOperationError, Message
from canbroker.delivery.state_feed import StateFeed
from canbroker.model.frame import Frame
from canbroker.transport.address import parse_ipc
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context
from canbroker.wire import topics
from canbroker.wire.status import ChannelStatus
from canbroker.wire.stream import StateEvent, decode_event
from tests.support.adapters import REMOVABLE, Removable
from tests.support.brokers import status_of, wait_until
from tests.support.systems import descriptor_count

pytestmark = pytest.mark.long

TIMES = 5

#: What libraries say, and a person should not have to read.
_NOISE = re.compile(r"Errno|\(\d+,|b'|Traceback|<.*>|\n")


@pytest.fixture(params=REMOVABLE)
def adapter(request: pytest.FixtureRequest, runtime: Runtime) -> Iterator[Removable]:
    with REMOVABLE[request.param]() as opened:
        yield opened


def frame(identifier: int, number: int = 0) -> Message:
    data = number.to_bytes(8, "big")
    return Message(arbitration_id=identifier, data=data, is_extended_id=False)


def channel_of(runtime: Runtime) -> ChannelStatus:
    [channel] = status_of(runtime).channels
    return channel


def reason_of(runtime: Runtime) -> str:
    """Why the channel is down, as ``status`` has it."""
    state = channel_of(runtime).state
    assert state is not None
    return state.reason if state.state == "error" else ""


def resume(adapter: Removable, bus: Bus, number: int) -> None:
    """The other node goes on sending until the bus receives something again."""

    def heard() -> bool:
        adapter.inject([Frame(0, 0x100, 0, b""), Frame(0, 0x200, 0, bytes((number,)))])
        return received(bus, 0.02) == [number]

    wait_until(heard, "frames are received again")
    while said := received(bus, 0.05):
        assert said == [number], "of before it went, nothing comes"


def received(bus: Bus, timeout: float) -> list[int]:
    """The numbers of the messages that have arrived; they pass the filter."""
    message = bus.recv(timeout)
    if message is None:
        return []
    assert message.arbitration_id == 0x200, "the filter is in force"
    return [*message.data]


def usage(process: psutil.Process) -> tuple[int, int]:
    """Descriptors and threads that it has."""
    return descriptor_count(process), process.num_threads()


def test_clients_live_through_it(adapter: Removable, runtime: Runtime) -> None:
    with (
        adapter.open() as sender,
        adapter.open(can_filters=[{"can_id": 0x200, "can_mask": 0x700}]) as receiver,
    ):
        channel = channel_of(runtime)
        assert channel.pid is not None
        actor = psutil.Process(channel.pid)
        used: list[tuple[int, int]] = []
        with Following(channel) as following:
            for number in range(1, TIMES + 1):
                adapter.unplug()
                for bus in (sender, receiver):
                    check_refusal(bus, adapter)
                wait_until(lambda: reason_of(runtime), "the status says so")
                check_words(reason_of(runtime), adapter)
                adapter.replug()
                resume(adapter, receiver, number)
                wait_until(lambda: sender.state is BusState.ACTIVE, "the sender knows")
                sender.send(frame(0x300, number), timeout=10)
                wait_until(adapter.seen, "it is sent")
                assert adapter.seen() == [f"300#{number:016X}"], "and nothing else"
                assert sender.stats.interruptions == number
                used.append(usage(actor))
            wait_until(lambda: following.now() == ("active", TIMES), "the last event")
            # As after the first time, when all connections are there.
            wait_until(lambda: usage(actor)[0] <= used[0][0], "no descriptor is left behind")
            wait_until(lambda: usage(actor)[1] <= used[0][1], "nor a thread")
        assert following.seen == [
            event for n in range(TIMES) for event in (("active", n), ("error", n + 1))
        ] + [("active", TIMES)]
        assert sender.stats.restarts == 0, "the actor lives on"


def check_refusal(bus: Bus, adapter: Removable) -> None:
    wait_until(lambda: bus.state is BusState.ERROR, "the bus knows")
    with pytest.raises(CanOperationError) as refused:
        bus.send(frame(0x666))
    assert "666#" in str(refused.value)
    check_words(str(refused.value), adapter)


def check_words(text: str, adapter: Removable) -> None:
    assert adapter.channel in text
    assert re.search("gone|down", text)
    assert not _NOISE.search(text), text


class Following:
    """The distinct (state, interruptions) of a channel's state stream, in order."""

    def __init__(self, channel: ChannelStatus) -> None:
        self.seen: list[tuple[str, int]] = []
        self._context = Context()
        self._feed = StateFeed(
            self._context, parse_ipc(channel.stream), topics.state_topic(channel.name)
        )

    def __enter__(self) -> Following:
        wait_until(self.now, "the first event")
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.close()
        self._context.close()

    def now(self) -> tuple[str, int] | None:
        """The last that was said."""
        while (body := self._feed.receive()) is not None:
            payload = decode_event(body).payload
            assert isinstance(payload, StateEvent)
            said = (payload.state, payload.interruptions)
            if self.seen[-1:] != [said]:
                self.seen.append(said)
        return self.seen[-1] if self.seen else None


def test_what_was_queued_is_reported_and_never_sent(adapter: Removable, runtime: Runtime) -> None:
    with adapter.open(**adapter.slow) as bus:
        for number in range(adapter.burst):
            bus.send(frame(0x400, number))
        adapter.unplug()
        problem = flushed(bus)
        stats = bus.stats
        assert stats.sent + stats.failed == adapter.burst
        if adapter.queues or stats.failed:
            assert re.search(r"400#\w+ was not sent: .*(gone|down).*and \d+ more", problem), problem
            check_words(problem, adapter)
        wait_until(lambda: bus.state is BusState.ERROR, "the bus knows")
        adapter.replug()
        wait_until(lambda: bus.state is BusState.ACTIVE, "it is open again")
        bus.send(frame(0x7FF), timeout=10)
        wait_until(lambda: "7FF#0000000000000000" in adapter.seen(), "new frames are sent")
        assert adapter.seen() == ["7FF#0000000000000000"], "and nothing from before"


def flushed(bus: Bus) -> str:
    """Waits until all is answered; what has failed."""
    try:
        bus.flush(20)
    except CanOperationError as error:
        return str(error)
    return ""
