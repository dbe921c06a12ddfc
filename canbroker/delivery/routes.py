"""Finds the routes that a frame belongs to, at a cost that does not grow with their number."""

from __future__ import annotations

import hashlib
from typing import Final

from canbroker.model.filters import FilterSet, union
from canbroker.model.frame import ERROR, EXTENDED, Frame

#: Identifiers whose routes are remembered; a bus has some hundreds, 2^29 are possible.
_CACHE_SIZE: Final = 65_536

_KIND: Final = EXTENDED | ERROR


def key_of(topic: bytes) -> int:
    """The key of a topic's route in the ring."""
    return int.from_bytes(hashlib.blake2b(topic, digest_size=8).digest(), "little")


def kind_of(frame: Frame) -> int:
    """The part of a frame that filters compare, as one number for :func:`passes`."""
    return frame.arbitration_id << 3 | frame.flags & _KIND


def passes(filters: FilterSet, kind: int) -> bool:
    return filters.matches(kind >> 3, kind & _KIND)


class Route:
    """One filter set of one channel, and the numbering of its frames."""

    __slots__ = ("beats", "filters", "key", "next_seq", "pending", "segment", "sent_ns", "topic")

    def __init__(self, topic: bytes, filters: FilterSet) -> None:
        self.topic = topic
        self.filters = filters
        self.next_seq = 0
        self.sent_ns = 0  # monotonic
        self.beats = 0  # heartbeats since the last frames
        self.key = key_of(topic)
        self.segment = 0  # number of the ring's last segment with frames of this route
        self.pending: list[bytes] = []  # packed frames that wait for the end of this round

    def __repr__(self) -> str:
        return f"<Route {self.topic.decode()} seq={self.next_seq}>"


class RouteTable:
    """The open routes of a channel, and for each identifier seen the routes it belongs to."""

    def __init__(self) -> None:
        self._routes: dict[bytes, Route] = {}
        self._cache: dict[int, tuple[Route, ...]] = {}
        self._wanted: FilterSet | None = None

    def __len__(self) -> int:
        return len(self._routes)

    def __contains__(self, topic: bytes) -> bool:
        return topic in self._routes

    def routes(self) -> list[Route]:
        return list(self._routes.values())

    def get(self, topic: bytes) -> Route | None:
        return self._routes.get(topic)

    def open(self, topic: bytes, filters: FilterSet) -> Route:
        """The route of ``topic``, which is added if it does not exist."""
        route = self._routes.get(topic)
        if route is None:
            route = self._routes[topic] = Route(topic, filters)
            self._changed()
        return route

    def drop(self, topic: bytes) -> None:
        if self._routes.pop(topic, None) is not None:
            self._changed()

    def matching(self, frame: Frame) -> tuple[Route, ...]:
        """The routes whose filters the frame passes."""
        kind = frame.arbitration_id << 3 | frame.flags & _KIND  # kind_of(), without a call a frame
        routes = self._cache.get(kind)
        if routes is None:
            routes = tuple(route for route in self._routes.values() if passes(route.filters, kind))
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            self._cache[kind] = routes
        return routes

    def wanted(self) -> FilterSet:
        """The union of all routes' filters, for a driver that can filter."""
        if self._wanted is None:
            self._wanted = union(route.filters for route in self._routes.values())
        return self._wanted

    def _changed(self) -> None:
        self._cache.clear()
        self._wanted = None
