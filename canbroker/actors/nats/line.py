"""A channel on its way into its subject: its messages, kept until they are acknowledged."""

from __future__ import annotations

import logging
from collections import deque
from typing import Final, NamedTuple

from canbroker.actors.held_channel import HeldChannel
from canbroker.actors.nats.options import HOLD_S, HOLDER
from canbroker.bus.tapping import TappedBus
from canbroker.client import Bus
from canbroker.delivery.order import Place
from canbroker.delivery.tap import (
    Dropped,
    Ended,
    Event,
    Frames,
    Interrupted,
    Missed,
    Restarted,
    Resumed,
    Silent,
)
from canbroker.errors import CanError
from canbroker.jetstream import subjects
from canbroker.jetstream.heads import INTERRUPTED, LOST_FRAMES, RESTARTED, Gap, Head
from canbroker.model.frame import EchoFrame
from canbroker.system import clock
from canbroker.wire.replay import Held
from canbroker.wire.stream import StateEvent, encode_batch, encode_heartbeat

#: A channel answers at once, unless it ends.
_ANSWER_S: Final = 1.0

#: Lives of a channel that are remembered; the stream may have lost the end of one.
_EPOCHS: Final = 64

_logger = logging.getLogger(__name__)


class Message:
    """A message of the queue. ``sent_ns``: when it was published on this connection, or 0."""

    __slots__ = ("body", "head", "sent_ns", "stored")

    def __init__(self, head: Head, body: bytes) -> None:
        self.head = head
        self.body = body
        self.sent_ns = 0
        self.stored = False


def mark_of(head: Head) -> tuple[str, int]:
    """Messages with the same one have the same frames; the id does not tell how many."""
    return head.message_id, head.next_seq


class Last(NamedTuple):
    """The last message of a subject in the stream, and its number there; ``None``: there is none,
    and the number is 0."""

    head: Head | None
    sequence: int


class Totals:
    """What was published since the bridge began. ``lost``: frames whose number is known;
    ``gaps``: how often it is not."""

    def __init__(self) -> None:
        self.frames = 0
        self.messages = 0
        self.duplicates = 0
        self.lost = 0
        self.gaps = 0


