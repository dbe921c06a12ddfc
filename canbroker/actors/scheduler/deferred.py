"""Replies that wait until no frame of a changed or stopped task is under way any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from canbroker.actors.scheduler.channel_proxy import ChannelProxy, Watermark, later
from canbroker.transport.replier import Caller


class DeferredReply(NamedTuple):
    """A reply that may be sent when all of its channels are past these watermarks."""

    caller: Caller
    watermarks: Mapping[ChannelProxy, Watermark]
    result: msgspec.Struct

    @property
    def is_due(self) -> bool:
        return all(proxy.is_past(watermark) for proxy, watermark in self.watermarks.items())


class DeferredReplies:
    """The replies that wait. One thread."""

    def __init__(self) -> None:
        self._waiting: list[DeferredReply] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, reply: DeferredReply) -> None:
        self._waiting.append(reply)

    def remove_due(self) -> list[DeferredReply]:
        """Removes and returns the replies that may be sent now."""
        due: list[DeferredReply] = []
        waiting: list[DeferredReply] = []
        for reply in self._waiting:
            (due if reply.is_due else waiting).append(reply)
        self._waiting = waiting
        return due

    def merged(
        self, identity: bytes, watermarks: Mapping[ChannelProxy, Watermark]
    ) -> dict[ChannelProxy, Watermark]:
        """``watermarks`` and those that the caller of that identity waits for already: a stop that
        is repeated is not done sooner."""
        merged = dict(watermarks)
        for waiting in self._waiting:
            if waiting.caller.identity == identity:
                for proxy, watermark in waiting.watermarks.items():
                    merged[proxy] = later(watermark, merged.get(proxy, watermark))
        return merged
