"""Signals of a channel by name: latest values, waiting for a value, and captures for tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canbroker.bus.capture import Capture
from canbroker.bus.databases import channel_decoder
from canbroker.bus.ownership import Uncopyable
from canbroker.bus.samples import Condition, Sample
from canbroker.bus.signal_feed import SignalBus, SignalFeed
from canbroker.errors import CanInitializationError
from canbroker.signals import check_installed, load_databases
from canbroker.signals.selection import Selection
from canbroker.system.closing import Closing

if TYPE_CHECKING:
    from canbroker.signals.decoder import Decoder


class Signals(Uncopyable, Closing):
    """The signals of a channel. Any thread, and any task of an event loop.

    It receives by a bus of its own, with filters for the messages of its signals: other messages do
    not reach this process, and other buses receive theirs as before. It sees what every program
    sends, this one included. Values are decoded when a method is called; in between, they wait as
    the messages of every bus do, and are repaired or counted as ``lost`` likewise.
    """

    def __init__(
        self, bus: SignalBus, database: Any = None, names: Iterable[str] | None = None
    ) -> None:
        """
        :param bus: an open :class:`~canbroker.Bus` on the channel.
        :param database: path of a file (DBC, KCD, SYM, ARXML), a list of paths, or a database that
            cantools has loaded; ``None``: what the broker's configuration gives the channel.
        :param names: the signals, ``SIGNAL`` or ``MESSAGE.SIGNAL``; ``None``: all.
        :raises ValueError: no such signal, or several; says which there are.
        :raises CanInitializationError: cantools is not installed, a file is not a database, or the
            channel has none.
        :raises CanOperationError: the bus is closed, or its channel is gone.
        """
        decoder = _decoder(bus, database)
        self._feed = SignalFeed(bus, decoder, Selection(decoder, names))
        self._database = decoder.name

    def __repr__(self) -> str:
        return f"<Signals {self._feed.channel!r} {self._database}>"

    def latest(self, name: str) -> Sample | None:
        """The last value that was received; ``None`` if there was none yet. Does not wait for one.

        :raises ValueError: no such signal; says which there are.
        :raises CanOperationError: closed, or the channel is gone.
        """
        key = self._feed.selection.key(name)
        self._feed.receive_ready()
        return self._feed.latest.get(key)

    def snapshot(self) -> dict[str, Sample]:
        """The last value of each signal that was received, by ``MESSAGE.SIGNAL``.

        :raises CanOperationError: as :meth:`latest`.
        """
        self._feed.receive_ready()
        return {".".join(key): sample for key, sample in self._feed.last()}

    def wait(self, name: str, condition: Condition, timeout: float | None = None) -> Sample:
        """Blocks until a signal has a value, and returns it; at once if the last value is one.

        :param condition: a function of the number, ``lambda speed: speed > 50``; a number; or the
            label of an enumeration's value, as a text.
        :param timeout: seconds; ``None``: for ever.
        :raises CanTimeoutError: it had not in time; says what the last value was.
        :raises ValueError: no such signal, or label; says which there are.
        :raises CanOperationError: as :meth:`latest`.
        """
        return self._feed.wait(name, condition, timeout, self._feed.last)

    async def wait_for(
        self, name: str, condition: Condition, timeout: float | None = None
    ) -> Sample:
        """As :meth:`wait`, for a task of an event loop. Any number of tasks may wait."""
        return await self._feed.wait_for(name, condition, timeout, self._feed.last)

    def capture(self) -> Capture:
        """What is seen between two points: ``with signals.capture() as seen:``."""
        return Capture(self._feed)

    @property
    def undecoded(self) -> Counter[str]:
        """Frames whose data was not that of their message, by its name."""
        return Counter(self._feed.undecoded)

    @property
    def lost(self) -> int:
        """Frames that were lost on the way to us, as ``bus.stats.lost`` counts them."""
        return self._feed.lost

    def close(self) -> None:
        """Closes its bus. Idempotent."""
        self._feed.close()


def _decoder(bus: SignalBus, database: Any) -> Decoder:
    if database is None:
        found = channel_decoder(bus)
        if found is None:
            channel = bus._connection.attached.name
            raise CanInitializationError(
                f"channel {channel!r} has no database: give one, or name it in the broker's "
                f"configuration (database = [...])"
            )
        return found
    if isinstance(database, (str, Path)):
        return load_databases([database])
    check_installed("decoding signals")
    from canbroker.signals.decoder import Decoder  # noqa: PLC0415 - of an extra

    if Decoder.is_database(database):
        return Decoder("the database", database.messages)
    if isinstance(database, (list, tuple)) and database:
        return load_databases(database)
    raise ValueError(f"database must be a path, a list of paths or cantools' own, got {database!r}")
