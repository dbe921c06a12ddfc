"""Streams over real sockets: nothing is lost unseen, nobody's mistake is another's trouble."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from canbroker.errors import CanOperationError, CanTimeoutError
from canbroker.model import filters
from canbroker.model.filters import EVERYTHING
from canbroker.model.frame import Frame
from canbroker.system import clock
from canbroker.system.wake import Wake
from canbroker.transport.sockets import Context
from canbroker.wire import stream
from tests.support.brokers import wait_until
from tests.support.processes import Program
from tests.support.stations import (
    DEADLINE_S,
    STATE,
    Station,
    numbered,
    numbers,
    plain,
    ready,
    received,
    subscriber,
    take,
)

# ------------------------------------------------------------------------------- subscribing


def test_what_is_published_after_subscribing_arrives_and_nothing_before(
    context: Context, endpoint: str
) -> None:
    with Station(endpoint) as station, subscriber(context, endpoint) as client:
        station.publish(numbered(range(10)))
        assert ready(client) == []
        station.publish(numbered(range(10, 20)))
        assert numbers(take(client, 10)) == list(range(10, 20))
        assert (client.order.received, client.order.lost, client.order.restarts) == (10, 0, 0)


@pytest.mark.parametrize("attempt", range(5))
def test_joining_a_running_stream_misses_nothing(
    context: Context, endpoint: str, attempt: int
) -> None:
    with Station(endpoint) as station, plain(context, endpoint, b"can0/rx;"):
        # Someone else has the route already, and it runs.
        wait_until(lambda: station.routes() == 1, "the route is open")
        counter = itertools.count()
        station.stream(lambda: numbered([next(counter)]))
        with subscriber(context, endpoint) as client:
            event = client.subscribe(EVERYTHING, clock.deadline_after(DEADLINE_S))
            got = numbers(take(client, 300))
            station.stream(None)
            assert got == list(range(got[0], got[0] + len(got)))
            assert event.state == STATE
            assert client.order.lost == 0


def test_a_change_of_filters_loses_and_repeats_nothing(context: Context, endpoint: str) -> None:
    with Station(endpoint) as station, subscriber(context, endpoint) as client:
        counter = itertools.count()
        ready(client, "0:7ff")
        station.stream(lambda: numbered([next(counter), next(counter)], identifiers=8))
        got: list[Frame] = []
        for text in ("0:7fe", "", "0:7ff,4:7ff", "s0:7fc", "0:7ff") * 12:
            got += take(client, 5)
            got += ready(client, text)
        station.stream(None)
        last = numbered([(next(counter) + 7) // 8 * 8], identifiers=8)
        station.publish(last)
        while numbers(got)[-1] != numbers(last)[0]:
            got += take(client, 1)
        everything = numbers(got)
        assert everything == sorted(set(everything))  # in order, none twice
        always = [number for number in everything if number % 8 == 0]  # passed every filter
        assert always == list(range(0, always[-1] + 8, 8))
        assert client.order.lost == 0
        assert station.routes() == 1


def test_the_same_filters_again_change_nothing(context: Context, endpoint: str) -> None:
    with Station(endpoint) as station, subscriber(context, endpoint) as client:
        ready(client, "1:7")
        ready(client, "1:7")
        assert len(station.presences) == 1


def test_a_change_that_times_out_loses_nothing(context: Context, endpoint: str) -> None:
    with Station(endpoint) as station, subscriber(context, endpoint) as client:
        ready(client)
        station.deaf = True
        station.publish(numbered(range(5)))
        with pytest.raises(CanTimeoutError, match="'can0' did not confirm"):
            client.subscribe(filters.parse("1:7"), clock.deadline_after(0.2))
        assert client.filters == EVERYTHING
        station.publish(numbered(range(5, 8)))
        assert numbers(take(client, 8)) == list(range(8))
        assert ready(client) == []  # still in force, so at once
        station.deaf = False
        assert ready(client, "7:7") == []
        station.publish(numbered(range(8, 16), identifiers=8))
        assert numbers(take(client, 1)) == [15]
        assert client.order.lost == 0


def test_routes_are_shared_and_end_with_their_last_subscriber(
    context: Context, endpoint: str
) -> None:
    spellings = (
        [{"can_id": 0x100, "can_mask": 0x700}, {"can_id": 0x151, "can_mask": 0x7FF}],
        [{"can_id": 0x1FF, "can_mask": 0x700}],
    )
    with Station(endpoint) as station:
        with subscriber(context, endpoint, "a") as one:
            with subscriber(context, endpoint, "b") as two:
                for client, can_filters in zip((one, two), spellings, strict=True):
                    wanted = filters.validate(can_filters)
                    client.subscribe(wanted, clock.deadline_after(DEADLINE_S))
                assert station.routes() == 1
                assert station.here() == {"a", "b"}
                station.publish([Frame(1, 0x100, 0, b"x"), Frame(1, 0x200, 0, b"y")])
                for client in (one, two):
                    assert [frame.data for frame in take(client, 1)] == [b"x"]
            wait_until(lambda: station.here() == {"a"}, "b has left")
            assert station.routes() == 1
        wait_until(lambda: station.here() == set(), "a has left")
        wait_until(lambda: station.routes() == 0, "the route is dropped")
        assert station.do(lambda publisher: publisher.wanted()) == filters.NOTHING


def test_a_killed_process_is_seen_to_leave(endpoint: str) -> None:
    source = """
    from canbroker.system import clock
    from canbroker.transport.address import parse_ipc
    from canbroker.transport.sockets import Context
    from canbroker.delivery.subscriber import Identity, Subscriber
    from canbroker.transport.stream_link import StreamLink
    from canbroker.model.filters import EVERYTHING
    link = StreamLink(Context(), parse_ipc(arguments["endpoint"]))
    client = Subscriber(link, Identity("can0", "victim"))
    client.subscribe(EVERYTHING, clock.deadline_after(20))
    say("ready")
    hear()
    """
    with Station(endpoint) as station, Program(source, endpoint=endpoint) as victim:
        assert victim.said() == "ready"
        assert station.here() == {"victim"}
        assert station.routes() == 1
        victim.kill()
        wait_until(lambda: station.here() == set(), "presence ends")
        wait_until(lambda: station.routes() == 0, "the route ends")


# --------------------------------------------------------------------------------- accounting


def test_more_frames_than_a_batch_holds_are_split(context: Context, endpoint: str) -> None:
    with Station(endpoint) as station, subscriber(context, endpoint) as client:
        ready(client)
        station.publish(numbered(range(2500)))
        batches: list[Sequence[Frame]] = []
        while sum(map(len, batches)) < 2500:
            batches.append(take(client, 1))
        assert [len(batch) for batch in batches] == [1024, 1024, 452]
        assert numbers([frame for batch in batches for frame in batch]) == list(range(2500))


def test_a_slow_subscriber_knows_what_it_has_lost_to_the_last_frame(
    context: Context, endpoint: str
) -> None:
    total = 60_000  # batches: more than both ends and the kernel hold
    with (
        Station(endpoint) as station,
        subscriber(context, endpoint, "slow") as slow,
        subscriber(context, endpoint, "idle") as idle,
    ):
        ready(slow)
        ready(idle, "7ff:7ff")
        for start in range(0, total, 1000):
            chunk = [numbered([number]) for number in range(start, start + 1000)]
            station.publish_each(chunk)
        got: list[int] = []
        wake = Wake()
        while (
            slow.order.received + slow.order.lost < total
        ):  # the tail shows with the next heartbeat
            slow.receive()
            got += numbers(received(slow))
            slow.wait(wake, clock.MILLISECOND)
        wake.close()
        assert slow.order.lost > 0
        assert slow.order.received + slow.order.lost == total
        assert len(got) == slow.order.received
        assert got == sorted(set(got))
        assert idle.order.lost == 0


def test_a_gap_in_the_numbers_is_loss_and_a_heartbeat_shows_it_at_the_end(
    context: Context, endpoint: str
) -> None:
    with Station(endpoint) as station, subscriber(context, endpoint) as client:

        def skip(count: int) -> None:
            (route,) = station.do(lambda publisher: publisher._table.routes())
            route.next_seq += count

        ready(client)
        station.publish(numbered([0]))
        skip(3)
        station.publish(numbered([4]))
        assert numbers(take(client, 2)) == [0, 4]
        assert client.order.lost == 3
        skip(2)
        wait_until(lambda: client.receive() and client.order.lost == 5, "the heartbeat tells")
        assert (client.order.received, client.order.lost, client.order.restarts) == (2, 5, 0)


def test_losses_before_the_broker_are_passed_on(context: Context, endpoint: str) -> None:
    with Station(endpoint) as station, subscriber(context, endpoint) as client:
        ready(client)
        station.do(lambda publisher: setattr(publisher, "dropped_upstream", 7))
        station.publish(numbered([0]))
        take(client, 1)
        assert (client.dropped_upstream, client.order.lost) == (7, 0)


@pytest.mark.parametrize("epoch", [2, 1], ids=["actor restarted", "connection lost"])
def test_a_route_that_begins_anew_is_seen(context: Context, endpoint: str, epoch: int) -> None:
    with subscriber(context, endpoint) as client:
        with Station(endpoint, epoch=1) as station:
            ready(client)
            station.publish(numbered(range(10)))
            assert len(take(client, 10)) == 10
            station.crash()
        with Station(endpoint, epoch=epoch) as station:
            # libzmq subscribes again by itself, when the socket is used.
            wait_until(lambda: client.readable() and station.here(), "the client is back")
            assert station.here() == {"c1"}
            assert station.routes() == 1
            station.publish(numbered(range(3)))
            assert numbers(take(client, 3)) == [0, 1, 2]
        assert (client.order.received, client.order.lost, client.order.restarts) == (13, 0, 1)


def test_the_end_of_a_stream_says_why(context: Context, endpoint: str) -> None:
    with subscriber(context, endpoint) as client:
        with Station(endpoint) as station:
            ready(client)
            station.publish(numbered([0]))
        assert len(take(client, 1)) == 1
        with pytest.raises(CanOperationError, match="'can0': the test is over"):
            take(client, 1)


def test_a_channel_that_says_nothing_is_gone(context: Context, endpoint: str) -> None:
    with Station(endpoint, beats=False), subscriber(context, endpoint) as client:
        ready(client)
        with pytest.raises(CanOperationError, match="'can0' is silent"):
            take(client, 1)


def test_an_idle_route_beats(context: Context, endpoint: str) -> None:
    topic = b"can0/rx?1:7ff;"
    with Station(endpoint, epoch=9) as station, plain(context, endpoint, topic) as socket:
        wait_until(lambda: station.routes() == 1, "the route is open")
        station.publish([Frame(1, 1, 0, b""), Frame(1, 2, 0, b"")])
        beats: list[tuple[int, int, object]] = []
        while len(beats) < 3:
            batch = stream.decode_batch(socket.recv_multipart()[1])
            if batch.kind == stream.HEARTBEAT and batch.first_seq:
                beats.append((batch.epoch, batch.first_seq, batch.payload))
        assert beats == [(9, 1, [])] * 3
