"""The channels that ``canbroker top`` can show, and the one that it shows."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

from canbroker.bus.databases import channel_decoder
from canbroker.cli.common import Opener
from canbroker.cli.top_session import Session
from canbroker.client import Bus
from canbroker.errors import CanError, CanOperationError
from canbroker.model.wording import printable
from canbroker.system.closing import Closing
from canbroker.view.follower import Follower
from canbroker.view.running import RunningBroker
from canbroker.wire.status import ChannelStatus

if TYPE_CHECKING:
    from canbroker.signals.decoder import Decoder


class Channels(Closing):
    """Opens sessions, and closes those that are left at the end. Any thread."""

    def __init__(self, opener: Opener, given: Decoder | None = None) -> None:
        """``given``: databases for all channels, instead of their own."""
        self._opener = opener
        self._given = given
        self._lock = threading.Lock()
        self._sessions: set[Session] = set()
        self._is_closed = False

    def listed(self) -> list[ChannelStatus]:
        """All channels of the broker.

        :raises CanError: it does not run, or does not answer.
        """
        with RunningBroker(self._opener.broker) as running:
            return running.status().channels

    def open(self, channel: str) -> Session:
        """A session of the channel that the command's options name.

        :raises CanError: it cannot be opened.
        """
        return self._session(channel, self._opener.open(channel))

    def open_listed(self, name: str) -> Session:
        """A session of a channel of :meth:`listed`.

        :raises CanError: it cannot be opened.
        """
        return self._session(name, self._opener.open_listed(name))

    def leave(self, session: Session) -> None:
        """Closes a session. Idempotent."""
        with self._lock:
            self._sessions.discard(session)
        session.close()

    def close(self) -> None:
        """Closes all sessions, also one that is just being opened. Idempotent."""
        with self._lock:
            self._is_closed = True
            left = list(self._sessions)
        for session in left:
            self.leave(session)

    def _session(self, name: str, bus: Bus) -> Session:
        with ExitStack() as stack:
            stack.callback(bus.shutdown)
            follower = stack.enter_context(Follower(name, bus))
            decoder, problem = (self._given, "") if self._given is not None else _own_decoder(bus)
            session = Session(follower, bus, self._opener.broker, decoder)
            session.message = problem
            with self._lock:
                if self._is_closed:
                    raise CanOperationError("top has ended")
                self._sessions.add(session)
            stack.pop_all()
        return session


def _own_decoder(bus: Bus) -> tuple[Decoder | None, str]:
    """That of the databases that the broker has for the channel, or why there is none: the rest of
    the display does not need it."""
    try:
        return channel_decoder(bus), ""
    except CanError as error:
        return None, f"no names and signals: {printable(str(error))}"
