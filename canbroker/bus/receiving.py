"""The receiving half of a bus: frames become messages, which wait until they are received."""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from canbroker.bus.channel_watch import ChannelWatch
from canbroker.bus.life import Life
from canbroker.bus.pieces import Pieces
from canbroker.bus.turns import Turns
from canbroker.bus.values import Membership, Receiving
from canbroker.delivery.asker import Asker
from canbroker.delivery.order import SLOW, Loss
from canbroker.delivery.subscriber import Identity, Subscriber
from canbroker.errors import CanLossError, CanOperationError, CanTimeoutError
from canbroker.model.filters import EVERYTHING, FilterSet
from canbroker.model.frame import ERROR, EXTENDED, EchoFrame
from canbroker.model.message import Message
from canbroker.system import clock, handles, locks
from canbroker.system.locks import Rank
from canbroker.system.throttle import Throttle
from canbroker.system.wake import Wake
from canbroker.transport.address import TcpAddress, parse_address
from canbroker.transport.readiness import Readiness
from canbroker.transport.stream_link import open_stream
from canbroker.wire.stream import ReadyEvent

if TYPE_CHECKING:
    from canbroker.bus.periodic.timer import Timer

#: A message to return, or an error to raise.
Item: TypeAlias = "Message | CanLossError"

#: Frames that a client that was away makes messages of at a time: those that were held back behind
#: missing ones come all at once.
_PORTION: Final = 256

#: How often a remote bus that only sends looks whether its topics have to be said again. With each
#: frame, that took as long as sending it.
_LOOK_NS: Final = 100 * clock.MILLISECOND

_logger = logging.getLogger("canbroker.bus")


