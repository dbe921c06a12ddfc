"""Receives the messages of chosen signals, and decodes them. No thread of its own."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from canbroker.bus.awaiting import readable
from canbroker.bus.connection import ANSWER_S, Connection
from canbroker.bus.samples import Condition, Inbox, Sample
from canbroker.delivery.order import Place
from canbroker.errors import CanOperationError, CanTimeoutError
from canbroker.model.message import Message, to_frame
from canbroker.signals.selection import Key, Selection
from canbroker.system import clock
from canbroker.transport.waiter import Waiter
from canbroker.wire.replay import History, Past
from canbroker.wire.topics import route_topic

if TYPE_CHECKING:
    from canbroker.bus.receiving import Reception
    from canbroker.signals.decoder import Decoder

#: How often a waiting thread checks whether another thread has received its sample.
_LOOK_NS: Final = 50 * clock.MILLISECOND

#: The same where a bus has no descriptor.
_POLL_NS: Final = 5 * clock.MILLISECOND

#: Messages that are decoded at a time.
_AT_ONCE: Final = 1024


class SignalBus(Protocol):
    """What is needed of a bus."""

    _connection: Connection
    _reception: Reception

    def recv_batch(self, max_messages: int, timeout: float | None = None) -> list[Message]: ...

    def fileno(self) -> int: ...

    def flush(self, timeout: float | None = None) -> None: ...

    def shutdown(self) -> None: ...

    def _another(self, can_filters: Any) -> SignalBus:
        """A bus of its own on the same channel."""


class Receiver(Protocol):
    """Gets each sample of the chosen signals, in the order of the channel."""

    def put(self, key: Key, sample: Sample) -> None: ...


#: Samples to begin with.
First: TypeAlias = "Callable[[], Iterable[tuple[Key, Sample]]]"


def nothing() -> Iterable[tuple[Key, Sample]]:
    """No samples to begin with."""
    return ()


class SignalFeed:
    """The chosen signals of a channel, by a bus of its own. Any thread.

    ``latest``: the last sample of each signal; ``undecoded``: frames whose data is not that of
    their message, by its name.
    """

    def __init__(self, bus: SignalBus, decoder: Decoder, selection: Selection) -> None:
        """``bus``: one on the same channel."""
        self.selection = selection
        self.latest: dict[Key, Sample] = {}
        self.undecoded: Counter[str] = Counter()
        self._decoder = decoder
        self._receivers: list[Receiver] = []
        self._lock = threading.Lock()  # so that messages are decoded in their order
        self._sender = bus
        self._bus = bus._another(selection.filters)

    @property
    def channel(self) -> str:
        """The broker's name for it."""
        return self._bus._connection.attached.name

    @property
    def lost(self) -> int:
        """Frames that were lost on the way to us."""
        return self._bus._connection.stats().lost

    def close(self) -> None:
        self._bus.shutdown()

    @contextmanager
    def receiving(self, receiver: Receiver, first: First = nothing) -> Iterator[None]:
        """Has ``receiver`` get the samples of ``first``, and those from here on."""
        with self._lock:
            for key, sample in first():
                receiver.put(key, sample)
            self._receivers = [*self._receivers, receiver]
        try:
            yield
        finally:
            with self._lock:
                self._receivers = [each for each in self._receivers if each is not receiver]

    def last(self) -> list[tuple[Key, Sample]]:
        """The last sample of each signal."""
        return list(self.latest.items())

    def receive_ready(self) -> None:
        """Decodes what has arrived.

        :raises CanOperationError: it is closed, or the channel is gone.
        """
        count = _AT_ONCE
        while count == _AT_ONCE:
            with self._lock:
                messages = self._bus.recv_batch(_AT_ONCE, 0)
                for message in messages:
                    self._decode(message)
            count = len(messages)

    def catch_up(self) -> None:
        """Decodes all frames that were on the channel before this call.

        :raises CanOperationError: it is closed, or the channel does not deliver them.
        """
        deadline = clock.deadline_after(ANSWER_S)
        end: Place | None = None
        while True:
            place = self._place()
            if end is None or end.epoch != place.epoch:
                # A process that has just been started knows our route once it has sent us some
                # of it.
                past = self._past()
                end = Place(past.epoch, past.next_seq) if past.epoch == place.epoch else None
                place = self._place()
            if end is not None and end.epoch == place.epoch and place.number >= end.number:
                break
            if clock.remaining_ns(deadline) == 0:
                raise CanOperationError(f"channel {self.channel!r} does not deliver its frames")
            self._pause(_LOOK_NS)
            self.receive_ready()
        self.receive_ready()

    def flush(self) -> None:
        """Waits until what the user's bus has sent is on the channel.

        :raises CanError: a frame was not sent.
        """
        if self._sender._connection.closed is None:
            self._sender.flush(ANSWER_S)

    # ---------------------------------------------------------------------------------- waiting

    def wait(self, name: str, condition: Condition, timeout: float | None, first: First) -> Sample:
        """Blocks until there is a sample; ``first`` are those to look at first.

        :raises ValueError: no such signal, or label; says which there are.
        :raises CanTimeoutError: it did not come in time; says what the last value was.
        :raises CanOperationError: as :meth:`receive_ready`.
        """
        deadline = clock.deadline_after(timeout)
        key = self._checked(name, condition)
        inbox = Inbox(key)
        self.receive_ready()
        with self.receiving(inbox, first):
            while (sample := inbox.take(condition)) is None:
                self._pause(self._look_ns(deadline, key, timeout))
                self.receive_ready()
        return sample

    async def wait_for(
        self, name: str, condition: Condition, timeout: float | None, first: First
    ) -> Sample:
        """As :meth:`wait`, for a task of an event loop."""
        import asyncio  # noqa: PLC0415 - as large as a whole client; a caller has imported it already

        deadline = clock.deadline_after(timeout)
        key = self._checked(name, condition)
        inbox = Inbox(key)
        loop = asyncio.get_running_loop()
        self.receive_ready()
        with self.receiving(inbox, first):
            while (sample := inbox.take(condition)) is None:
                wait_ns = self._look_ns(deadline, key, timeout)
                await readable(loop, self._bus.fileno(), wait_ns / clock.SECOND)
                self.receive_ready()
        return sample

    def _checked(self, name: str, condition: Condition) -> Key:
        key = self.selection.key(name)
        if isinstance(condition, str):
            self.selection.check_label(key, condition)
        return key

    def _look_ns(self, deadline: int | None, key: Key, timeout: float | None) -> int:
        """How long to wait before the next look.

        :raises CanTimeoutError: ``deadline`` is over.
        """
        left = clock.remaining_ns(deadline)
        if left == 0:
            raise self._too_late(key, timeout)
        return _LOOK_NS if left is None else min(_LOOK_NS, left)

    def _too_late(self, key: Key, timeout: float | None) -> CanTimeoutError:
        sample = self.latest.get(key)
        last = "it was not received" if sample is None else f"its last value is {sample}"
        lost = f"; {self.lost} frames were lost" if self.lost else ""
        name = ".".join(key)
        return CanTimeoutError(f"{name} was not as awaited within {timeout:g} s: {last}{lost}")

    # -------------------------------------------------------------------------------- receiving

    def _place(self) -> Place:
        """Behind the last frame of our route that has arrived."""
        return self._bus._reception.subscriber.order.place

    def _past(self) -> Past:
        """What the channel says of our route now."""
        topic = route_topic(self.channel, self.selection.filters).decode()
        params = History(topic=topic, seconds=0)
        return self._bus._connection.control("history", params, Past)

    def _pause(self, timeout_ns: int) -> None:
        """Waits until a message may have arrived. Takes none: another thread might wait for it."""
        descriptor = self._bus.fileno()
        if descriptor < 0:  # this system has none
            time.sleep(min(timeout_ns, _POLL_NS) / clock.SECOND)
            return
        waiter = Waiter()
        waiter.add(descriptor)
        waiter.wait(timeout_ns)

    def _decode(self, message: Message) -> None:
        decoded = self._decoder.decode(to_frame(message))
        if decoded is None:
            return
        if decoded.problem:
            self.undecoded[decoded.message] += 1
        for signal in decoded.signals:
            key = (decoded.message, signal.name)
            if key not in self.selection.keys:
                continue
            sample = Sample(
                *key,
                signal.value,
                signal.label,
                signal.unit,
                message.timestamp,
                message.arbitration_id,
            )
            self.latest[key] = sample
            for receiver in self._receivers:
                receiver.put(key, sample)
