"""Topics of a channel's stream. The text of a topic says what is subscribed to."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

import msgspec

from canbroker.model import filters
from canbroker.model.filters import FilterSet
from canbroker.wire import WireError, is_client_id

#: The longest set of filters, 1,024 of 29 bits, has about 20,000.
MAX_TOPIC_BYTES: Final = 32_768

#: The most characters of a claim; the rest is ignored.
MAX_CLAIM: Final = 256


class RouteTopic(msgspec.Struct, frozen=True):
    """Frames that pass ``filters``."""

    filters: FilterSet


class StateTopic(msgspec.Struct, frozen=True):
    """States of the channel: bus state, counters, clients."""


class PrivateTopic(msgspec.Struct, frozen=True):
    """Events for one client. A client is present while it subscribes to this topic.

    ``filters``: of the route that the client has subscribed to before. ``claim``: a description of
    the client, for people, if it wants the sole right to transmit; else ``None``.
    """

    client_id: str
    filters: FilterSet
    claim: str | None = None


class LeftTopic(msgspec.Struct, frozen=True):
    """One event, when a client is not present any more."""

    client_id: str


Topic = RouteTopic | StateTopic | PrivateTopic | LeftTopic


def encode_channel(name: str) -> str:
    """A channel name in topics and file names: ``[A-Za-z0-9_.-]`` stay, others become %XX."""
    return quote(name, safe="").replace("~", "%7E")


def route_topic(channel: str, wanted: FilterSet) -> bytes:
    """The topic to subscribe to for the frames of ``channel`` that pass ``wanted``."""
    return f"{encode_channel(channel)}/rx{_query(wanted)};".encode()


def state_topic(channel: str) -> bytes:
    return f"{encode_channel(channel)}/state;".encode()


def private_topic(
    channel: str, client_id: str, wanted: FilterSet, claim: str | None = None
) -> bytes:
    """The topic of a client. ``claim``: as of :class:`PrivateTopic`."""
    claimed = "" if claim is None else f"!{encode_channel(claim)}"
    return f"{encode_channel(channel)}/@{client_id}{claimed}{_query(wanted)};".encode()


def left_topic(channel: str, client_id: str) -> bytes:
    """The topic that tells when a client is not present any more."""
    return f"{encode_channel(channel)}/left/{client_id};".encode()


def parse(topic: bytes, channel: str) -> Topic:
    """The meaning of a topic of ``channel``.

    :raises WireError: says what is wrong with the topic.
    """
    if len(topic) > MAX_TOPIC_BYTES:
        raise WireError(f"a topic may have {MAX_TOPIC_BYTES} bytes, this one has {len(topic)}")
    try:
        text = topic.decode("ascii")
    except UnicodeDecodeError:
        raise WireError(f"topic {topic!r} is not ASCII") from None
    prefix = encode_channel(channel) + "/"
    if not text.startswith(prefix):
        raise WireError(f"topic {text!r} does not start with {prefix!r}")
    if not text.endswith(";"):
        raise WireError(f"topic {text!r} does not end in ';'")
    kind, mark, query = text[len(prefix) : -1].partition("?")
    if kind == "state" and not mark:
        return StateTopic()
    head, _, client_id = kind.partition("/")
    if head == "left" and is_client_id(client_id) and not mark:
        return LeftTopic(client_id)
    try:
        wanted = filters.parse(query)
    except ValueError as error:
        raise WireError(f"topic {text!r}: {error}") from error
    if kind == "rx":
        return RouteTopic(wanted)
    client_id, claimed, claim = kind.removeprefix("@").partition("!")
    if kind.startswith("@") and is_client_id(client_id):
        return PrivateTopic(client_id, wanted, unquote(claim)[:MAX_CLAIM] if claimed else None)
    raise WireError(f"topic {text!r} is neither rx, state, @<client-id> nor left/<client-id>")


def _query(wanted: FilterSet) -> str:
    return f"?{wanted.text}" if wanted.text else ""
