"""An actor's process: the broker starts it, hears its reports, and tells it to leave."""

from __future__ import annotations

from typing import Protocol

from canbroker.actors.specs import ActorSpec, Alive, Ready
from canbroker.system.portable import PORTABLE


class Child(Protocol):
    """A running actor process, seen from the broker. Watch :meth:`fileno` for its reports."""

    @property
    def pid(self) -> int: ...

    def fileno(self) -> int: ...

    def reports(self) -> list[Ready | Alive] | None:
        """The child's reports since the last call; ``None`` if it ends, or has ended.

        :raises ReportError: something is not a report.
        """

    def release(self, last_words: str = "") -> None:
        """Tells the child to leave, by closing its lifeline.

        :param last_words: why it ends for good. A broker that is killed leaves no such words.
        """

    def kill(self) -> None: ...

    def poll(self) -> int | None:
        """The exit code, ``None`` while the child runs."""

    def close(self) -> None:
        """Closes what is open for a child that has ended."""


def start(name: str, spec: ActorSpec) -> Child:
    """Starts an actor's process; returns at once. ``name`` shows in the list of processes.

    :raises OSError: no process, no descriptor or no memory is left.
    """
    if PORTABLE:
        from canbroker.broker.portable_child import (  # noqa: PLC0415 - not loaded natively
            PortableChild,
        )

        return PortableChild(name, spec)
    from canbroker.broker.inheriting_child import InheritingChild  # noqa: PLC0415 - likewise

    return InheritingChild(name, spec)