class Line:
    """One channel. One thread, that of the event loop.

    ``queue``: messages that are not acknowledged, in order. ``sequence``: the number in the stream
    behind which the next one belongs. ``silence``: why nothing is heard of the channel.
    ``is_behind``: the channel may have more than was read. ``is_sure``: the stream has taken a
    message on this connection, so its place is the one that we know.
    """

    def __init__(self, site: str, bench: str, name: str, broker: str) -> None:
        """``broker``: its address."""
        self.name = name
        self.subject = subjects.frames(site, bench, name)
        self._bench = site, bench
        self.queue: deque[Message] = deque()
        self.sequence = 0
        self.silence = ""
        self.is_behind = False
        self.is_sure = False
        self.totals = Totals()
        self.latest: list[EchoFrame] = []  # what was read last
        self.most = 1  # frames of a message
        self._channel = HeldChannel(
            name,
            HOLDER,
            HOLD_S,
            lambda: Bus(name, broker=broker, ignore_config=True),
            "published",
        )
        self._held: Held | None = None  # when it was opened
        self._last: Last | None = None  # as the stream has told
        self._acknowledged: tuple[str, int] | None = None  # the last message, as mark_of()
        self._made: Head | None = None  # of the last message in queue or stream
        self._epochs: dict[int, None] = {}  # ours; the latest of them
        self._begun = False
        self._frames: list[EchoFrame] = []  # of no message yet
        self._place = Place(0, 0)  # of the next frame that is read, or of the first of _frames
        self._offset = 0
        self._dropped = 0
        self._current_ns = clock.monotonic_ns()  # when all had been acknowledged

    def __repr__(self) -> str:
        return f"<Line {self.subject} queue={len(self.queue)} {self._place}>"

    # -------------------------------------------------------------------------------- condition

    @property
    def problem(self) -> str:
        """Why the channel cannot be read; empty if it can."""
        return self._channel.problem or self.silence

    @property
    def state(self) -> StateEvent | None:
        """The channel's last one."""
        tapped = self._channel.tapped
        return None if tapped is None else tapped.feed.state

    @property
    def is_repairing(self) -> bool:
        """Whether the channel is answering, with more frames in a moment."""
        tapped = self._channel.tapped
        return self._begun and tapped is not None and tapped.feed.is_repairing

    @property
    def epoch(self) -> int:
        """The channel's life that was read last."""
        return self._place.epoch

    @property
    def unacknowledged(self) -> int:
        """Frames that were read, and are not acknowledged."""
        return sum(message.head.frames for message in self.queue) + len(self._frames)

    def lag_s(self, now_ns: int) -> float:
        """For how long something has been on the way."""
        return (now_ns - self._current_ns) / clock.SECOND

    # ----------------------------------------------------------------------------- its beginning

    def poll(self, now_ns: int) -> None:
        """Opens the channel, again if it has ended. Call it often, connected or not."""
        held = self._channel.opened(now_ns, None)
        if held is not None:
            self._held = held
            self._begun = False
            self._current_ns = now_ns

    def resume(self, last: Last) -> None:
        """Goes on behind the last message of the stream, on a new connection."""
        for message in self.queue:
            message.sent_ns, message.stored = 0, False
        self.sequence, self.is_sure = last.sequence, False
        is_first, self._last = self._last is None, last
        if is_first:
            self._made = last.head
        elif last.head is not None and last.head.epoch not in self._epochs:
            return  # published by another bench with the same name; not our position
        if last.head is not None:
            self._epochs[last.head.epoch] = None
        if last.head is None or mark_of(last.head) == self._acknowledged:
            return
        marks = [mark_of(message.head) for message in self.queue]
        if (stored := mark_of(last.head)) in marks:
            for _ in range(marks.index(stored) + 1):
                self._count(self.queue.popleft())
            return
        self.queue.clear()
        self._frames = []
        self._made = last.head
        self._begun = False

    def begin(self) -> bool:
        """Goes to the place that was told by :meth:`resume`, if the channel is open; returns
        whether it can be read."""
        tapped, held = self._channel.tapped, self._held
        if self._begun:
            return tapped is not None
        if tapped is None or held is None or self._last is None:
            return False
        start, offset, head = tapped.place, 0, self._made
        if start.epoch == held.epoch:
            start = min(start, Place(held.epoch, held.since))
        if head is None and held.oldest:  # of lives that no bridge has published anything of
            start = Place(held.oldest, 0)
        if head is not None:
            place = Place(head.epoch, head.next_seq - head.offset)
            if self._is_held(tapped, place, held):
                start, offset = place, head.offset
            else:
                if start.epoch == head.epoch:  # its numbers have begun again
                    offset = head.next_seq - start.number
                told = offset if start.epoch == head.epoch else head.offset
                gap = Gap(LOST_FRAMES, None, "nothing has kept them")
                time_ns = clock.wall_ns()
                self._add(
                    Head(head.epoch, self.name, head.next_seq, 0, time_ns, gap, told, self._bench),
                    0,
                )
        self._place, self._offset = start, offset
        self._dropped = tapped.feed.dropped
        tapped.go_back(start)
        self._begun = True
        return True

    def _is_held(self, tapped: TappedBus, place: Place, held: Held) -> bool:
        """Whether what follows a place can be asked for."""
        if place.epoch == held.epoch:
            return held.continues and place.number >= held.since
        try:
            answer = tapped.hold(HOLDER, HOLD_S, place.epoch, timeout=_ANSWER_S)
        except CanError as error:
            _logger.warning("channel %r: %s", self.name, error)
            return False
        return answer.continues

    # -------------------------------------------------------------------------------- reading

    def read(self, window: int, now_ns: int) -> None:
        """Makes messages of what has arrived, until the queue has ``window`` or a little more."""
        if not self.queue and not self.is_behind:
            self._current_ns = now_ns
        self.latest = []
        self.is_behind = False
        tapped = self._channel.tapped
        while self._begun and tapped is not None:
            if len(self.queue) >= window:
                self.is_behind = True
                break
            events = tapped.feed.read()
            if not events:
                break
            for event in events:
                self._take(event, now_ns)
        self._flush()

    def _take(self, event: Event, now_ns: int) -> None:
        if isinstance(event, Frames):
            self._frames += event.frames
            self.latest += event.frames
            while len(self._frames) >= self.most:
                self._batch(self.most)
            return
        self._flush()
        if isinstance(event, Missed):
            self._missed(event)
        elif isinstance(event, Dropped):
            self._dropped += event.number
        elif isinstance(event, Restarted):
            self._restart(event.place)
        elif isinstance(event, Interrupted):
            self._gap(Gap(INTERRUPTED, None, event.reason))
        elif isinstance(event, Silent):
            self.silence = event.reason
        elif isinstance(event, Resumed):
            self.silence = ""
        elif isinstance(event, Ended):
            self.silence = event.reason
            self._channel.end(now_ns)
            self._held, self._begun = None, False

    def _flush(self) -> None:
        if self._frames:
            self._batch(len(self._frames))

    def _batch(self, count: int) -> None:
        frames, self._frames = self._frames[:count], self._frames[count:]
        epoch, number = self._place
        first = number + self._offset
        time_ns = frames[0].timestamp_ns
        head = Head(epoch, self.name, first, count, time_ns, None, self._offset, self._bench)
        self._place = Place(epoch, number + count)
        body = encode_batch(epoch, first, self._dropped, frames)
        self._append(head, body)

    def _missed(self, event: Missed) -> None:
        loss = event.loss
        self._gap(Gap(LOST_FRAMES, loss.frames, loss.cause))
        self._place = Place(self._place.epoch, self._place.number + (loss.frames or 0))

    def _restart(self, place: Place) -> None:
        """A channel's new life; or its numbers have begun again in the same one."""
        if place.epoch == self._place.epoch:
            self._offset += self._place.number - place.number
        else:
            self._offset = self._dropped = 0
        self._place = place
        self._gap(Gap(RESTARTED, None, "the channel's process was replaced"))

    def _gap(self, gap: Gap) -> None:
        epoch, number = self._place
        first = number + self._offset
        head = Head(epoch, self.name, first, 0, clock.wall_ns(), gap, self._offset, self._bench)
        self._add(head, self._dropped)

    def _add(self, head: Head, dropped: int) -> None:
        self._append(head, encode_heartbeat(head.epoch, head.next_seq, dropped))

    def _append(self, head: Head, body: bytes) -> None:
        self._made = head
        if head.epoch not in self._epochs:
            self._epochs[head.epoch] = None
            if len(self._epochs) > _EPOCHS:
                del self._epochs[next(iter(self._epochs))]
        self.queue.append(Message(head, body))

    # ---------------------------------------------------------------------------- acknowledging

    def stored(self, message: Message, sequence: int) -> None:
        """The server has taken a message."""
        message.stored = self.is_sure = True
        self.sequence = max(self.sequence, sequence)
        while self.queue and self.queue[0].stored:
            self._count(self.queue.popleft())

    def _count(self, message: Message) -> None:
        self._acknowledged = mark_of(message.head)
        self.totals.messages += 1
        self.totals.frames += message.head.frames
        gap = message.head.gap
        if gap is not None and gap.kind == LOST_FRAMES:
            self.totals.lost += gap.lost or 0
            self.totals.gaps += gap.lost is None

    def close(self) -> None:
        """Closes the channel, which goes on holding our route."""
        self._channel.end(clock.monotonic_ns())
