"""Publishes last values: the states of channels, and signals if they are wanted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
from nats.aio.client import Client
from nats.errors import Error

from canbroker.actors.nats.line import Line
from canbroker.actors.nats.options import NatsOptions
from canbroker.bus.databases import fetch_decoder
from canbroker.errors import CanError
from canbroker.jetstream import subjects
from canbroker.jetstream.values import REPEAT_S, BenchState, Sample
from canbroker.model.frame import EXTENDED, EchoFrame
from canbroker.system import clock
from canbroker.view.running import RunningBroker
from canbroker.wire.stream import StateEvent

if TYPE_CHECKING:
    from canbroker.signals.decoder import Decoder

_REPEAT_NS: Final = int(REPEAT_S * clock.SECOND)

#: A state that flickers is told this often.
_APART_NS: Final = clock.SECOND // 5

#: Identifiers of a channel whose last frame is kept; a database has some hundreds.
_MOST: Final = 16_384

#: What is said of a channel when the bridge ends.
ENDED: Final = "the broker of this bench has ended"

_Key: TypeAlias = tuple[int, bool]
_logger = logging.getLogger(__name__)


class _Known:
    """What was published of a line."""

    def __init__(self) -> None:
        self.told: tuple[object, ...] = ()
        self.at_ns = 0
        self.decoder: Future[Decoder | None] | None = None
        self.newest: dict[_Key, EchoFrame] = {}
        self.due: dict[_Key, int] = {}
        self.values: dict[str, tuple[object, str | None]] = {}


class Values:
    """One event loop. ``problem``: why signals are not published."""

    def __init__(self, options: NatsOptions, broker: str) -> None:
        """``broker``: its address."""
        self.problem = ""
        self._options = options
        self._broker = broker
        self._interval_ns = int(clock.SECOND / options.signal_rate)
        self._client: Client | None = None
        self._known: dict[str, _Known] = {}
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="databases")

    def begin(self, client: Client) -> None:
        """Publishes everything anew, on this connection."""
        self._client = client
        for known in self._known.values():
            known.told, known.at_ns = (), 0
            known.values.clear()

    async def look(self, line: Line, now_ns: int) -> None:
        """Publishes what is new of a line that was just read."""
        known = self._known.setdefault(line.name, _Known())
        await self._look_at_state(line, known, now_ns)
        if self._options.signals:
            await self._look_at_signals(line, known, now_ns)

    async def end(self, lines: Iterable[Line]) -> None:
        """Publishes that nothing more will come."""
        for line in lines:
            await self._tell(line, StateEvent(state="error", reason=ENDED, ended=True))
        if self._client is not None:
            try:
                await self._client.flush(1)
            except (Error, OSError, TimeoutError) as error:
                _logger.info("NATS: %s", error)

    def close(self) -> None:
        """Gives up its thread."""
        self._reading.shutdown(wait=False, cancel_futures=True)

    # ----------------------------------------------------------------------------------- states

    async def _look_at_state(self, line: Line, known: _Known, now_ns: int) -> None:
        if now_ns - known.at_ns < _APART_NS:
            return
        state = line.state
        if line.problem or state is None:
            state = StateEvent(state="error", reason=line.problem or "not open yet")
        told = (line.epoch, state.state, state.reason, state.bitrate, state.exclusive)
        if told != known.told or now_ns - known.at_ns >= _REPEAT_NS:
            known.told, known.at_ns = told, now_ns
            await self._tell(line, state)

    async def _tell(self, line: Line, state: StateEvent) -> None:
        lag_ms = int(1000 * line.lag_s(clock.monotonic_ns()))
        bare = msgspec.structs.replace(state, clients=[], connected=[])  # nobody else's business
        told = BenchState(clock.wall_ns(), line.epoch, bare, lag_ms, line.totals.lost)
        subject = subjects.state(self._options.site, self._options.bench, line.name)
        await self._publish(subject, told.body(), told.headers())

    async def _publish(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        """Without an answer: the next one comes soon."""
        if self._client is None or self._client.is_closed:
            return
        try:
            await self._client.publish(subject, body, headers=headers)
        except (Error, OSError) as error:
            _logger.info("NATS: %s", error)

    # ---------------------------------------------------------------------------------- signals

    async def _look_at_signals(self, line: Line, known: _Known, now_ns: int) -> None:
        for frame in line.latest:
            known.newest[frame.arbitration_id, bool(frame.flags & EXTENDED)] = frame
        decoder = self._decoder(line, known)
        if decoder is None:
            if len(known.newest) > _MOST:
                known.newest.clear()
            return
        for key in [key for key in known.newest if now_ns >= known.due.get(key, 0)]:
            frame = known.newest.pop(key)
            decoded = decoder.decode(frame)
            if decoded is None:
                continue
            known.due[key] = now_ns + self._interval_ns
            for each in decoded.signals:
                subject = subjects.signals(
                    self._options.site, self._options.bench, line.name, decoded.message, each.name
                )
                value = each.value, each.label
                if known.values.get(subject) != value:
                    known.values[subject] = value
                    sample = Sample(frame.timestamp_ns, each.value, each.label, each.unit)
                    await self._publish(subject, sample.body(), sample.headers())
        if line.latest:
            await asyncio.sleep(0)  # acknowledgements are read in between

    def _decoder(self, line: Line, known: _Known) -> Decoder | None:
        """The databases of a channel, once they are read."""
        if known.decoder is None:
            known.decoder = self._reading.submit(self._fetch, line.name)
        if not known.decoder.done():
            return None
        try:
            return known.decoder.result()
        except CanError as error:
            if not self.problem:
                _logger.warning("signals of channel %r: %s", line.name, error)
            self.problem = f"signals of channel {line.name!r}: {error}"
            return None

    def _fetch(self, channel: str) -> Decoder | None:
        """[the thread for databases]"""
        with RunningBroker(self._broker) as running:
            return fetch_decoder(
                lambda method, params, result: running.ask(method, result, params=params), channel
            )
