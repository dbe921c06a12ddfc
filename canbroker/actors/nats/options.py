"""Where the bridge publishes, and what: the ``[nats]`` table."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final, Self

import msgspec

from canbroker.jetstream.server import Server, Tls
from canbroker.jetstream.subjects import encode_name
from canbroker.keys.transmit_table import TransmitTable

_MAX_WINDOW: Final = 1024
_MAX_RATE: Final = 100.0

#: What the bridge is called as the holder of routes.
HOLDER: Final = "NATS bridge"

#: How long a channel keeps and numbers frames for a bridge that is gone: the longest there is. What
#: has left the ring by then is counted.
HOLD_S: Final = 3600.0


class NatsOptions(TransmitTable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[nats]`` table.

    ``url``: ``nats://HOST:PORT`` or ``tls://HOST:PORT``; of a cluster, a list. Without it, there is
    no bridge. ``credentials``: a file from ``nsc`` (``.creds``), with the seed of an NKey, or with
    ``USER:PASSWORD``. ``tls``: a table of PEM files, ``ca`` (without it, the system's authorities),
    ``cert`` and ``key``; paths are relative to the configuration's. ``site`` and ``bench`` are this
    broker's names in subjects; without ``bench`` it has the name of the host. ``channels``: those
    that are published; without it, all. ``window``: unacknowledged messages of each channel.
    ``transmit``: the identifiers that may be sent by requests; none of them without it.
    ``signals``: publish the signals of channels that have a database, each on change and at most
    ``signal_rate`` times a second.
    """

    url: str | list[str] | None = None
    credentials: str = ""
    tls: Tls | None = None
    site: str = ""
    bench: str = ""
    channels: list[str] = msgspec.field(default_factory=list)
    window: int = 64
    signals: bool = False
    signal_rate: float = 1.0

    def __post_init__(self) -> None:
        if self.url is None:
            if self.site or self.bench or self.channels:
                raise ValueError("url is missing: without it, nothing is published")
            return
        _ = self.server
        if not self.site:
            raise ValueError("site is missing: subjects begin with can.v1.SITE.BENCH")
        for key in ("site", "bench"):
            try:
                encode_name(getattr(self, key) or "x")
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error
        if len({*self.channels}) < len(self.channels):
            raise ValueError("channels: one is named twice")
        if not 1 <= self.window <= _MAX_WINDOW:
            raise ValueError(f"window: must be 1 to {_MAX_WINDOW} messages, got {self.window}")
        if not 0 < self.signal_rate <= _MAX_RATE:
            raise ValueError(f"signal_rate: must be at most {_MAX_RATE:g}, got {self.signal_rate}")
        _ = self.ranges  # valid, or that is the error

    @property
    def server(self) -> Server:
        """How to connect; only with a ``url``."""
        return Server(url=self.url or [], credentials=self.credentials, tls=self.tls)

    def resolved(self, directory: Path, channels: list[str]) -> Self:
        """With all that was left out: ``channels`` are those of the broker, paths are absolute.

        :raises ValueError: there is no such channel, or a file cannot be used; names the key.
        """
        for name in self.channels:
            if name not in channels:
                known = ", ".join(map(repr, channels)) or "none"
                raise ValueError(f"channels: no channel {name!r}; channels of this file: {known}")
        if not self.channels and not channels:
            raise ValueError("channels: this file has no channels to publish")
        server = self.server.resolved(directory)
        server.login()
        server.context()
        return msgspec.structs.replace(
            self,
            credentials=server.credentials,
            tls=server.tls,
            bench=self.bench or socket.gethostname(),
            channels=self.channels or channels,
        )
