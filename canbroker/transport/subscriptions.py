"""What a publishing socket reports."""

from __future__ import annotations

from typing import NamedTuple


class Subscription(NamedTuple):
    """Somebody subscribes to a topic (``begins``), or is the last one to end it.

    ``source``: the connection that it came by, as far as that is known.
    """

    topic: bytes
    begins: bool
    source: object
