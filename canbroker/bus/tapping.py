"""Taps into open buses: all their frames, and what kept others from arriving, as one stream.

A bus finds the broker, opens the channel and keeps it open; its subscriber is what a
:class:`~canbroker.delivery.tap.Tap` reads instead of the bus.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from canbroker.bus.connection import ANSWER_S, Connection
from canbroker.bus.receiving import Reception
from canbroker.delivery.asker import Asker
from canbroker.delivery.order import Place
from canbroker.delivery.tap import Feed, Tap
from canbroker.errors import CanOperationError
from canbroker.model.frame import EchoFrame
from canbroker.system import clock
from canbroker.transport.address import parse_address
from canbroker.transport.sockets import SharedContext
from canbroker.wire import WireError
from canbroker.wire.replay import Held, Hold
from canbroker.wire.topics import route_topic

#: A full ring takes some hundred answers, on a machine that may be busy.
_PAST_S: Final = 15.0


class Tappable(Protocol):
    """An open bus whose messages nobody receives."""

    _reception: Reception
    _connection: Connection

    def shutdown(self) -> None: ...


class TappedBus:
    """A bus whose frames a tap reads, and which can go back to where another reader was.

    One thread. The bus belongs to this object.
    """

    def __init__(self, name: str, bus: Tappable) -> None:
        """``name``: what events call the channel."""
        self.feed = Feed(name, bus._reception.subscriber)
        self._bus = bus
        self._subscriber = bus._reception.subscriber
        filters = self._subscriber.filters
        if filters is None:
            raise RuntimeError("an open bus has filters")
        self._topic = route_topic(bus._connection.attached.name, filters)

    @property
    def channel(self) -> str:
        """The broker's name for the channel."""
        return self._bus._connection.attached.name

    @property
    def place(self) -> Place:
        """Behind what was received so far."""
        return self._subscriber.order.place

    def go_back(self, place: Place) -> None:
        """Continues at a place of the route that the bus is subscribed to. What has come since
        comes again, as far as the channel has it."""
        self._subscriber.go_back(place)

    def before(self, place: Place, seconds: float) -> list[EchoFrame]:
        """The frames of the last ``seconds`` that came before a place, from the channel's ring.

        :raises CanOperationError: the channel does not answer, or does not follow the protocol.
        """
        attached = self._bus._connection.attached
        context = SharedContext()
        asker = Asker(context, parse_address(attached.control))
        try:
            past = asker.history(self._topic, seconds, None, clock.deadline_after(_PAST_S))
        except WireError as error:
            raise CanOperationError(f"channel {attached.name!r}: {error}") from error
        finally:
            asker.close()
            context.close()
        if past is None:
            raise CanOperationError(f"channel {attached.name!r} did not tell its history in time")
        frames, next_seq = past
        newer = max(0, next_seq - place.number)
        return frames[: len(frames) - newer]

    def hold(
        self, holder: str, seconds: float, epoch: int | None = None, *, timeout: float = ANSWER_S
    ) -> Held:
        """Makes the channel keep the route for ``holder`` while it has no subscriber.

        :param seconds: for how long; 0 ends that.
        :param epoch: of the last frame that the holder has received.
        :param timeout: seconds.
        :raises CanOperationError: the channel refuses, or does not answer.
        """
        params = Hold(topic=self._topic.decode(), holder=holder, seconds=seconds, epoch=epoch)
        return self._bus._connection.control("hold", params, Held, timeout)

    def close(self) -> None:
        """Closes the bus."""
        self._bus.shutdown()


def tap(buses: Iterable[tuple[str, Tappable]]) -> Tap:
    """One stream of what these buses would receive, each under the name given with it.

    The buses must stay open while the stream is read, and nobody else may receive from them.
    Messages that a bus has received before, such as its ``history``, are not part of the stream.

    :raises CanOperationError: no file descriptor is left.
    """
    return Tap([Feed(name, bus._reception.subscriber) for name, bus in buses])
