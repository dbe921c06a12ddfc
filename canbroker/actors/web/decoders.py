"""The signals of channels: their databases, read once, and what they make of a frame."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from canbroker.errors import CanInitializationError
from canbroker.model.frame import Frame
from canbroker.signals import load_databases

if TYPE_CHECKING:
    from canbroker.signals.decoder import Decoder

#: Signals of a channel that the page can choose from.
_LISTED: Final = 10_000


class Signals(NamedTuple):
    """The databases of a channel; without a ``decoder``, ``problem`` says why."""

    decoder: Decoder | None
    problem: str = ""

    def told(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Of each message: its name, and name and unit of its signals."""
        listed: list[tuple[str, list[tuple[str, str]]]] = []
        count = 0
        for message in self.decoder.messages if self.decoder is not None else ():
            signals = [(each.name, each.unit or "") for each in message.signals]
            count += len(signals)
            if count > _LISTED:
                break
            listed.append((message.name, signals))
        return listed

    def decode(self, frame: Frame) -> list[Any] | None:
        """What the page is told: the message's name, its problem, and of each signal name, value,
        label and unit. ``None``: nothing is known of it."""
        decoded = None if self.decoder is None else self.decoder.decode(frame)
        if decoded is None:
            return None
        signals = [(each.name, each.value, each.label, each.unit) for each in decoded.signals]
        return [decoded.message, decoded.problem, signals]


NO_SIGNALS: Final = Signals(None)


class Databases:
    """Databases by their paths. Any thread; reading a large one takes seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, ...], Signals] = {}

    def of(self, paths: Sequence[str]) -> Signals:
        """The signals that these files describe. Never raises."""
        key = tuple(paths)
        if not key:
            return NO_SIGNALS
        with self._lock:
            if key not in self._known:
                try:
                    self._known[key] = Signals(load_databases(key))
                except CanInitializationError as error:
                    self._known[key] = Signals(None, str(error))
            return self._known[key]
