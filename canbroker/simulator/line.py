"""The line between a simulated adapter and its host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Line(Protocol):
    """What a host opens; the simulated adapter has the other end. It exists while plugged in."""

    #: What a program opens. Another one after :meth:`open`, perhaps.
    path: str

    @property
    def closed(self) -> bool: ...

    def open(self) -> None:
        """Makes it: the adapter is plugged in.

        :raises CanInitializationError: it cannot be made; says why.
        """

    def close(self) -> None:
        """Removes it: the adapter is unplugged. Idempotent."""

    def sources(self, wants_data: bool) -> Sequence[int]:
        """The descriptors to wait for.

        :param wants_data: also waits for what the host writes.
        """

    def targets(self) -> Sequence[int]:
        """The descriptors that are writable when the host has room."""

    def was_opened(self) -> bool:
        """Whether a program has opened it since this was asked last; ``False`` if unwatched.

        Call it whenever one of the :meth:`sources` is readable.
        """

    def has_data(self) -> bool:
        """Whether the host has written something that was not read."""

    def read(self) -> bytes:
        """All that the host has written; never waits."""

    def write(self, data: bytes) -> int:
        """Number of bytes that the host has room for."""
