"""What a broker tells of itself: the answer to the method ``status``."""

from __future__ import annotations

from typing import Any

import msgspec

from canbroker.wire.databases import DatabaseInfo
from canbroker.wire.recordings import RecordingStatus
from canbroker.wire.stream import StateEvent


class ClientStatus(msgspec.Struct, kw_only=True):
    """``replayed`` and ``gone``: as in the channel's state, since its process started."""

    client_id: str
    pid: int
    program: str
    filters: str = ""
    replayed: int = 0
    gone: int = 0


class ChannelStatus(msgspec.Struct, kw_only=True):
    """``phase``: stopped, starting, running, backing off (before a restart), stopping or failed.
    ``record``: path of the newest flight record. ``databases``: what its frames mean."""

    name: str
    interface: str
    parameters: dict[str, Any]
    configured: bool
    phase: str
    reason: str
    pid: int | None
    restarts: int
    stream: str
    transmit: str
    control: str
    state: StateEvent | None
    clients: list[ClientStatus]
    record: str = ""
    databases: list[DatabaseInfo] = []


class SchedulerStatus(msgspec.Struct, kw_only=True):
    """``phase`` as of a channel; stopped until a client asks for the scheduler."""

    phase: str
    reason: str
    pid: int | None
    restarts: int
    control: str


class GatewayStatus(msgspec.Struct, kw_only=True):
    """The gateway for remote clients, if the broker has one; ``phase`` as of a channel.

    ``listen`` is its address, ``key`` the broker's public key (empty: unencrypted). ``sessions``
    are open sockets of clients; ``users`` the names of the users that have some. ``turned_away``:
    connections that were refused for lack of room; ``refused``: sessions and connections that were
    ended. ``refusals``: how often users were denied something, by user and kind. ``fault``: the
    error in the file of users, if it has one.
    """

    phase: str
    reason: str
    pid: int | None
    restarts: int
    listen: str
    key: str = ""
    connections: int = 0
    sessions: int = 0
    users: list[str] = []
    turned_away: int = 0
    refused: int = 0
    refusals: dict[str, dict[str, int]] = {}
    fault: str = ""


class WebStatus(msgspec.Struct, kw_only=True):
    """The web page, if the broker has one; ``phase`` as of a channel.

    ``listen`` is its address in the configuration, ``url`` the page's. ``pages``: how many are
    open. ``refusals``: how often something was refused, by why. ``fault``: the error in the file of
    tokens, if it has one.
    """

    phase: str
    reason: str
    pid: int | None
    restarts: int
    listen: str
    url: str = ""
    pages: int = 0
    refusals: dict[str, int] = {}
    fault: str = ""


class NatsStatus(msgspec.Struct, kw_only=True):
    """The bridge to NATS, if the broker has one; ``phase`` as of a channel.

    ``url`` is the configured one, ``server`` the one it is connected to (empty: none), and
    ``connections`` how often it has connected. ``frames`` and ``messages`` count what the server
    has acknowledged; ``unacknowledged`` frames are still under way, the oldest for ``lag_s``
    seconds. ``duplicates``: messages that the server had already. ``lost``: frames that the stream
    records as lost; ``gaps``: losses of unknown size. ``commands``: requests that were sent;
    ``refused``: those that were not. ``trouble``: what is wrong at present.
    """

    phase: str
    reason: str
    pid: int | None
    restarts: int
    url: str
    server: str = ""
    connections: int = 0
    frames: int = 0
    messages: int = 0
    unacknowledged: int = 0
    lag_s: float = 0.0
    duplicates: int = 0
    lost: int = 0
    gaps: int = 0
    commands: int = 0
    refused: int = 0
    trouble: str = ""


class LeaseStatus(msgspec.Struct, kw_only=True):
    """A lease, or, without a channel, a request that waits for one; ``since_s`` seconds.

    ``pid`` is ``None`` if it belongs to a connection.
    """

    lease_id: str
    pool: str
    channel: str | None
    pid: int | None
    program: str
    since_s: float


class BrokerStatus(msgspec.Struct, kw_only=True):
    """The broker and everything that it runs.

    ``pools``: the channels of each pool. ``leases``: the leases, then the requests that wait for
    one. ``waiting``: unanswered requests for a channel or the scheduler. ``turned_away``: how many
    clients, requests and channels were refused for lack of room.
    """

    version: str
    pid: int
    address: str
    autostarted: bool
    uptime_s: float
    refused: int
    channels: list[ChannelStatus]
    scheduler: SchedulerStatus
    pools: dict[str, list[str]] = {}
    leases: list[LeaseStatus] = []
    waiting: int = 0
    turned_away: dict[str, int] = {}
    gateway: GatewayStatus | None = None
    recordings: list[RecordingStatus] = []
    web: WebStatus | None = None
    nats: NatsStatus | None = None
