"""One channel as a display shows it: its table, load over time, state, and what went wrong."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

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
from canbroker.system import clock
from canbroker.view.table import Table
from canbroker.wire.stream import StateEvent

#: Channels tell their state twice a second: 10 minutes.
_SAMPLES: Final = 1200

_NOTES: Final = 100


class Sample(NamedTuple):
    """A channel at a time: ``load`` is 0 to 1, ``None`` if it is not known; rates in frames/s."""

    wall_ns: int
    load: float | None
    received_rate: float
    transmitted_rate: float


class Note(NamedTuple):
    """Something that happened, as a sentence. ``wall_ns``: when we heard of it."""

    wall_ns: int
    text: str


class LoadHistory:
    """The loads that a channel has told, up to 1,200: those of 10 minutes."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=_SAMPLES)
        self._told_ns = 0

    def note(self, state: StateEvent) -> None:
        """Appends a state's load, unless that was done already."""
        if state.monotonic_ns == self._told_ns:
            return
        self._told_ns = state.monotonic_ns
        rates = state.received_rate, state.transmitted_rate
        self.samples.append(Sample(state.wall_ns, state.load, *rates))


class ChannelView:
    """A channel, from the events of a tap and its states. One thread.

    ``missed``: frames that did not reach us. ``dropped``: frames that the adapter lost.
    ``restarts`` and ``interruptions``: how often its process was replaced, and its adapter away.
    ``problem``: why nothing comes now; empty if all is well. ``ended``: no event will follow.
    ``notes``: the last 100 of these. All since we began to look.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.table = Table()
        self.load = LoadHistory()
        self.state: StateEvent | None = None
        self.missed = 0
        self.dropped = 0
        self.restarts = 0
        self.interruptions = 0
        self.problem = ""
        self.ended = False
        self.notes: deque[Note] = deque(maxlen=_NOTES)

    def note_state(self, state: StateEvent | None) -> None:
        """Takes the state that the channel has told last, ``None`` if it has told none."""
        if state is not None:
            self.state = state
            self.load.note(state)

    def apply(self, events: Iterable[Event], now_ns: int) -> None:
        """Takes events of this channel, which have come at ``now_ns`` (monotonic)."""
        for event in events:
            if isinstance(event, Frames):
                self.table.add(event.frames, now_ns)
            else:
                self._note(event)

    def _note(self, event: Event) -> None:
        text = self._account(event)
        if text:
            self.notes.append(Note(clock.wall_ns(), text))

    def _account(self, event: Event) -> str:
        """Counts an event, and says it in a sentence."""
        text = ""
        match event:
            case Missed(_, loss):
                self.missed += loss.frames or 0
                text = str(loss)
            case Dropped(_, number):
                self.dropped += number
                text = f"the adapter lost {number:,} frames"
            case Restarted():
                self.restarts += 1
                text = "the channel was restarted; frames may have been missed"
            case Interrupted(_, reason):
                self.interruptions += 1
                self.problem = reason
                text = f"the adapter was away: {reason}" if reason else "the adapter was away"
            case Silent(_, reason):
                self.problem = text = reason
            case Ended(_, reason):
                self.problem, self.ended, text = reason, True, reason
            case Resumed():
                self.problem = ""
                text = "the channel receives again"
        return text
