"""What was seen of a channel's signals between two points, as assertions read it."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from canbroker.bus.samples import Condition, Sample
from canbroker.bus.signal_feed import SignalFeed
from canbroker.signals.selection import Key


class Capture:
    """The values from the beginning to the end of a ``with`` block, in the order of the channel.

    Exact at both ends: what was on the channel before the block is not in it; all that was there
    when the block ended is, and all that the program's own bus has sent by then.

    ``lost``: frames that were lost meanwhile, so that an assertion may not see what was there.
    """

    def __init__(self, feed: SignalFeed) -> None:
        self.lost = 0
        self._feed = feed
        self._samples: list[tuple[Key, Sample]] = []
        self._open: ExitStack | None = None

    def __repr__(self) -> str:
        state = "closed" if self._open is None else "open"
        return f"<Capture {self._feed.channel!r} {state} samples={len(self._samples)}>"

    def __enter__(self) -> Self:
        """:raises CanOperationError: the channel is gone, or does not answer."""
        self._feed.catch_up()
        self.lost = -self._feed.lost
        self._open = ExitStack()
        self._open.enter_context(self._feed.receiving(self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stack, self._open = self._open, None
        if stack is None:
            return
        with stack:
            if error is None:
                self._feed.flush()
                self._feed.catch_up()
        self.lost += self._feed.lost

    def put(self, key: Key, sample: Sample) -> None:
        """Keeps a sample: the feed calls it."""
        self._samples.append((key, sample))

    def __getitem__(self, name: str) -> list[Sample]:
        """The samples of a signal.

        :raises ValueError: no such signal; says which there are.
        """
        key = self._feed.selection.key(name)
        self._look()
        return [sample for of, sample in self._samples if of == key]

    def __contains__(self, name: str) -> bool:
        """Whether a signal was seen.

        :raises ValueError: as for ``seen[name]``.
        """
        return bool(self[name])

    def values(self, name: str) -> list[int | float]:
        """The numbers that a signal had.

        :raises ValueError: as for ``seen[name]``.
        """
        return [sample.value for sample in self[name]]

    def changes(self, name: str) -> list[int | float | str]:
        """The values that a signal had one after another, each once: labels where they have one.

        :raises ValueError: as for ``seen[name]``.
        """
        found: list[int | float | str] = []
        for sample in self[name]:
            value = sample.value if sample.label is None else sample.label
            if not found or found[-1] != value:
                found.append(value)
        return found

    def wait(self, name: str, condition: Condition, timeout: float | None = None) -> Sample:
        """As :meth:`Signals.wait <canbroker.bus.signals.Signals.wait>`, for a value since the block
        began: of an answer, say, to what was sent in it."""
        return self._feed.wait(name, condition, timeout, self._seen)

    async def wait_for(
        self, name: str, condition: Condition, timeout: float | None = None
    ) -> Sample:
        """As :meth:`wait`, for a task of an event loop."""
        return await self._feed.wait_for(name, condition, timeout, self._seen)

    def _seen(self) -> list[tuple[Key, Sample]]:
        return self._samples

    def _look(self) -> None:
        if self._open is not None:
            self._feed.receive_ready()
