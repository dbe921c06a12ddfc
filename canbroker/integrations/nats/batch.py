"""Messages of the stream become batches of frames: each frame once, and what is missing is said."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from canbroker.integrations.nats.position import Position
from canbroker.jetstream import heads, subjects
from canbroker.jetstream.heads import RESTARTED, Gap, Head
from canbroker.jetstream.ordered import StreamMessage
from canbroker.jetstream.places import Follower, Step
from canbroker.jetstream.subjects import Subject
from canbroker.model.filters import FilterSet
from canbroker.model.frame import ReceivedFrame
from canbroker.model.message import Message
from canbroker.system.throttle import Throttle
from canbroker.wire import WireError
from canbroker.wire.stream import FRAMES, decode_batch

#: The kind of a gap that only the consumer can see: the stream does not have these frames.
MISSING: Final = "missing"

_EXPIRED: Final = "the stream does not have them any more"
_UNSEEN: Final = "the channel's process was replaced"

#: A filter accepts all frames of an identifier or none, so results are cached: at most this many.
_REMEMBERED: Final = 1 << 16

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Batch:
    """Frames of a channel that follow each other, and what is missing before them.

    ``epoch`` is another one for each life of the channel's process; ``seqs`` are the numbers of the
    frames in it, ``first_seq`` is the first of them, or, without frames, that of the next one.
    ``stream_seq`` and ``stored_ns`` are of the message: its sequence in the stream, and when the
    server stored it. ``pending``: how many messages more there are for us.

    ``gaps`` come before the frames. Their kind is ``lost`` (frames did not reach NATS),
    ``interrupted`` (the adapter was away), ``restarted`` (the channel's process was replaced) or
    ``missing`` (the stream does not have them any more); ``lost`` is the number of frames, ``None``
    if nobody knows it. ``dropped_upstream``: how many frames were lost since the epoch began before
    the broker saw them.
    """

    site: str
    bench: str
    channel: str
    epoch: int
    first_seq: int
    frames: Sequence[ReceivedFrame]
    seqs: Sequence[int]
    gaps: Sequence[Gap]
    stream_seq: int
    stored_ns: int
    pending: int
    dropped_upstream: int = 0

    def __len__(self) -> int:
        return len(self.frames)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        gaps = f", gaps {[gap.kind for gap in self.gaps]}" if self.gaps else ""
        return (
            f"<Batch {self.site}/{self.bench}/{self.channel}: {len(self.frames)} frames from "
            f"{self.epoch}:{self.first_seq}{gaps}, stream_seq {self.stream_seq}>"
        )

    @cached_property
    def messages(self) -> list[Message]:
        """The frames as a ``Bus`` receives them. Made when they are asked for."""
        return Message.from_frames(self.frames, self.channel)


class Assembler:
    """Makes batches of messages, in the order of the stream.

    ``duplicates``: frames that were left out because they had been there before. ``refused``:
    messages that are not a bridge's.
    """

    def __init__(self, filters: FilterSet, position: Position | None, is_late: bool) -> None:
        """
        :param position: where an earlier consumer has come to.
        :param is_late: messages are missing between the start that was asked for and the first one.
        """
        self.duplicates = 0
        self.refused = 0
        self._filters = filters
        self._position = position
        self._is_late = is_late
        self._followers: dict[str, Follower] = {}
        self._subjects: dict[str, Subject] = {}
        self._passes: dict[int, bool] = {}
        self._complaints = Throttle(_logger)

    @property
    def places(self) -> Mapping[str, tuple[int, int]]:
        """Of each subject the epoch and the number of the next frame."""
        known = {} if self._position is None else self._position.places
        followed = {
            subject: (follower.place.epoch, follower.place.number)
            for subject, follower in self._followers.items()
            if follower.place is not None
        }
        return known | followed

    def batch(self, message: StreamMessage) -> Batch | None:
        """What is new in a message; ``None`` if nothing is that passes the filters."""
        try:
            subject = self._subjects.get(message.subject) or subjects.parse(message.subject)
            head = heads.parse(message.headers)
            dropped, frames = _content(message.data, head)
        except (ValueError, WireError) as error:
            self.refused += 1
            self._complaints.note("messages that are not a bridge's", str(error))
            return None
        self._subjects[message.subject] = subject
        gaps, step = self._followed(message.subject, head)
        if not step.is_new:
            self.duplicates += head.frames
            return None
        self.duplicates += step.skip
        first = head.first_seq + step.skip
        new, seqs = self._filtered(frames[step.skip :], first)
        if not new and not gaps:
            return None
        return Batch(
            site=subject.site,
            bench=subject.bench,
            channel=subject.channel,
            epoch=head.epoch,
            first_seq=seqs[0] if seqs else head.next_seq,
            frames=new,
            seqs=seqs,
            gaps=gaps,
            stream_seq=message.sequence,
            stored_ns=message.time_ns,
            pending=message.pending,
            dropped_upstream=dropped,
        )

    def _followed(self, subject: str, head: Head) -> tuple[list[Gap], Step]:
        """What is missing before a message, and what is new in it."""
        follower = self._followers.get(subject)
        gaps = []
        if follower is None:
            place = None if self._position is None else self._position.place(subject)
            follower = self._followers[subject] = Follower(place)
            if place is None and self._is_late:
                gaps.append(Gap(MISSING, None, _EXPIRED))
        was = follower.place
        step = follower.follow(head)
        is_restart = head.gap is not None and head.gap.kind == RESTARTED
        if was is not None and was.epoch != head.epoch and step.is_new and not is_restart:
            gaps.append(Gap(RESTARTED, None, _UNSEEN))
        if step.missing:
            gaps.append(Gap(MISSING, step.missing, _EXPIRED))
        if head.gap is not None:
            gaps.append(head.gap)
        return gaps, step

    def _filtered(
        self, frames: list[ReceivedFrame], first: int
    ) -> tuple[list[ReceivedFrame], Sequence[int]]:
        """The frames that pass, and their numbers."""
        filters = self._filters
        if not filters.filters and not filters.nothing:
            return frames, range(first, first + len(frames))
        if len(self._passes) > _REMEMBERED:
            self._passes.clear()
        passing, seqs = [], []
        for seq, frame in enumerate(frames, first):
            kind = frame.arbitration_id << 3 | frame.flags & 7
            passes = self._passes.get(kind)
            if passes is None:
                passes = filters.matches(frame.arbitration_id, frame.flags)
                self._passes[kind] = passes
            if passes:
                passing.append(frame)
                seqs.append(seq)
        return passing, seqs


def _content(data: bytes, head: Head) -> tuple[int, list[ReceivedFrame]]:
    """The frames of a message, and how many were lost before the broker saw them.

    :raises WireError: they are not those that its headers announce.
    """
    body = decode_batch(data)
    frames = body.payload if isinstance(body.payload, list) else []
    if len(frames) != head.frames or (frames and body.kind != FRAMES):
        raise WireError(f"{len(frames)} frames where {head.frames} are announced")
    return body.dropped_upstream, frames
