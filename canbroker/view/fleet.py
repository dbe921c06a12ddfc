"""The benches of a site, as their states in NATS say: nobody of them is asked."""

from __future__ import annotations

import asyncio
import os
from typing import Final, NamedTuple

from canbroker.errors import CanInitializationError
from canbroker.jetstream import subjects
from canbroker.jetstream.link import Link, NoAnswerError
from canbroker.jetstream.ordered import OrderedReader, Start, StreamMessage
from canbroker.jetstream.server import Server
from canbroker.jetstream.stream_state import find_stream, state_of
from canbroker.jetstream.streams import VALUES
from canbroker.jetstream.values import REPEAT_S, BenchState, parse_state
from canbroker.system import clock
from canbroker.wire import WireError

#: So long a server may take to begin, and then for the states of ten thousand benches.
_BEGIN_S: Final = 10.0
_READ_S: Final = 60.0

#: A bench whose state is older than this is gone: it repeats it more often.
GONE_S: Final = 3 * REPEAT_S

#: Clocks that differ by more than this are worth a note.
_CLOCK_S: Final = 5.0


class FleetChannel(NamedTuple):
    """A channel of a bench. ``age_s``: how long ago the server got its state, by the clock of the
    server; ``clock_s``: what the clock of the bench was ahead of it."""

    site: str
    bench: str
    channel: str
    age_s: float
    clock_s: float
    told: BenchState

    @property
    def word(self) -> str:
        """What a person has to know: ``ended``, ``gone``, or the state of the channel."""
        if self.told.state.ended:
            return "ended"
        return "gone" if self.age_s > GONE_S else self.told.state.state

    @property
    def note(self) -> str:
        """What there is to say beside; may be empty."""
        notes = [self.told.state.reason] if self.word == self.told.state.state else []
        if abs(self.clock_s) > _CLOCK_S:
            ahead = "ahead of" if self.clock_s > 0 else "behind"
            notes.append(f"its clock is {abs(self.clock_s):,.0f} s {ahead} the server's")
        return "; ".join(filter(None, notes))


class Fleet(NamedTuple):
    """Channels in the order of their names. ``unreadable``: messages that are not a state."""

    channels: list[FleetChannel]
    unreadable: int = 0

    @property
    def benches(self) -> set[tuple[str, str]]:
        """Site and bench of each."""
        return {(each.site, each.bench) for each in self.channels}


def fleet(server: Server, site: str | None = None, bench: str | None = None) -> Fleet:
    """The last state of each channel.

    :param site: only this one; likewise ``bench``.
    :raises CanInitializationError: the server or its stream cannot be used; says why.
    :raises CanPermissionError: our account may not read states.
    """
    return asyncio.run(_fleet(server, subjects.state(site, bench)))


async def _fleet(server: Server, subject: str) -> Fleet:
    link = await Link.open(server, f"canbroker fleet {os.getpid()}")
    try:
        async with asyncio.timeout(_READ_S):
            return await _read(link, subject)
    except NoAnswerError as error:
        raise CanInitializationError(str(error)) from error
    except TimeoutError as error:
        text = f"NATS at {server.shown} does not send all states within {_READ_S:g} s"
        raise CanInitializationError(text) from error
    finally:
        await link.close()


async def _read(link: Link, subject: str) -> Fleet:
    state = await state_of(link, await find_stream(link, subject, VALUES.name))
    reader = OrderedReader(link, state, [subject], Start(), end=state.last)
    await reader.begin(_BEGIN_S)
    channels: list[FleetChannel] = []
    unreadable = 0
    try:
        while (message := await reader.next()) is not None:
            try:
                channels.append(_channel(message, reader.server_ns))
            except (WireError, ValueError):
                unreadable += 1
    finally:
        await reader.close()
    return Fleet(sorted(channels, key=lambda each: each[:3]), unreadable)


def _channel(message: StreamMessage, server_ns: int) -> FleetChannel:
    """:raises ValueError: the subject is not that of a state.
    :raises WireError: the message is not a state.
    """
    subject = subjects.parse(message.subject)
    told = parse_state(message.headers, message.data)
    return FleetChannel(
        site=subject.site,
        bench=subject.bench,
        channel=subject.channel,
        age_s=max(0, server_ns - message.time_ns) / clock.SECOND,
        clock_s=(told.time_ns - message.time_ns) / clock.SECOND,
        told=told,
    )
