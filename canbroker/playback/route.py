"""Where the frames of a log go."""

from __future__ import annotations

from collections.abc import Mapping

#: A channel for all frames; or for each interface of the log a channel; ``None``: by its name.
Target = str | Mapping[str, str] | None


class Route:
    """Where the frames of a log go: one channel, one for each assigned interface, or by name."""

    def __init__(self, target: Target = None) -> None:
        #: Channels by the interfaces of the log that are assigned to them.
        self.assigned: dict[str, str] = {}
        self._only: str | None = None
        if isinstance(target, str):
            self._only = target
        elif target is not None:
            self.assigned = dict(target)

    def channel(self, interface: str) -> str | None:
        """Where the frames of an interface go; ``None``: they are not sent."""
        if self._only is not None:
            return self._only
        return self.assigned.get(interface) if self.assigned else interface

    def known(self) -> list[str]:
        """The channels that are known before the log is read."""
        return [self._only] if self._only is not None else list(self.assigned.values())
