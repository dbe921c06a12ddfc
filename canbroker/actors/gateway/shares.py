"""How many routes and clients of a channel a user has: a channel has room for a limited number."""

from __future__ import annotations

from collections import Counter
from typing import Final

#: Routes of a channel that one user may have open, and clients. A channel has four times as many.
MOST: Final = 256


class NoRoomError(Exception):
    """The user has as many as it may; the text is a sentence."""


class Shares:
    """What the users of a gateway have of each channel, counted by their subscriptions."""

    def __init__(self) -> None:
        self._taken: Counter[tuple[str, str, str]] = Counter()  # user, channel, what

    def of(self, user: str, stem: str) -> Share:
        """A user's share of the channel whose sockets have this stem."""
        return Share(self._taken, user, stem)


class Share:
    """What one socket of a user has of a channel. Give it back with :meth:`close`."""

    def __init__(self, taken: Counter[tuple[str, str, str]], user: str, stem: str) -> None:
        self._taken = taken
        self._user = user
        self._stem = stem
        self._topics: dict[bytes, tuple[str, str, str] | None] = {}

    def __contains__(self, topic: bytes) -> bool:
        return topic in self._topics

    def __len__(self) -> int:
        return len(self._topics)

    def take(self, topic: bytes) -> None:
        """:raises NoRoomError: the user may not have another topic of this kind."""
        what = _what(topic)
        key = None if what is None else (self._user, self._stem, what)
        if key is not None:
            if self._taken[key] >= MOST:
                raise NoRoomError(
                    f"{self._user!r} has {MOST} {what} of the channel at {self._stem!r}, "
                    "the limit for a user"
                )
            self._taken[key] += 1
        self._topics[topic] = key

    def give_back(self, topic: bytes) -> None:
        key = self._topics.pop(topic)
        if key is not None:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]

    def close(self) -> None:
        """Idempotent."""
        for topic in list(self._topics):
            self.give_back(topic)


def _what(topic: bytes) -> str | None:
    """What of a channel this topic takes, if that is limited."""
    _, _, name = topic.partition(b"/")
    if name.startswith(b"rx"):
        return "routes"
    return "clients" if name.startswith(b"@") else None
