"""Follows a channel for a display: a thread that reads a tap into a :class:`ChannelView`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from canbroker.bus.tapping import Tappable, TappedBus
from canbroker.delivery.tap import Event, Tap
from canbroker.system import clock
from canbroker.system.closing import Closing
from canbroker.view.channel import ChannelView

#: Frames are read at most this often. A display looks less often, and reading many costs less than
#: reading each when it comes.
_PACE_S: Final = 0.03

#: States come without frames, too.
_LOOK_S: Final = 0.25


class Follower(Closing):
    """Reads a bus until it is closed. The bus belongs to this object, and may not be received from.

    ``view`` is read, and its table ticked, with ``lock`` held.
    """

    def __init__(
        self,
        name: str,
        bus: Tappable,
        on_events: Callable[[Sequence[Event]], object] | None = None,
    ) -> None:
        """
        :param name: what to call the channel.
        :param on_events: is called with the events after the view has them, in the thread and with
            ``lock`` held.
        :raises CanOperationError: no file descriptor is left.
        """
        self.view = ChannelView(name)
        self.lock = threading.Lock()
        self._on_events = on_events
        self._tapped = TappedBus(name, bus)
        self._tap = Tap([self._tapped.feed])
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow {name}", daemon=True)
        self._thread.start()

    @property
    def channel(self) -> str:
        """The broker's name for the channel."""
        return self._tapped.channel

    def close(self) -> None:
        """Ends the thread and closes the bus. Idempotent."""
        self._closing.set()
        self._tap.stop()
        self._thread.join()
        self._tap.close()
        self._tapped.close()

    def _run(self) -> None:
        while not self._tap.over:
            events = self._tap.receive(_LOOK_S)
            with self.lock:
                self.view.apply(events, clock.monotonic_ns())
                self.view.note_state(self._tapped.feed.state)
                if events and self._on_events is not None:
                    self._on_events(events)
            self._closing.wait(_PACE_S)
