"""Consumers of NATS JetStream against the real server: what comes, and what is said of the rest."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from canbroker.errors import CanOperationError
from canbroker.integrations.nats import Batch, Batches, Gap, Position, batches
from canbroker.jetstream.heads import INTERRUPTED, LOST_FRAMES, RESTARTED
from tests.support.brokers import wait_until
from tests.support.nats_benches import (
    EPOCH,
    NatsBench,
    ResumingBench,
    connected,
    make_streams,
    message,
    number_of,
)
from tests.support.nats_servers import NatsServer

WAIT_S = 20.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path) as server:
        yield server


def publish(
    server: NatsServer, work: Callable[[NatsBench], Awaitable[Any]], bench: str = "bench-7"
) -> None:
    """Has a bench of site ``lab`` publish; makes the streams if they are missing."""

    async def run() -> None:
        client = await connected(server.url)
        try:
            await make_streams(client)
            publisher = NatsBench(client, "lab", bench, ("body", "drive"))
            await work(publisher)
            await publisher.flush()
        finally:
            await client.close()

    asyncio.run(run())


def fill(count: int, together: int = 64) -> Callable[[NatsBench], Awaitable[None]]:
    """So many messages of each channel."""

    async def work(bench: NatsBench) -> None:
        for _ in range(count):
            for channel in bench.channels:
                await bench.publish(channel, together)

    return work


def ledger(received: list[Batch]) -> dict[tuple[str, str, int], list[int]]:
    """The numbers that the frames themselves say, by bench, channel and epoch."""
    found: dict[tuple[str, str, int], list[int]] = {}
    for batch in received:
        numbers = [number_of(frame.data) for frame in batch.frames]
        assert numbers == list(batch.seqs)
        assert batch.first_seq == (numbers[0] if numbers else batch.first_seq)
        found.setdefault((batch.bench, batch.channel, batch.epoch), []).extend(numbers)
    return found


def everything(server: NatsServer, **wish: Any) -> list[Batch]:
    return list(batches(server.url, **({"after": 0, "follow": False} | wish)))


# ---------------------------------------------------------------------------------- what comes


def test_each_frame_comes_once_and_in_order(server: NatsServer) -> None:
    publish(server, fill(300))
    received = everything(server)
    whole = list(range(300 * 64))
    assert ledger(received) == {
        ("bench-7", "body", EPOCH): whole,
        ("bench-7", "drive", EPOCH): whole,
    }
    assert [batch.stream_seq for batch in received] == list(range(1, 601))
    assert {batch.site for batch in received} == {"lab"}
    assert not any(batch.gaps for batch in received)
    assert received[-1].pending == 0


def test_a_batch_has_messages_as_a_bus_receives_them(server: NatsServer) -> None:
    publish(server, fill(1, together=20))
    (batch,) = everything(server, channel="drive")
    assert len(batch) == len(batch.messages) == 20
    last, extended = batch.messages[19], batch.messages[16]
    assert (last.arbitration_id, last.channel, last.is_extended_id) == (3, "drive", False)
    assert bytes(last.data) == (19).to_bytes(8, "big")
    assert last.timestamp == pytest.approx(batch.frames[19].timestamp_ns / 1e9)
    assert extended.is_extended_id
    assert "drive" in repr(batch)


def test_it_is_the_same_with_asyncio(server: NatsServer) -> None:
    publish(server, fill(100))

    async def read() -> list[Batch]:
        async with batches(server.url, after=0, follow=False) as stream:
            return [batch async for batch in stream]

    async def read_without_entering() -> list[Batch]:
        return [batch async for batch in batches(server.url, after=0, follow=False)]

    assert ledger(asyncio.run(read())) == ledger(everything(server))
    assert ledger(asyncio.run(read_without_entering())) == ledger(everything(server))


def test_what_comes_from_now_on(server: NatsServer) -> None:
    publish(server, fill(5))
    with batches(server.url) as stream:
        assert stream.take(0.3) is None
        assert not stream.is_over
        publish(server, fill(3), bench="bench-8")
        received = [stream.take(WAIT_S) for _ in range(6)]
    assert [batch.stream_seq for batch in received if batch] == [*range(11, 17)]


def test_it_begins_at_a_sequence_a_time_or_a_position(server: NatsServer) -> None:
    publish(server, fill(5))
    time.sleep(0.02)  # what the server stores from here on has another time
    between = time.time()
    publish(server, fill(5), bench="bench-8")
    expected = [*range(11, 21)]

    def sequences(**wish: Any) -> list[int]:
        return [batch.stream_seq for batch in batches(server.url, follow=False, **wish)]

    assert sequences(after=10) == expected
    assert sequences(since=between) == expected
    assert sequences(since=datetime.fromtimestamp(between, UTC)) == expected
    with batches(server.url, after=0) as stream:
        for _ in range(10):
            stream.take(WAIT_S)
        position = stream.position
    assert position is not None
    assert sequences(after=position) == sequences(after=str(position)) == expected
    assert sequences(after=20) == []
    assert sequences() == []


def test_only_what_is_wanted_leaves_the_server(server: NatsServer) -> None:
    for bench in ("bench-7", "bench 8.1/*>", "bench-9"):
        publish(server, fill(2), bench=bench)

    def names(**wish: Any) -> set[tuple[str, str]]:
        return {(batch.bench, batch.channel) for batch in everything(server, **wish)}

    assert names(bench="bench 8.1/*>", channel="body") == {("bench 8.1/*>", "body")}
    assert names(bench=["bench-7", "bench-9"], channel="drive") == {
        ("bench-7", "drive"),
        ("bench-9", "drive"),
    }
    assert names(site="lab", channel=["drive"]) == {
        ("bench-7", "drive"),
        ("bench 8.1/*>", "drive"),
        ("bench-9", "drive"),
    }
    assert names(site="elsewhere") == set()


def test_filters_leave_frames_out_and_keep_their_numbers(server: NatsServer) -> None:
    publish(server, fill(2))
    wanted = [{"can_id": 3, "can_mask": 0x7FF, "extended": False}]
    received = everything(server, channel="body", can_filters=wanted)
    assert ledger(received)["bench-7", "body", EPOCH] == [*range(3, 128, 8)]
    assert everything(server, can_filters=[{"can_id": 99, "can_mask": 0x7FF}]) == []


def test_many_are_taken_together(server: NatsServer) -> None:
    publish(server, fill(50))
    with batches(server.url, after=0, follow=False) as stream:
        first = stream.take_many(frames=640, seconds=WAIT_S)
        assert len(first) == 10
        assert stream.position is not None
        assert stream.position.sequence == 10
        rest = stream.take_many(seconds=WAIT_S)
        assert len(rest) == 90
        assert stream.is_over
        assert stream.take_many() == []
        assert stream.take() is None


def test_a_slow_consumer_leaves_messages_at_the_server(server: NatsServer) -> None:
    publish(server, fill(1000, together=8))

    async def read() -> tuple[int, list[Batch]]:
        async with batches(server.url, after=0, follow=False) as stream:
            first = await stream.receive()
            await asyncio.sleep(0.5)  # what the server sends on its own comes meanwhile
            reader: Any = stream._reader
            waiting = len(reader._arrived)
            assert first is not None
            return waiting, [first, *[batch async for batch in stream]]

    waiting, received = asyncio.run(read())
    assert 0 < waiting < 200
    assert ledger(received)["bench-7", "body", EPOCH] == [*range(8000)]


@pytest.mark.long
def test_an_idle_consumer_goes_on_when_something_comes(server: NatsServer) -> None:
    publish(server, fill(1))
    with batches(server.url, after=0) as stream:
        assert len(stream.take_many(seconds=3.5)) == 2  # longer than the server may be silent
        publish(server, fill(1), bench="bench-8")
        assert stream.take(WAIT_S) is not None


# ------------------------------------------------------------------------------ what is missing


def test_gaps_come_in_their_place(server: NatsServer) -> None:
    told = [
        Gap(LOST_FRAMES, 1000, "the ring has no more"),
        Gap(INTERRUPTED, None, "unplugged: ü"),
    ]

    async def work(bench: NatsBench) -> None:
        await bench.publish("body")
        for gap in told:
            await bench.gap("body", gap)
        await bench.publish("body")
        bench.next["body"] = 0
        await bench.gap("body", Gap(RESTARTED, None, "killed"), EPOCH + 1)
        await bench.publish("body", epoch=EPOCH + 1)
        bench.next["body"] = 7
        await bench.publish("body", epoch=EPOCH + 2)  # nobody has said that it was restarted

    publish(server, work)
    received = everything(server)
    gaps = [gap for batch in received for gap in batch.gaps]
    assert gaps[:3] == [*told, Gap(RESTARTED, None, "killed")]
    assert [(gap.kind, gap.lost) for gap in gaps[3:]] == [(RESTARTED, None)]
    assert [len(batch) for batch in received] == [64, 0, 0, 64, 0, 64, 64]
    assert ledger(received)["bench-7", "body", EPOCH] == [*range(64), *range(1064, 1128)]


def test_what_the_stream_has_twice_comes_once(server: NatsServer) -> None:
    async def work(bench: NatsBench) -> None:
        subject = "body"
        for first, count in [(0, 64), (64, 64), (32, 64), (1, 100), (96, 64), (160, 1)]:
            await bench.put(subject, *message(subject, first, count))
            await bench.flush()

    publish(server, work)
    with batches(server.url, after=0, follow=False) as stream:
        assert ledger(list(stream))["bench-7", "body", EPOCH] == [*range(161)]
        assert stream.duplicates == 64 + 100 + 32


def test_what_has_left_the_stream_is_counted(server: NatsServer) -> None:
    publish(server, fill(10))
    with batches(server.url, after=0) as stream:
        for _ in range(6):
            stream.take(WAIT_S)
        position = stream.position

    async def remove(bench: NatsBench) -> None:
        for sequence in (*range(1, 11), 15):
            await bench._stream.delete_msg("CAN_FRAMES", sequence)

    publish(server, remove)
    resumed = everything(server, after=position)
    assert [(batch.channel, batch.gaps[0][:2]) for batch in resumed if batch.gaps] == [
        ("body", ("missing", 128)),  # 7 and 9
        ("drive", ("missing", 128)),  # 8 and 10
        ("body", ("missing", 64)),  # 15
    ]
    late = everything(server, after=2)
    assert [(batch.channel, batch.gaps[0][:2]) for batch in late if batch.gaps] == [
        ("body", ("missing", None)),
        ("drive", ("missing", None)),
        ("body", ("missing", 64)),
    ]


def test_messages_of_others_are_left_out(server: NatsServer) -> None:
    async def work(bench: NatsBench) -> None:
        await bench.publish("body")
        await bench.put("body", {}, b"hello")
        for number, (changed, data) in enumerate(
            [
                ({}, b"\xff" * 100),
                ({}, b""),
                ({"Can-Count": "63"}, None),
                ({"Can-Count": "lots"}, None),
                ({"Can-Gap": "lost"}, None),
                ({"Nats-Msg-Id": "1:2"}, None),
            ],
            start=1000,
        ):
            headers, body = message("body", number, 64)  # with ids of their own
            await bench.put("body", headers | changed, body if data is None else data)
        headers, body = message("body", 64, 64)
        await bench._stream.publish("can.v1.lab.%zz.body.rx", body, headers=headers | {"x": "y"})
        await bench.publish("drive")

    publish(server, work)
    with batches(server.url, after=0, follow=False) as stream:
        received = list(stream)
        assert {key[1]: numbers for key, numbers in ledger(received).items()} == {
            "body": [*range(64)],
            "drive": [*range(64)],
        }
        assert stream.refused == 8


# ------------------------------------------------------------------------ servers come and go


class Traffic:
    """A bench in an event loop of its own, stepped by the test; goes on after each trouble."""

    def __init__(self, server: NatsServer) -> None:
        self._runner = asyncio.Runner()
        self._url = server.url
        self._bench = ResumingBench(server.url)
        self.administer(make_streams)

    def publish(self, until: int, together: int = 64) -> None:
        """Publishes frames up to this number; waits for the server if it is away."""
        work = self._bench.publish_until("body", until, together)
        self._runner.run(asyncio.wait_for(work, WAIT_S * 2))

    def administer(self, work: Callable[[Any], Awaitable[Any]]) -> None:
        """Does something with a connection."""

        async def run() -> None:
            client = await connected(self._url)
            try:
                await work(client)
            finally:
                await client.close()

        self._runner.run(run())

    def close(self) -> None:
        with self._runner:
            self._runner.run(self._bench.close())


@pytest.fixture
def traffic(server: NatsServer) -> Iterator[Traffic]:
    traffic = Traffic(server)
    yield traffic
    traffic.close()


def taken(stream: Batches, until: int) -> list[Batch]:
    """What comes until number ``until`` of channel ``body`` has been there."""
    received: list[Batch] = []
    deadline = time.monotonic() + 3 * WAIT_S
    while not received or not received[-1].frames or received[-1].seqs[-1] + 1 < until:
        batch = stream.take(WAIT_S)
        assert time.monotonic() < deadline
        if batch is not None:
            received.append(batch)
    return received


def test_a_server_that_is_killed_costs_nothing(server: NatsServer, traffic: Traffic) -> None:
    traffic.publish(64_000)
    received = []
    with batches(server.url, after=0) as stream:
        for round_number in range(1, 4):
            received += [stream.take(WAIT_S) for _ in range(100)]
            server.kill()
            server.start()
            traffic.publish(64_000 + 6400 * round_number)
        taken_so_far = [batch for batch in received if batch is not None]
        position = stream.position
        assert position is not None
        next_number = position.places["can.v1.lab.bench-7.body.rx"][1]
        rest = taken(stream, 64_000 + 3 * 6400)
    numbers = ledger(taken_so_far)["bench-7", "body", EPOCH]
    assert numbers == sorted(set(numbers))
    rest_numbers = ledger(rest)["bench-7", "body", EPOCH]
    assert rest_numbers == [*range(next_number, 64_000 + 3 * 6400)]
    assert not any(batch.gaps for batch in [*taken_so_far, *rest])


@pytest.mark.long
def test_a_server_that_hangs_is_waited_for(server: NatsServer, traffic: Traffic) -> None:
    traffic.publish(640)
    with batches(server.url, after=0) as stream:
        received = taken(stream, 640)
        server.pause()
        assert stream.take(3.0) is None
        server.resume()
        traffic.publish(1280)
        received += taken(stream, 1280)
    assert ledger(received)["bench-7", "body", EPOCH] == [*range(1280)]


def test_a_consumer_that_the_server_has_forgotten_is_made_again(
    server: NatsServer, traffic: Traffic
) -> None:
    traffic.publish(64_000)
    with batches(server.url, after=0) as stream:
        received = [batch for _ in range(3) if (batch := stream.take(WAIT_S)) is not None]
        reader: Any = stream._reader
        stream._run(reader._delete(reader._consumer))
        received += taken(stream, 64_000)
    assert ledger(received)["bench-7", "body", EPOCH] == [*range(64_000)]


class WeakDisk:
    """The store of a server as it is now, which can take the place of a later one: as a loss of
    power leaves it."""

    def __init__(self, server: NatsServer, directory: Path) -> None:
        self._server = server
        self._store, self._old = directory / "n1.store", directory / "old"
        server.stop()
        shutil.copytree(self._store, self._old)
        server.start()

    def lose(self) -> None:
        """Loses what came since."""
        self._server.kill()
        shutil.rmtree(self._store)
        shutil.copytree(self._old, self._store)
        self._server.start()


@pytest.fixture
def disk(server: NatsServer, traffic: Traffic, tmp_path: Path) -> WeakDisk:
    """The stream has 12,800 frames; it may lose all but 6,400."""
    traffic.publish(6400)
    disk = WeakDisk(server, tmp_path)
    traffic.publish(12_800)
    return disk


def test_a_stream_that_has_lost_its_end_is_read_again(
    server: NatsServer, traffic: Traffic, disk: WeakDisk
) -> None:
    """The bridge publishes the end again, in messages of other sizes."""
    with batches(server.url, after=0) as stream:
        received = taken(stream, 12_800)
        disk.lose()
        traffic.publish(19_210, together=50)
        received += taken(stream, 19_210)
        position = stream.position
    assert ledger(received)["bench-7", "body", EPOCH] == [*range(19_210)]
    assert not any(batch.gaps for batch in received)
    assert everything(server, after=position) == []


@pytest.mark.long
def test_a_position_in_an_end_that_was_lost_is_still_good(
    server: NatsServer, traffic: Traffic, disk: WeakDisk
) -> None:
    with batches(server.url, after=0) as stream:
        received = taken(stream, 9600)
        position = stream.position
    disk.lose()
    traffic.publish(19_210, together=50)
    received += everything(server, after=position)
    assert ledger(received)["bench-7", "body", EPOCH] == [*range(19_210)]


def test_a_stream_that_is_deleted_ends_it_with_an_error(
    server: NatsServer, traffic: Traffic
) -> None:
    traffic.publish(64)
    with batches(server.url, after=0) as stream:
        assert stream.take(WAIT_S) is not None
        traffic.administer(lambda client: client.jetstream().delete_stream("CAN_FRAMES"))
        with pytest.raises(CanOperationError, match="no stream 'CAN_FRAMES'"):
            stream.take(WAIT_S)
        traffic.administer(make_streams)
        traffic.publish(64)
        with pytest.raises(CanOperationError, match="was made anew at"):
            stream.take(WAIT_S)


def test_a_consumer_whose_login_is_taken_away_is_told(tmp_path: Path) -> None:
    users = 'authorization {{ users: [{{user: "{}", password: "secret"}}] }}\n'
    with NatsServer(tmp_path, users.format("ann")) as server:
        url = server.url.replace("//", "//ann:secret@")

        async def make() -> None:
            client = await connected(url)
            await make_streams(client)
            await client.close()

        asyncio.run(make())
        with batches(url, after=0) as stream:
            assert stream.take(0.1) is None
            server.kill()
            server.more = users.format("bob")
            server.start()
            with pytest.raises(CanOperationError, match="refuses our credentials"):
                stream.take(WAIT_S)


def test_a_consumer_leaves_nothing_at_the_server(server: NatsServer) -> None:
    publish(server, fill(2))
    assert everything(server)

    async def consumers() -> int:
        client = await connected(server.url)
        try:
            return len(await client.jetstream().consumers_info("CAN_FRAMES"))
        finally:
            await client.close()

    wait_until(lambda: asyncio.run(consumers()) == 0, "the consumer was deleted")


def test_a_position_survives_being_a_text() -> None:
    position = Position(
        stream="S",
        created="2026",
        sequence=1,
        message_id="1:a:2",
        time_ns=5,
        places={"can.v1.a.b.c.rx": (1, 2)},
    )
    assert Position.parse(str(position)) == position
    for text in ("", "{}", "[]", str(position).replace("1", "-1"), str(position) + "x"):
        with pytest.raises(ValueError, match="is not a position"):
            Position.parse(text)
