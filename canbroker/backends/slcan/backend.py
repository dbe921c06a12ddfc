"""A serial adapter as a backend."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from itertools import chain

import msgspec

from canbroker.backends.base import (
    AT_ONCE,
    AdapterGoneError,
    Backend,
    BusCondition,
    StampClock,
    Transmit,
)
from canbroker.backends.coalescing import Coalescing
from canbroker.backends.slcan.backlog import Backlog
from canbroker.backends.slcan.checkup import NEVER_NS, Checkup
from canbroker.backends.slcan.codec import BEL, CR, LF, LineError
from canbroker.backends.slcan.commands import closing
from canbroker.backends.slcan.handshake import Adapter, handshake
from canbroker.backends.slcan.options import AnsweringOptions, SlcanOptions
from canbroker.backends.slcan.port import Port
from canbroker.backends.slcan.timestamps import Stamps
from canbroker.backends.slcan.window import ACKNOWLEDGE_NS, TransmitWindow
from canbroker.errors import CanInitializationError
from canbroker.model.bus_time import nominal_time_ns
from canbroker.model.frame import BITRATE_SWITCH, REMOTE, Frame, describe
from canbroker.system import clock
from canbroker.system.throttle import Throttle

_log = logging.getLogger("canbroker.slcan")

_CLOSE = b"C\r"
_ACKNOWLEDGEMENTS = frozenset({b"", b"z", b"Z"})
#: For pacing an adapter that reports neither its rate nor that its queue is full.
_ASSUMED_BITRATE = 125_000
#: If no LF has followed an empty line within this time, none will.
_HOLD_NS = 20 * clock.MILLISECOND


def open_adapter(options: SlcanOptions) -> SlcanBackend:
    """Opens the device, configures the adapter, opens its channel.

    :raises CanInitializationError: names the device, and the command if one was refused. Leaves
        the adapter's channel and the device closed.
    """
    port = Port(options.port, options.baudrate, options.rtscts)
    try:
        adapter = handshake(port, options)
        port.start(wakes=not adapter.acknowledges)
    except AdapterGoneError as error:
        _close(port)
        raise CanInitializationError(str(error)) from error
    except BaseException:
        _close(port)
        raise
    return SlcanBackend(port, adapter, options)


def _close(port: Port) -> None:
    port.close(closing() if port.is_torn else _CLOSE)


class SlcanBackend(Backend):
    """An open serial adapter; :func:`open_adapter` makes it.

    An adapter that acknowledges nothing has no window: its transmits are finished when written. If
    it is not known whether an adapter acknowledges, its first transmit shows it. An adapter that
    loses frames when its queue is full gets only as many as fit, computed from their bus time.
    """

    blocks = True

    def __init__(self, port: Port, adapter: Adapter, options: SlcanOptions) -> None:
        self.bitrate = options.rate
        self.data_bitrate = options.data_bitrate
        self.fd = options.fd
        self.listen_only = options.listen_only
        if adapter.answers:
            self.reopening = AnsweringOptions(**msgspec.structs.asdict(options))
        self.coalescing = Coalescing(options.coalesce_ns)
        self._port = port
        self._adapter = adapter
        self._acknowledges = adapter.acknowledges
        dialect = adapter.dialect
        self._decode = dialect.decode
        self._lines = adapter.lines
        self._early = adapter.early
        self._window = TransmitWindow(dialect.encode, max(ACKNOWLEDGE_NS, 2 * adapter.answer_ns))
        rate = options.rate
        if rate is None and (dialect.loses or not adapter.acknowledges):
            rate = dialect.power_up_bitrate or _ASSUMED_BITRATE
        self._backlog = Backlog(rate, options.data_bitrate, dialect.depth)
        self._one_by_one = dialect.depth == 0
        self._written: deque[Transmit] = deque()  # finished, except for their time on the bus
        self._stamps = Stamps(options.timestamps)
        self._throttle = Throttle(_log)
        self._checkup = Checkup(adapter, clock.monotonic_ns())
        self._held_until_ns: int | None = None
        self._heard_ns = 0  # wall clock, when something was read last
        self._gone: AdapterGoneError | None = None
        self._warn()
        self._describe()

    def __repr__(self) -> str:
        return f"<SlcanBackend {self._port.name}{' closed' if self._port.closed else ''}>"

    def fileno(self) -> int:
        return self._port.fileno()

    def read(self) -> Sequence[Frame | Transmit]:
        """See the base class. Also resends refused frames: this thread sees the answers and keeps
        the deadlines, while the send thread may sleep until there is room."""
        if self._gone is not None:
            raise self._gone
        data = self._port.read()
        wall_ns, now_ns = clock.wall_ns(), clock.monotonic_ns()
        happened: list[Frame | Transmit] = []
        early, self._early = self._early, []
        for line, terminator in chain(early, self._lines.feed(data)):
            self._line(line, terminator, wall_ns, now_ns, happened)
        if self._lines.held or self._held_until_ns is not None:
            self._release_held(bool(data), now_ns, wall_ns, happened)
        if happened:
            self._checkup.heard(now_ns)
            if left_ns := self.coalescing.left_ns(now_ns):
                self._date_back(happened, wall_ns, left_ns)
            self._heard_ns = wall_ns
        while self._written and not self._backlog.deep(now_ns):
            happened.append(self._written.popleft())
        try:
            if not self._window.is_empty:
                happened.extend(self._window.give_up(now_ns))
                self._retry(now_ns)
                self._check_deadline(now_ns, happened)
            if now_ns >= self._checkup.next_ns or self._checkup.problem:
                self._check_up(now_ns)
        except AdapterGoneError as error:
            if not happened:
                raise
            self._gone = error  # after what was read before
        return happened

    def due_ns(self) -> int | None:
        """See the base class. :meth:`send` sets a deadline 1 s ahead without waking the reader, so
        call this at least once per second."""
        if self._early or self._gone:
            return AT_ONCE
        transmits = self._backlog.shallow_ns() if self._written else self._window.due_ns()
        times = (transmits, self._held_until_ns, self._checkup.next_ns)
        due_ns = min(time for time in times if time is not None)
        return None if due_ns == NEVER_NS else due_ns

    def room(self, sender: str) -> int:
        del sender  # the adapter has one queue for all senders
        if self.listen_only:
            return 0
        alone = (
            self._acknowledges is None
            or self._one_by_one
            or (self._acknowledges and self._backlog.deep(clock.monotonic_ns()))
        )
        return max(0, self._window.room(alone=alone) - len(self._written))

    def send(self, transmits: Sequence[Transmit]) -> None:
        now_ns = clock.monotonic_ns()
        if not self._one_by_one:
            for transmit in transmits:
                self._backlog.sent(transmit.frame, now_ns)
        lines = self._window.add(transmits, now_ns)
        if lines:
            self._port.write(lines)
        if self._acknowledges is False:
            for _ in transmits:
                self._written.extend(self._oldest())
            self._port.wake()

    def fault(self, frame: Frame) -> str | None:
        fault = super().fault(frame)
        if fault is None and frame.flags & REMOTE and not self._adapter.dialect.has_remote:
            return "this adapter cannot send remote frames"
        return fault

    def abandon(self) -> Sequence[Transmit]:
        written = list(self._written)
        self._written.clear()
        return [*written, *self._window.abandon()]

    def stamp_clock(self) -> StampClock | None:
        return self._stamps.quality

    def counters(self) -> dict[str, int]:
        return dict(self._throttle.counts)

    def close(self) -> None:
        _close(self._port)

    # ------------------------------------------------------------------------------- lines

    def _line(
        self,
        line: bytes,
        terminator: bytes,
        wall_ns: int,
        now_ns: int,
        happened: list[Frame | Transmit],
    ) -> None:
        if terminator in (CR, LF) and line not in _ACKNOWLEDGEMENTS:
            try:
                frame, adapter_ms = self._decode(line)
            except LineError as error:
                if not self._answers(line, terminator):
                    self._throttle.note(error.kind, f"{self._port.name}: {error}")
                return
            self._backlog.received(frame, now_ns)
            frame.timestamp_ns = wall_ns
            if adapter_ms is not None or self._stamps.expected:
                self._stamps.stamp(frame, adapter_ms, wall_ns, now_ns)
                if self._stamps.problem:
                    self._drop_clock()
            happened.append(frame)
        elif self._answers(line, terminator):
            return
        elif terminator == BEL:
            if line:
                self._throttle.note("truncated", f"{line[:40]!r} before an answer")
            self._refused()
        elif terminator == CR or (terminator == self._adapter.dialect.done and not line):
            self._taken(line, wall_ns, happened)
        else:
            self._throttle.note("malformed", f"{self._port.name}: {line[:40]!r}")

    def _date_back(self, happened: list[Frame | Transmit], wall_ns: int, left_ns: int) -> None:
        """Stamps what was read together at ``wall_ns`` with the latest time at which it can have
        happened: the bus had to be free for the frames behind it. For ``left_ns`` nobody has read:
        all of it came meanwhile."""
        if not self.bitrate:
            return
        floor_ns = wall_ns - left_ns
        if self._heard_ns <= wall_ns:  # else the clock was set back
            floor_ns = max(floor_ns, self._heard_ns)
        latest_ns = wall_ns
        for item in reversed(happened):
            if item.timestamp_ns == wall_ns:  # else an adapter's clock has stamped it
                item.timestamp_ns = latest_ns = max(floor_ns, latest_ns)
            if isinstance(item, Frame) and (self.data_bitrate or not item.flags & BITRATE_SWITCH):
                latest_ns -= nominal_time_ns(item, self.bitrate, self.data_bitrate)

    def _release_held(
        self, is_news: bool, now_ns: int, wall_ns: int, happened: list[Frame | Transmit]
    ) -> None:
        """Handles a held empty line as an acknowledgement once no LF can follow it any more."""
        if not self._lines.held:
            self._held_until_ns = None
        elif is_news or self._held_until_ns is None:
            self._held_until_ns = now_ns + _HOLD_NS
        elif now_ns >= self._held_until_ns:
            self._held_until_ns = None
            for line, terminator in self._lines.release():
                self._line(line, terminator, wall_ns, now_ns, happened)

    def _taken(self, line: bytes, wall_ns: int, happened: list[Frame | Transmit]) -> None:
        ended = self._window.taken()
        if ended is None:
            self._throttle.note("unexpected_answer", f"{line!r} answers nothing", logging.DEBUG)
            return
        if self._acknowledges is None:
            self._acknowledges = True
        if self._one_by_one:
            # Its time on the bus begins now: before, it was on the serial line.
            self._backlog.sent(ended[-1].frame, clock.monotonic_ns())
        done = self._written if self._adapter.dialect.loses else happened
        done.extend(_confirmed(ended, wall_ns))

    def _refused(self) -> None:
        if self._window.refused(clock.monotonic_ns()):
            self._throttle.note("refused", f"{self._port.name} refused a transmit", logging.DEBUG)
        else:
            self._throttle.note("unexpected_answer", "BEL answers nothing", logging.DEBUG)

    def _drop_clock(self) -> None:
        _log.warning(
            "adapter %s: %s; frames are stamped on arrival instead (timestamps=on overrides this)",
            self._port.name,
            self._stamps.problem,
        )
        self._stamps.problem = ""

    # --------------------------------------------------------------------------- deadlines

    def _retry(self, now_ns: int) -> None:
        if line := self._window.retry(now_ns):
            self._port.write(line)
            if self._acknowledges is False:
                self._written.extend(self._oldest())

    def _oldest(self) -> list[Transmit]:
        """Removes from the window the transmit just written, which will not be acknowledged."""
        return _confirmed(self._window.taken() or [], clock.wall_ns())

    def _check_deadline(self, now_ns: int, happened: list[Frame | Transmit]) -> None:
        late = self._window.overdue(now_ns)
        # If this process was slow, the answer may still be in the driver's buffer.
        if late is None or not self._port.drained:
            return
        if self._acknowledges is None:
            self._acknowledges = False
            _log.warning("adapter %s: %s", self._port.name, _NO_ACKNOWLEDGEMENT)
            self._describe()
            happened.extend(self._oldest())
            return
        raise AdapterGoneError(
            f"adapter {self._port.name} did not acknowledge {describe(late.frame)}"
            f" within {self._window.acknowledge_ns / clock.SECOND:g} s"
        )

    def _check_up(self, now_ns: int) -> None:
        """Asks a quiet adapter whether it is still open."""
        checkup = self._checkup
        if checkup.problem is None and not checkup.is_waiting:
            question = checkup.question(now_ns)
            if checkup.is_answered_in_turn and not self._window.ask():
                checkup.postpone(now_ns)
            else:
                self._port.write(question)
        elif checkup.is_waiting and self._port.drained:
            checkup.expire(now_ns)
            self._window.answered()
        if checkup.problem:
            raise AdapterGoneError(f"adapter {self._port.name} {checkup.problem}")

    def _answers(self, line: bytes, terminator: bytes) -> bool:
        if not self._checkup.answers(line, terminator, clock.monotonic_ns()):
            return False
        self._window.answered()
        reason = self._checkup.condition
        if reason != self.condition.reason:
            self.condition = BusCondition(reason=reason and f"the adapter says: {reason}")
        return True

    # ------------------------------------------------------------------------- information

    def _describe(self) -> None:
        said = [("version", self._adapter.version), ("serial", self._adapter.serial)]
        told = "".join(f" {what} {value}" for what, value in said if value)
        silent = f"; {_NO_ACKNOWLEDGEMENT}" if self._acknowledges is False else ""
        self.info = f"slcan {self._port.name}{told}{silent}"

    def _warn(self) -> None:
        """Logs the limitations of this adapter that may surprise a user."""
        adapter = self._adapter
        if adapter.acknowledges is False:
            _log.warning("adapter %s: %s", self._port.name, _NO_ACKNOWLEDGEMENT)
        elif adapter.unanswered:
            _log.warning(
                "adapter %s did not answer %s: it may not have executed it",
                self._port.name,
                ", ".join(adapter.unanswered),
            )
        if self.listen_only and adapter.dialect.listen_caveat:
            _log.warning("adapter %s: %s", self._port.name, adapter.dialect.listen_caveat)


_NO_ACKNOWLEDGEMENT = 'it acknowledges nothing, so "sent" means written to it'


def _confirmed(ended: list[Transmit], wall_ns: int) -> list[Transmit]:
    for transmit in ended:
        if transmit.failure is None:
            transmit.timestamp_ns = wall_ns
    return ended
