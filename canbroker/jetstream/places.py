"""Where a reader of a channel's messages has come to: what is new in the next one, what is missing.

The bridge sends no frame twice as long as the server keeps message ids. This rule holds without
that, too: numbers say which frames were there already.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from canbroker.jetstream.heads import Head

#: Epochs whose places are remembered: late messages of an earlier one are known by them.
_REMEMBERED: Final = 8


class Place(NamedTuple):
    """The epoch, and the number of the next frame there. A consumer stores it with its frames."""

    epoch: int
    number: int


class Step(NamedTuple):
    """What a message is to a reader.

    ``skip``: how many of its frames were there before; all of them, if it is a duplicate.
    ``missing``: frames between the last message and this one, which the stream does not have any
    more. ``is_new``: the message says something new; that of a gap may not.
    """

    skip: int
    missing: int
    is_new: bool


class Follower:
    """Follows the messages of one channel, in the order of the stream."""

    def __init__(self, place: Place | None = None) -> None:
        """``place``: where the reader was before, if anywhere."""
        self.place = place
        self._places = {} if place is None else {place.epoch: place.number}

    def follow(self, head: Head) -> Step:
        """Moves behind a message."""
        expected = self._places.get(head.epoch)
        if expected is None:  # another life of the channel; the clock may have been set back
            if len(self._places) >= _REMEMBERED:
                del self._places[next(iter(self._places))]
            expected = head.first_seq
        end = head.next_seq
        step = Step(
            skip=min(head.frames, max(0, expected - head.first_seq)),
            missing=max(0, head.first_seq - expected),
            is_new=end > expected or head.first_seq == expected == end,
        )
        if step.is_new:
            self._places[head.epoch] = end
            self.place = Place(head.epoch, end)
        return step
