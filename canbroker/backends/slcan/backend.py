"""A serial adapter as a backend."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from itertools import chain

from canbroker import clock
from canbroker.backends.base import AdapterGoneError, Backend, Transmit
from canbroker.backends.slcan.backlog import Backlog
from canbroker.backends.slcan.handshake import Adapter, handshake
from canbroker.backends.slcan.options import SlcanOptions
from canbroker.backends.slcan.port import Port
from canbroker.backends.slcan.timestamps import AdapterClock
from canbroker.backends.slcan.window import ACKNOWLEDGE_NS, TransmitWindow
from canbroker.errors import CanInitializationError
from canbroker.frame import HARDWARE_TIMESTAMP, Frame, describe
from canbroker.slcan_codec import BEL, LineError, decode
from canbroker.throttle import Throttle

_log = logging.getLogger("canbroker.slcan")

_CLOSE = b"C\r"
_ACKNOWLEDGEMENTS = frozenset({b"", b"z", b"Z"})


def open_adapter(options: SlcanOptions) -> SlcanBackend:
    """Opens the device, configures the adapter, opens its channel. No fixed waiting times.

    :raises CanInitializationError: names the device, and the command if one was refused. Leaves
        the adapter's channel and the device closed.
    """
    port = Port(options.port, options.baudrate, options.rtscts)
    try:
        adapter = handshake(port, options)
        port.start(pumped=not adapter.acknowledges)
    except AdapterGoneError as error:
        port.close(_CLOSE)
        raise CanInitializationError(str(error)) from error
    except BaseException:
        port.close(_CLOSE)
        raise
    return SlcanBackend(port, adapter, options)


class SlcanBackend(Backend):
    """An open serial adapter; :func:`open_adapter` makes it.

    An adapter that acknowledges nothing has no window: its transmits are finished when written.
    """

    def __init__(self, port: Port, adapter: Adapter, options: SlcanOptions) -> None:
        said = [("version", adapter.version), ("serial", adapter.serial)]
        told = "".join(f" {what} {value}" for what, value in said if value)
        self.info = f"slcan {options.port}{told}"
        self.bitrate = options.rate
        self.data_bitrate = options.data_bitrate
        self.fd = options.fd
        self.listen_only = options.listen_only
        self._port = port
        self._acknowledges = adapter.acknowledges
        self._lines = adapter.lines
        self._early = adapter.early
        self._window = TransmitWindow()
        self._backlog = Backlog(options.rate, options.data_bitrate)
        self._written: deque[Transmit] = deque()  # finished by send(), for read() to return
        self._clock = AdapterClock()
        self._throttle = Throttle(_log)
        self._gone: AdapterGoneError | None = None

    def __repr__(self) -> str:
        return f"<SlcanBackend {self._port.name}{' closed' if self._port.closed else ''}>"

    def fileno(self) -> int:
        return self._port.fileno()

    def read(self) -> Sequence[Frame | Transmit]:
        """As the base says. Also sends refused frames again: this is the thread that sees the
        answers and keeps the deadlines, while the send thread may sleep until there is room."""
        if self._gone is not None:
            raise self._gone
        data = self._port.read()
        wall_ns = clock.wall_ns()
        happened: list[Frame | Transmit] = []
        early, self._early = self._early, []
        for line, terminator in chain(early, self._lines.feed(data)):
            self._line(line, terminator, wall_ns, happened)
        now_ns = clock.monotonic_ns()
        while self._written and self._keeps_up(now_ns):
            happened.append(self._written.popleft())
        happened.extend(self._window.give_up(now_ns))
        try:
            self._retry(now_ns)
            self._check_deadline(now_ns)
        except AdapterGoneError as error:
            if not happened:
                raise
            self._gone = error  # after what was read before
        return happened

    def due_ns(self) -> int | None:
        """As the base says. :meth:`send` sets a deadline 1 s ahead without waking whoever waits,
        so ask again at least that often."""
        if self._early or self._gone:
            return clock.monotonic_ns()
        return self._backlog.shallow_ns() if self._written else self._window.due_ns()

    def room(self, sender: str) -> int:
        del sender  # the adapter has one queue, whoever sends
        if self.listen_only:
            return 0
        alone = self._acknowledges and self._backlog.deep(clock.monotonic_ns())
        return max(0, self._window.room(alone=alone) - len(self._written))

    def send(self, transmits: Sequence[Transmit]) -> None:
        now_ns = clock.monotonic_ns()
        for transmit in transmits:
            self._backlog.sent(transmit.frame, now_ns)
        lines = self._window.add(transmits, now_ns)
        if lines:
            self._port.write(lines)
        if not self._acknowledges:
            wall_ns = clock.wall_ns()
            for _ in transmits:
                self._written.extend(_confirmed(self._window.taken() or [], wall_ns))
            self._port.wake()

    def _keeps_up(self, now_ns: int) -> bool:
        """Whether an adapter that never answers can be given more: its silence says nothing of
        its queue, so the next frames wait for the time that these take."""
        return self.bitrate is None or not self._backlog.deep(now_ns)

    def abandon(self) -> Sequence[Transmit]:
        written = list(self._written)
        self._written.clear()
        return [*written, *self._window.abandon()]

    def counters(self) -> dict[str, int]:
        return dict(self._throttle.counts)

    def close(self) -> None:
        self._port.close(_CLOSE)

    def _line(
        self, line: bytes, terminator: bytes, wall_ns: int, happened: list[Frame | Transmit]
    ) -> None:
        if terminator == BEL:
            if line:
                self._throttle.note("truncated", f"{line[:40]!r} before an answer")
            self._refused()
        elif line in _ACKNOWLEDGEMENTS:
            ended = self._window.taken()
            if ended is None:
                self._throttle.note("unexpected_answer", f"{line!r} answers nothing", logging.DEBUG)
            else:
                happened.extend(_confirmed(ended, wall_ns))
        else:
            try:
                frame, adapter_ms = decode(line)
            except LineError as error:
                self._throttle.note(error.kind, f"{self._port.name}: {error}")
                return
            self._backlog.received(frame, clock.monotonic_ns())
            frame.timestamp_ns = wall_ns
            if adapter_ms is not None:
                frame.timestamp_ns = self._clock.wall_ns(adapter_ms, wall_ns)
                frame.flags |= HARDWARE_TIMESTAMP
            happened.append(frame)

    def _refused(self) -> None:
        if self._window.refused(clock.monotonic_ns()):
            self._throttle.note("refused", f"{self._port.name} refused a transmit", logging.DEBUG)
        else:
            self._throttle.note("unexpected_answer", "BEL answers nothing", logging.DEBUG)

    def _retry(self, now_ns: int) -> None:
        if line := self._window.retry(now_ns):
            self._port.write(line)

    def _check_deadline(self, now_ns: int) -> None:
        late = self._window.overdue(now_ns)
        # An answer may still lie in the driver, when it was this process that was slow.
        if late is not None and self._port.drained:
            raise AdapterGoneError(
                f"adapter {self._port.name} did not acknowledge {describe(late.frame)}"
                f" within {ACKNOWLEDGE_NS / clock.SECOND:g} s"
            )


def _confirmed(ended: list[Transmit], wall_ns: int) -> list[Transmit]:
    for transmit in ended:
        if transmit.failure is None:
            transmit.timestamp_ns = wall_ns
    return ended
