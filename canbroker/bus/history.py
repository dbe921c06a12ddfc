"""The recent past of a channel, from the ring that its process keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from canbroker.bus.brokers import remote_broker
from canbroker.delivery.asker import Asker
from canbroker.delivery.tap import Frames
from canbroker.errors import CanOperationError
from canbroker.model.filters import EVERYTHING, FilterSet
from canbroker.system import clock
from canbroker.transport.address import Address
from canbroker.transport.place import Place
from canbroker.transport.sockets import SharedContext
from canbroker.wire import WireError
from canbroker.wire.topics import route_topic

#: A channel answers at once, so nobody should wait long for one that is gone. A full ring takes
#: some hundred answers, on a machine that may be busy.
_ANSWER_S: Final = 2.0
_WHOLE_S: Final = 30.0


def recent_frames(
    broker: str | None,
    channel: str,
    seconds: float,
    on_frames: Callable[[int], object] = lambda _: None,
    *,
    filters: FilterSet = EVERYTHING,
    before_ns: int | None = None,
) -> Frames:
    """A channel's frames of the last ``seconds``, oldest first, as far as its ring has them.

    The ring has the frames that passed the filters of any client. The channel is asked, not the
    broker, and is not kept open by it.

    :param broker: address; ``None``: this user's own.
    :param channel: the broker's name for it.
    :param on_frames: is told the number of frames that have arrived, again and again.
    :param filters: the frames to ask for.
    :param before_ns: ends when there is a frame of this time (wall clock), or of a later one.
    :returns: an event as of a :class:`~canbroker.delivery.tap.Tap`; its list may be empty.
    :raises CanOperationError: the channel does not answer, or does not follow the protocol.
    """
    if not channel or not channel.isprintable():
        raise CanOperationError(f"no channel is called {channel!r}")
    context = SharedContext()
    remote = remote_broker(broker, context)
    endpoint: Address = (
        Place.at(broker).channel(channel).control
        if remote is None
        else remote.place.channel_control(channel)
    )
    try:
        if remote is not None:
            remote.meet()
            remote.close()
        asker = Asker(context, endpoint)
        topic = route_topic(channel, filters)
        answer = asker.history(topic, 0, None, clock.deadline_after(_ANSWER_S))
        if answer is not None:
            deadline = clock.deadline_after(_WHOLE_S)
            answer = asker.history(topic, seconds, None, deadline, on_frames, before_ns)
    except WireError as error:
        raise CanOperationError(f"channel {channel!r}: {error}") from error
    finally:
        context.close()
    if answer is None:
        raise CanOperationError(f"channel {channel!r} does not answer")
    return Frames(channel, answer[0])
