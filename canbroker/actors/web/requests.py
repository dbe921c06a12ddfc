"""What a page asks for on its socket: JSON, one request a message."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from canbroker.logs.candump import parse_dump_filters
from canbroker.model.filters import EVERYTHING, FilterSet

#: The most signals that are drawn at a time, and rows that are decoded.
MAX_PLOTTED: Final = 8
MAX_SHOWN: Final = 400

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]


class Watch(msgspec.Struct, tag_field="ask", tag="watch", forbid_unknown_fields=True):
    """Look at a channel; ``None``: at none."""

    channel: _Name | None


class Show(msgspec.Struct, tag_field="ask", tag="show", forbid_unknown_fields=True):
    """Decode the rows with these keys, which are those that can be seen."""

    keys: Annotated[
        list[Annotated[int, msgspec.Meta(ge=0, lt=2**53)]], msgspec.Meta(max_length=MAX_SHOWN)
    ]


class Plot(msgspec.Struct, tag_field="ask", tag="plot", forbid_unknown_fields=True):
    """Send the values of these signals, each message and signal, ten times a second."""

    signals: Annotated[list[tuple[_Name, _Name]], msgspec.Meta(max_length=MAX_PLOTTED)]


class Trace(msgspec.Struct, tag_field="ask", tag="trace", forbid_unknown_fields=True):
    """Send frames as they come, or not; ``filters`` in candump's notation."""

    on: bool
    filters: Annotated[str, msgspec.Meta(max_length=1000)] = ""


class Tasks(msgspec.Struct, tag_field="ask", tag="tasks", forbid_unknown_fields=True):
    """Tell the periodic tasks with the status, or not."""

    on: bool


Request = Watch | Show | Plot | Trace | Tasks

_decoder = msgspec.json.Decoder(Request)


def parse(text: str) -> Request:
    """:raises ValueError: it is none of these; says what is wrong."""
    try:
        request: Request = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return request


def parse_filters(text: str) -> FilterSet:
    """Filters in candump's notation; empty: everything.

    :raises ValueError: says what is wrong.
    """
    return parse_dump_filters(text) if text.strip() else EVERYTHING