class Reception:
    """Receives a channel's messages for any number of threads, which take turns."""

    def __init__(
        self, membership: Membership, receiving: Receiving, life: Life, watch: ChannelWatch
    ) -> None:
        """``receiving``: what the user wants. ``watch`` is kept up to date by waiting threads."""
        stream = parse_address(membership.attached.stream)
        self._is_remote = isinstance(stream, TcpAddress)
        self._look_ns = 0
        self.subscriber = Subscriber(
            open_stream(membership.context, stream),
            Identity(membership.attached.name, membership.client_id, membership.claim),
            functools.partial(_open_archive, membership),
            repairs=receiving.on_slow != "disconnect",
            far_ns=watch.clock.far_ns,
        )
        self.wake = Wake()  # interrupts a wait, to look whether the bus is closed
        self.turns = Turns(self.wake)
        self._client_id = membership.client_id
        self._label = membership.label
        self._receiving = receiving
        self._latest = receiving.on_slow == "latest"
        self.skipped = 0  # frames replaced by a later one of the same identifier
        self._disconnect = life.close
        self._check_open = life.check_open
        self._watch = watch
        self._queue: deque[Item] = deque()
        self._queue_lock = locks.make(Rank.QUEUE)
        self._readiness: Readiness | None = None
        self._losses = Throttle(_logger)
        self._pieces = Pieces()

    @property
    def filters(self) -> FilterSet:
        return self.subscriber.filters or EVERYTHING

    def __len__(self) -> int:
        """Messages that are decoded and not yet received."""
        return len(self._queue)

    def receive(self, timeout: float | None) -> Message | None:
        """The next message; ``None`` if there is none within ``timeout`` seconds.

        :raises CanOperationError: the bus is closed, or its channel is gone.
        :raises CanLossError: frames were lost at this place, and the user asked for that error.
        """
        message = None if self._latest else self._take()
        if message is None:
            message = self._wait_for_one(clock.deadline_after(timeout))
        # While messages are left, the descriptor stays readable.
        if self._readiness is not None and not (self._queue and self.wake.is_set):
            self._update_readiness()
        return message

    def subscribe(self, wanted: FilterSet, deadline: int | None) -> ReadyEvent:
        """Changes the filters, also for messages not yet received; in force on return.

        :raises CanTimeoutError: the channel did not confirm them by ``deadline``.
        """
        self._check_open()
        self._glance()
        ready = self.turns.run_soon(functools.partial(self._change, wanted, deadline))
        self._update_readiness()
        return ready

    def remember(self, deadline: int | None) -> None:
        """Begins with the history that the user wants. Call it right after :meth:`subscribe`.

        :raises CanError: the channel did not send it by ``deadline``, or refused to.
        """
        if self._receiving.history:
            self.turns.run_soon(functools.partial(self._remember, deadline))
            self._update_readiness()

    def receive_ready(self, at_most: int) -> list[Message]:
        """The next messages that have arrived already. Never waits, and raises nothing: the next
        :meth:`receive` raises the error that has ended the list.
        """
        messages: list[Message] = []
        try:
            while room := at_most - len(messages):
                ready = self._take_ready(room)
                if not ready and (following := self.receive(0)) is not None:
                    ready = [following]
                if not ready:
                    break
                messages += ready
        except CanLossError as loss:
            with self._queue_lock:
                self._queue.appendleft(loss)
        except CanOperationError as error:
            count = len(messages)
            _logger.debug("%r ends after %d more messages: %s", self._label, count, error)
        return messages

    def _is_to_look(self) -> bool:
        """Whether a link to a gateway has not been looked at for a while."""
        if not self._is_remote:
            return False
        now = clock.monotonic_ns()
        if now < self._look_ns:
            return False
        self._look_ns = now + _LOOK_NS
        return True

    def _take_ready(self, at_most: int) -> list[Message]:
        """Decoded messages, all at a time, up to the next loss that is to be raised."""
        messages: list[Message] = []
        with self._queue_lock:
            queue = self._queue
            for _ in range(min(at_most, len(queue))):
                item = queue.popleft()
                if isinstance(item, CanLossError):
                    queue.appendleft(item)
                    break
                messages.append(item)
        return messages

    def fileno(self) -> int:
        """A descriptor that is readable while :meth:`receive` has a message; -1 if the system
        has no such descriptor."""
        self._check_open()
        descriptor = self.turns.run_soon(self._descriptor)
        self._update_readiness()
        return descriptor

    def follow(self) -> None:
        """Uses the socket after a reconnect, which makes libzmq subscribe again, and a link to a
        gateway say its topics: a bus that only sends is present, too."""
        if self._watch.epoch != self.subscriber.order.epoch or self._is_to_look():
            self.turns.if_free(self.subscriber.readable)

    def mine(self) -> bool:
        """Whether this thread is receiving."""
        return self.turns.mine()

    def wake_up(self) -> None:
        """Wakes waiting threads, to look whether the bus is closed."""
        self.wake.set()

    def leave(self) -> None:
        """Ends our presence on the channel, which a forked child may keep connected."""
        self.turns.run_soon(self.subscriber.leave)

    def close(self) -> None:
        """Closes the sockets. Waiting threads were woken before, and found the bus closed."""
        self.turns.run_soon(self._close)
        self.wake.close()

    def forked(self) -> None:
        """[forked child] Drops queued messages, and a lock that a thread may have held.

        So may other locks be held: the readiness stays as it is. Its descriptors were closed.
        """
        self._queue_lock = locks.make(Rank.QUEUE)
        self._queue.clear()

    def _take(self) -> Message | None:
        with self._queue_lock:
            item = self._queue.popleft() if self._queue else None
        if isinstance(item, CanLossError):
            raise item
        return item

    def _wait_for_one(self, deadline: int | None) -> Message | None:
        """Waits in long turns until one of them was not ended for a short job."""
        job = functools.partial(self._hold, deadline)
        while True:
            self._check_open()
            try:
                over, message = self.turns.run(deadline, job)
            except CanTimeoutError:
                return None
            if over:
                return message

    def _hold(self, deadline: int | None) -> tuple[bool, Message | None]:
        """A long turn: whether the wait is over, and with what."""
        while not self.turns.wanted():
            self._check_open()
            while self._latest and self.subscriber.receive():
                self._enqueue()
            # While a gap is open, the latest message is not known yet.
            is_known = not (self._latest and self.subscriber.order.gap)
            message = self._take() if is_known else None
            if message is not None:
                return True, message
            if self.subscriber.behind and clock.remaining_ns(deadline) != 0:
                self._pieces.pause()
            if self.subscriber.receive():
                self._enqueue()
                if not self._latest and (message := self._take()) is not None:
                    return True, message
                continue
            left = clock.remaining_ns(deadline)
            if left == 0:
                self._glance()
                self.subscriber.check_alive()
                return True, self._take()
            self._glance()  # before the wait, not after it: a message is then returned at once
            self.subscriber.wait(self.wake, left)
            self._pieces.begin()
        return False, None

    def _glance(self) -> None:
        """Looks at the channel's state now and then.

        :raises CanOperationError: the broker was told to end, which ends the bus.
        """
        self._watch.glance()
        if ended := self._watch.ended():
            self._disconnect(ended)
            self._check_open()

    def _enqueue(self) -> None:
        """Queues what the subscriber has received."""
        order = self.subscriber.order
        count = None
        if self.subscriber.behind and not self._latest:
            count = order.portion(_PORTION)
        items = self._items(count)
        with self._queue_lock:
            if self._latest:
                waiting, skipped = _newest(self._queue, items)
                # At once, with what take() does.
                _, losses, _ = order.take()
                self._queue = waiting
                self.skipped += skipped
            else:
                _, losses, _ = order.take(count)
                self._queue += items  # as above
        self._report(losses)

    def _change(self, wanted: FilterSet, deadline: int | None) -> ReadyEvent:
        self._check_open()
        order = self.subscriber.order
        ready = self.subscriber.subscribe(wanted, deadline)
        items = self._items()
        with self._queue_lock:
            waiting = deque(item for item in (*self._queue, *items) if _passes(wanted, item))
            _, losses, _ = order.take()
            self._queue = waiting  # as above
        self._report(losses)
        return ready

    def _remember(self, deadline: int | None) -> None:
        self.subscriber.remember(self._receiving.history, deadline)
        self._enqueue()

    def _items(self, count: int | None = None) -> list[Item]:
        """The frames received, as messages, with the losses between them that are to be raised.

        ``count``: as of :meth:`Order.take`.
        """
        order = self.subscriber.order
        if not order.losses or self._receiving.on_loss == "count":
            return list(self._messages(order.frames if count is None else order.frames[:count]))
        items: list[Item] = []
        begin = 0
        for at, loss in order.losses:
            items += self._messages(order.frames[begin:at])
            items.append(CanLossError(loss.epoch, loss.first, loss.frames, loss.cause))
            begin = at
        items += self._messages(order.frames[begin:])
        return items

    def _messages(self, frames: list[EchoFrame]) -> list[Message]:
        me, label = self._client_id, self._label
        from_frames = self._receiving.message_type.from_frames
        if self._receiving.own:
            return [from_frames((frame,), label, frame.origin != me)[0] for frame in frames]
        return from_frames([frame for frame in frames if frame.origin != me], label, True)

    def _report(self, losses: list[tuple[int, Loss]]) -> None:
        for _, loss in losses:
            self._losses.note(f"frames of channel {self._label!r} lost", str(loss))
            if self._receiving.on_slow == "disconnect" and loss.cause == SLOW:
                self._disconnect(f"the bus was too slow and is disconnected: {loss}")

    def _descriptor(self) -> int:
        self._check_open()
        if self._readiness is None:
            self._readiness = Readiness(self.wake, _watching_thread)
        self._readiness.watch(self.subscriber.sockets)
        return self._readiness.fileno()

    def _update_readiness(self) -> None:
        # A thread that has the turn is about to wait, and will receive what arrives.
        self.turns.if_free(self._look)

    def _look(self) -> None:
        if self._readiness is not None:
            self._readiness.watch(self.subscriber.sockets)
            self._readiness.update(bool(self._queue) or self.subscriber.readable())

    def _close(self) -> None:
        if self._readiness is not None:
            self._readiness.close()
            self._readiness = None
        self.subscriber.close()
        self._tell_losses()

    def _tell_losses(self) -> None:
        """Logs the account of what has gone wrong."""
        order = self.subscriber.order
        if order.lost or order.repaired:
            _logger.log(
                logging.WARNING if order.lost else logging.INFO,
                "bus on channel %r: of %d frames %d were lost and %d repaired; "
                "restarts of the channel: %d, frames lost before it: %d",
                self._label,
                order.received + order.lost,
                order.lost,
                order.repaired,
                order.restarts,
                self.subscriber.dropped_upstream,
            )


def _open_archive(membership: Membership) -> Asker:
    control = parse_address(membership.attached.control)
    return Asker(membership.context, control, membership.client_id)


def _watching_thread() -> Timer:
    """:raises CanOperationError: no descriptors are left."""
    try:
        from canbroker.bus.watching import watch  # noqa: PLC0415 - Linux needs no thread
    except OSError as error:
        raise CanOperationError(f"cannot watch: {handles.explained(error)}") from error
    return watch()


def _passes(wanted: FilterSet, item: Item) -> bool:
    if isinstance(item, CanLossError):
        return True
    flags = (EXTENDED if item.is_extended_id else 0) | (ERROR if item.is_error_frame else 0)
    return wanted.matches(item.arbitration_id, flags)


def _newest(waiting: Iterable[Item], items: Iterable[Item]) -> tuple[deque[Item], int]:
    """The last message of each identifier, in order of arrival, and how many were replaced."""
    newest: dict[object, Item] = {}
    skipped = 0
    for item in (*waiting, *items):
        kind: object = item
        if isinstance(item, Message):
            kind = item.arbitration_id, item.is_extended_id, item.is_error_frame
        skipped += newest.pop(kind, None) is not None
        newest[kind] = item
    return deque(newest.values()), skipped
