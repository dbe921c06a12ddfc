"""The signals of channels: their databases, read once, and what they make of a frame."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from canbroker.bus.databases import Ask, fetch_decoder
from canbroker.errors import CanError
from canbroker.model.frame import Frame
from canbroker.signals import load_databases
from canbroker.view.running import RunningBroker

if TYPE_CHECKING:
    from canbroker.signals.decoder import Decoder

#: Signals of a channel that the page can choose from.
_LISTED: Final = 10_000

#: Browsers have larger integers only approximately.
_EXACT: Final = 1 << 53

#: Databases that are kept, in case another page looks at their channel.
_KEPT: Final = 64


class Signals(NamedTuple):
    """The databases of a channel; without a ``decoder``, ``problem`` says why."""

    decoder: Decoder | None
    problem: str = ""

    def told(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Of each message: its name, and name and unit of its signals."""
        listed: dict[str, list[tuple[str, str]]] = {}
        known = self.decoder.signals() if self.decoder is not None else []
        for each in known[:_LISTED]:
            listed.setdefault(each.message, []).append((each.name, each.unit or ""))
        return list(listed.items())

    def decode(self, frame: Frame) -> list[Any] | None:
        """What the page is told: the message's name, its problem, and of each signal name, value,
        label and unit. ``None``: nothing is known of it."""
        decoded = None if self.decoder is None else self.decoder.decode(frame)
        if decoded is None:
            return None
        signals = [
            (each.name, _told_value(each.value), each.label, each.unit) for each in decoded.signals
        ]
        return [decoded.message, decoded.problems, signals]


def _told_value(value: float) -> float | str:
    """A number; as text if neither JSON nor a browser could keep it."""
    is_kept = abs(value) <= _EXACT if isinstance(value, int) else math.isfinite(value)
    return value if is_kept else str(value)


NO_SIGNALS: Final = Signals(None)


class Databases:
    """The databases of channels, by their content. Any thread; reading a large one takes seconds.

    ``default``: files for channels to which the broker gives none.
    """

    def __init__(self, address: str | None, default: Sequence[str]) -> None:
        """``address``: of the broker."""
        self._address = address
        self._default = tuple(default)
        self._lock = threading.Lock()
        self._known: dict[tuple[str, ...], Signals] = {}

    def of(self, channel: str) -> Signals:
        """The signals of a channel. Asks the broker which databases it has now. Never raises."""
        try:
            with RunningBroker(self._address) as running:
                return self._of(channel, running)
        except CanError as error:
            return Signals(None, str(error))

    def _of(self, channel: str, running: RunningBroker) -> Signals:
        """:raises CanError: the broker does not answer, or a database cannot be read."""
        found = [each for each in running.status().channels if each.name == channel]
        digests = tuple(each.sha256 for channel in found for each in channel.databases)
        key = digests or self._default
        if not key:
            return NO_SIGNALS
        with self._lock:
            if key not in self._known:
                decoder = (
                    fetch_decoder(_asking(running), channel)
                    if digests
                    else load_databases(self._default)
                )
                if len(self._known) >= _KEPT:
                    self._known.clear()
                self._known[key] = Signals(decoder)
            return self._known[key]


def _asking(running: RunningBroker) -> Ask:
    return lambda method, params, result: running.ask(method, result, params=params)
