"""What an actor takes before its predecessor's clients have found it, they receive; nobody else."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from canbroker import Bus, CanError, Message
from canbroker.delivery.order import REPLACED
from canbroker.delivery.ring import anonymous
from canbroker.delivery.subscriber import Subscriber
from canbroker.model.filters import EVERYTHING, CanFilters
from canbroker.model.frame import Frame
from canbroker.system import clock
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context
from tests.support.brokers import status_of, wait_until
from tests.support.stations import Station, numbered, numbers, ready, subscriber, take

VIRTUAL = ("x", "virtual")
LATER = 3 * clock.SECOND


def losses(client: Subscriber) -> list[tuple[int, int | None, str]]:
    return [(loss.epoch, loss.frames, loss.cause) for _, loss in client.order.losses]


def test_who_was_there_before_knows_what_it_has_missed(context: Context, endpoint: str) -> None:
    """To the frame, also who repairs nothing; who is new begins with what is new."""
    memory = anonymous()
    with subscriber(context, endpoint) as client, subscriber(context, endpoint, "c2") as other:
        with Station(endpoint, memory=memory) as first:
            ready(client)
            first.publish(numbered(range(3)))
            assert numbers(take(client, 3)) == [0, 1, 2]
            first.crash()
        with Station(endpoint, epoch=2, memory=memory) as second:
            second.publish(numbered(range(3, 10), identifiers=2))
            assert ready(other) == []
            assert ready(other, "1:7ff") == []
            wait_until(lambda: client.receive() and len(client.order.losses) == 2, "it knows")
            assert losses(client) == [(1, None, REPLACED), (2, 7, REPLACED)]
            assert (client.order.lost, client.order.restarts) == (7, 1)
            second.publish(numbered(range(10, 12), identifiers=2))
            assert numbers(take(client, 2)) == [10, 11]
            assert numbers(take(other, 1)) == [11]
            assert (other.order.lost, other.order.restarts) == (0, 0)
    memory.close()


def test_all_frames_are_kept_until_those_who_were_there_are_back(
    context: Context, endpoint: str
) -> None:
    memory = anonymous()
    Station(endpoint, memory=memory).close()
    now = clock.monotonic_ns()
    with Station(endpoint, 2, memory=memory, awaited=["c1", "c2"]) as second:
        second.publish(numbered(range(5)))
        assert not second.do(lambda publisher: publisher.stop_keeping_all(now + LATER))
        with subscriber(context, endpoint) as client, subscriber(context, endpoint, "c2") as other:
            ready(client, "1:7ff")
            assert second.do(lambda publisher: publisher.wanted()) == EVERYTHING
            assert not second.do(lambda publisher: publisher.stop_keeping_all(now + LATER))
            assert not second.do(lambda publisher: publisher.stop_keeping_all(now + 9 * LATER))
            ready(other, "2:7ff")
            assert second.do(lambda publisher: publisher.stop_keeping_all(now + LATER))
            assert second.do(lambda publisher: publisher.wanted()).text == "001:7ff,002:7ff"
            assert not second.do(lambda publisher: publisher.stop_keeping_all(now + LATER)), (
                "only once"
            )


def test_nobody_is_waited_for_for_ever(endpoint: str) -> None:
    memory = anonymous()
    Station(endpoint, memory=memory).close()
    now = clock.monotonic_ns()
    with Station(endpoint, 2, memory=memory, awaited=["c1"]) as second:
        assert second.do(lambda publisher: publisher.stop_keeping_all(now + 11 * LATER))
    with Station(endpoint, 3, memory=memory) as third:
        assert not third.do(lambda publisher: publisher.stop_keeping_all(clock.monotonic_ns()))
        frames = [Frame(1, 1, 0, bytes(64))] * 1000
        third.publish_each([frames] * 100)  # more than there is room for
        assert third.do(lambda publisher: publisher.stop_keeping_all(clock.monotonic_ns()))


def test_the_first_actor_keeps_what_is_wanted(endpoint: str) -> None:
    with Station(endpoint) as station:
        assert station.do(lambda publisher: publisher.wanted()).nothing
        assert not station.do(
            lambda publisher: publisher.stop_keeping_all(clock.monotonic_ns() + LATER)
        )


# ------------------------------------------------------------------------------------------- buses


ODD = [{"can_id": 1, "can_mask": 0x7FF}]


@contextmanager
def looking_away(runtime: Runtime, filters: CanFilters = None) -> Iterator[tuple[Bus, Bus]]:
    """A bus that has called nothing while its actor was replaced, and one that has sent frames 0
    to 99 before and 100 to 199 afterwards, with their number modulo 2 as identifier."""
    with Bus(*VIRTUAL) as sender, Bus(*VIRTUAL, can_filters=filters) as receiver:
        send(sender, range(100))
        (channel,) = status_of(runtime).channels
        assert channel.pid is not None
        os.kill(channel.pid, signal.SIGKILL)
        send(sender, range(100, 200))
        yield receiver, sender


def send(bus: Bus, numbers: range) -> None:
    messages = [
        Message(arbitration_id=number & 1, data=bytes([number]), is_extended_id=False)
        for number in numbers
    ]

    def is_sent() -> bool:
        try:
            bus.send_batch(messages, 10)
        except CanError:
            return False
        return True

    wait_until(is_sent, "they are sent", timeout=20)


def received_by(bus: Bus, last: int) -> list[int]:
    got: list[int] = []
    while not got or got[-1] != last:
        messages = bus.recv_batch(1000, 10)
        assert messages, f"no {last} after {got}"
        got += [message.data[0] for message in messages]
    return got


def test_who_looked_away_misses_nothing(runtime: Runtime) -> None:
    with looking_away(runtime) as (receiver, sender), Bus(*VIRTUAL) as newcomer:
        send(sender, range(200, 203))
        assert received_by(receiver, 202) == list(range(203))
        assert received_by(newcomer, 202) == [200, 201, 202]
        assert (newcomer.stats.lost, newcomer.stats.restarts) == (0, 0)
        assert (receiver.stats.lost, receiver.stats.restarts) == (0, 1)


def test_who_changes_filters_first_misses_nothing_either(runtime: Runtime) -> None:
    with looking_away(runtime) as (receiver, sender):
        receiver.set_filters(ODD)
        send(sender, range(200, 204))
        assert received_by(receiver, 203) == list(range(1, 204, 2))
        assert (receiver.stats.lost, receiver.stats.restarts) == (0, 1)


def test_who_wants_more_gets_what_it_had_wanted(runtime: Runtime) -> None:
    with looking_away(runtime, ODD) as (receiver, sender):
        receiver.set_filters(None)
        send(sender, range(200, 204))
        assert received_by(receiver, 203) == [*range(1, 200, 2), *range(200, 204)]
        assert (receiver.stats.lost, receiver.stats.restarts) == (0, 1)


def test_who_would_be_disconnected_for_being_slow_is_not(runtime: Runtime) -> None:
    with Bus(*VIRTUAL) as sender, Bus(*VIRTUAL, on_slow="disconnect") as receiver:
        send(sender, range(3))
        (channel,) = status_of(runtime).channels
        assert channel.pid is not None
        os.kill(channel.pid, signal.SIGKILL)
        send(sender, range(3, 5))
        wait_until(lambda: receiver.recv(0.1) is None and receiver.stats.restarts, "it knows")
        assert receiver.stats.lost == 2
        send(sender, range(5, 7))
        assert received_by(receiver, 6) == [5, 6]
