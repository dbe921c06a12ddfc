"""A channel's publisher on a thread of its own, as an actor has it, told what to do by tests."""

from __future__ import annotations

import mmap
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import zmq

from canbroker.actors.mailbox import Mailbox
from canbroker.delivery.publisher import Presence, Publisher
from canbroker.delivery.ring import Ring, anonymous
from canbroker.delivery.subscriber import Identity, Subscriber
from canbroker.model import filters
from canbroker.model.frame import EchoFrame, Frame
from canbroker.system import clock
from canbroker.system.wake import Wake
from canbroker.transport.address import parse_ipc
from canbroker.transport.sockets import Context
from canbroker.transport.stream_link import StreamLink
from canbroker.transport.waiter import Waiter
from canbroker.wire.stream import StateEvent, encode_state

DEADLINE_S = 20.0
CHANNEL = "can0"
STATE = StateEvent(state="active", info="test")

_T = TypeVar("_T")


@contextmanager
def subscriber(context: Context, endpoint: str, client_id: str = "c1") -> Iterator[Subscriber]:
    link = StreamLink(context, parse_ipc(endpoint))
    made = Subscriber(link, Identity(CHANNEL, client_id))
    try:
        yield made
    finally:
        made.close()


@contextmanager
def plain(context: Context, endpoint: str, *subscriptions: bytes) -> Iterator[zmq.Socket[bytes]]:
    """A SUB socket that knows nothing of the protocol."""
    socket = context.subscriber(parse_ipc(endpoint))
    try:
        socket.setsockopt(zmq.RCVTIMEO, int(DEADLINE_S * 1000))
        for topic in subscriptions:
            socket.subscribe(topic)
        yield socket
    finally:
        socket.close()


def ready(client: Subscriber, text: str = "") -> list[EchoFrame]:
    """Subscribes; returns the frames that arrived under the old filters."""
    client.subscribe(filters.parse(text), clock.deadline_after(DEADLINE_S))
    return received(client)


def received(client: Subscriber) -> list[EchoFrame]:
    """Takes over what has arrived."""
    frames, _, _ = client.order.take()
    return frames


def take(client: Subscriber, count: int) -> list[EchoFrame]:
    """The next ``count`` frames, at least."""
    taken: list[EchoFrame] = []
    wake = Wake()
    try:
        while len(taken) < count:
            client.receive()
            frames = received(client)
            taken += frames
            if not frames:
                client.wait(wake, None)  # raises when the channel is silent
    finally:
        wake.close()
    return taken


def numbered(numbers: Sequence[int], identifiers: int = 1) -> list[Frame]:
    """Frames with their number as data, and as identifier modulo ``identifiers``."""
    return [Frame(1, number % identifiers, 0, number.to_bytes(4, "big")) for number in numbers]


def numbers(frames: Sequence[Frame]) -> list[int]:
    return [
        int.from_bytes(frame.data, "big") for frame in frames if not isinstance(frame.data, int)
    ]


class Station:
    """Serves subscriptions and beats until closed. ``presences`` is who came and went."""

    def __init__(
        self,
        endpoint: str,
        epoch: int = 1,
        *,
        beats: bool = True,
        memory: mmap.mmap | None = None,
        awaited: Sequence[str] = (),
    ) -> None:
        """``memory``: of a predecessor's ring; ``awaited``: its clients."""
        self._memory = memory or anonymous()
        self._awaited = awaited
        self.presences: list[Presence] = []
        self.deaf = False  # takes no subscriptions
        self._beats = beats
        self._serves = True
        self._streaming: Callable[[], Sequence[Frame]] | None = None
        self._jobs: Mailbox[Callable[[Publisher], None] | None] = Mailbox()
        self._context = Context()
        made: queue.Queue[BaseException | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, args=(endpoint, epoch, made))
        self._thread.start()
        failure = made.get()
        if failure is not None:
            self._end()
            raise failure

    def __enter__(self) -> Station:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def do(self, job: Callable[[Publisher], _T]) -> _T:
        """The result of ``job``, done by the publisher's thread."""
        done: queue.Queue[_T] = queue.Queue()
        self._jobs.put(lambda publisher: done.put(job(publisher)))
        return done.get(timeout=DEADLINE_S)

    def publish(self, frames: Sequence[Frame]) -> None:
        self.do(lambda publisher: publisher.publish(frames))

    def publish_each(self, batches: Sequence[Sequence[Frame]]) -> None:
        def publish(publisher: Publisher) -> None:
            for frames in batches:
                publisher.publish(frames)

        self.do(publish)

    def stream(self, source: Callable[[], Sequence[Frame]] | None) -> None:
        """Publishes what ``source`` gives, over and over; ``None`` ends that."""
        self.do(lambda _: setattr(self, "_streaming", source))

    def routes(self) -> int:
        return self.do(len)

    def refused(self) -> int:
        return self.do(lambda publisher: publisher.refused.counts.total())

    def here(self) -> set[str]:
        """The clients that have come and not gone."""
        here: set[str] = set()
        for presence in list(self.presences):
            (here.add if presence.present else here.discard)(presence.client_id)
        return here

    def crash(self) -> None:
        """Ends without a word."""

        self.do(lambda publisher: self._closed(publisher._xpub.close))
        self._end()

    def close(self) -> None:
        if self._thread.is_alive():
            self.do(lambda publisher: self._closed(lambda: publisher.close("the test is over")))
            self._end()

    def _closed(self, close: Callable[[], None]) -> None:
        self._serves = False
        close()

    def _end(self) -> None:
        self._jobs.put(None)
        self._thread.join()
        self._context.close()
        self._jobs.close()

    def _run(self, endpoint: str, epoch: int, made: queue.Queue[BaseException | None]) -> None:
        try:
            ring = Ring(self._memory, epoch, 60)
            publisher = Publisher(
                self._context, parse_ipc(endpoint), CHANNEL, epoch, ring, self._awaited
            )
        except BaseException as error:  # noqa: BLE001 - raised again by who asked for it
            made.put(error)
            return
        made.put(None)
        while True:
            for job in self._jobs.take():
                if job is None:
                    return
                job(publisher)
            if self._serves:
                self._step(publisher)

    def _step(self, publisher: Publisher) -> None:
        waiter = Waiter()
        waiter.add(self._jobs)
        if not self.deaf:
            publisher.watch(waiter)
        waiter.wait(0 if self._streaming else 20 * clock.MILLISECOND)
        if not self.deaf:
            for change in publisher.subscriptions():
                assert isinstance(change, Presence)  # no test asks here to be told of a leave
                self.presences.append(change)
                if change.present:
                    publisher.ready(change, encode_state(STATE))
        if self._streaming:
            publisher.publish(self._streaming())
        if self._beats:
            publisher.heartbeat(clock.monotonic_ns())
