"""Sends the frames of a log, each when it is due. Frames are sent ahead of their time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from canbroker.bus.sending import Timed
from canbroker.bus.timed import TimedSending
from canbroker.client import Bus
from canbroker.errors import CanError, CanInitializationError, CanTimeoutError
from canbroker.logs.records import Record
from canbroker.logs.timing import EvenTime, RecordedTime
from canbroker.model.filters import EVERYTHING, FilterSet
from canbroker.model.frame import ERROR, FD, HARDWARE_TIMESTAMP, LOOPBACK, Frame, frame_fault
from canbroker.playback.report import Lateness, Progress, ReplayReport
from canbroker.playback.route import Route
from canbroker.playback.source import Log
from canbroker.playback.window import Place, Window
from canbroker.system import clock

#: Frames are sent this long before they are due. It covers the pauses of a busy machine, and is as
#: much as is lost when the channel's process dies.
LEAD_NS: Final = 200 * clock.MILLISECOND

#: The first frame waits for this, so that those right behind it are ahead, too. Not when the log is
#: a pipe, which may be another channel's traffic.
_HEAD_START_NS: Final = LEAD_NS // 2

#: After a sleep, frames for this much time are sent, so a wake-up is for many of them.
_STRETCH_NS: Final = LEAD_NS // 2

#: Frames that are due within this time go out together with the last of them: less than a frame
#: takes on a bus of 1 Mbit/s.
_TOGETHER_NS: Final = 50 * clock.MICROSECOND

#: Frames of one request: leaves time for progress reports and Ctrl-C.
_MAX_TOGETHER: Final = 256

#: The channel answers at once, but for frames that the adapter has already.
_ANSWERS_S: Final = 1.0

_REPORT_NS: Final = 100 * clock.MILLISECOND

_NOT_SENT: Final = HARDWARE_TIMESTAMP | LOOPBACK


@dataclass(frozen=True)
class Choice:
    """Which frames of a log are sent: those that pass ``filters``, within ``window``."""

    filters: FilterSet = EVERYTHING
    window: Window = Window()  # noqa: RUF009 - it is immutable


class Stop:
    """Ends a replay from another thread."""

    def __init__(self, event: threading.Event | None = None) -> None:
        self._event = threading.Event() if event is None else event

    def __bool__(self) -> bool:
        return self._event.is_set()

    def wait(self, ns: int) -> None:
        """Returns after ``ns`` nanoseconds, or when the replay is to end."""
        self._event.wait(ns / clock.SECOND)


class Output:
    """A channel that frames are sent to. Gathers those that are due together."""

    def __init__(self, bus: Bus, late: Lateness, *, is_paced: bool) -> None:
        """``is_paced``: frames have due times, otherwise they are sent at once."""
        self.bus = bus
        self._is_paced = is_paced
        self.sending = TimedSending(bus, late.add)
        self._requests: list[Timed] = []
        self._frames: list[Frame] = []  # of the next request
        self._first_ns = self._last_ns = 0

    def add(self, frame: Frame, due_ns: int, now_ns: int) -> None:
        """Gathers the frame, in one request with others if that delays none."""
        if self._frames:
            is_near = due_ns - self._first_ns <= _TOGETHER_NS or due_ns <= now_ns
            if not is_near or len(self._frames) == _MAX_TOGETHER:
                self._complete()
        if not self._frames:
            self._first_ns = due_ns
        self._last_ns = due_ns
        self._frames.append(frame)

    def push(self) -> None:
        """Hands what was gathered to the channel."""
        self._complete()
        requests, self._requests = self._requests, []
        if requests:
            self.sending.send(requests)

    def _complete(self) -> None:
        if self._frames:
            self._requests.append((self._frames, self._last_ns if self._is_paced else 0))
            self._frames = []


class Player:
    """Sends the entries of a log when they are due. One thread; closes the buses that it opened.

    If it is left by an exception, or by ``stop``, what the adapters have not taken is taken back.
    """

    def __init__(
        self,
        route: Route,
        open_bus: Callable[[str], Bus],
        timing: RecordedTime | EvenTime,
        choice: Choice,
        stop: Stop,
        on_progress: Callable[[Progress], object] = lambda _: None,
        *,
        now: Callable[[], int] = clock.monotonic_ns,
    ) -> None:
        """``now``: the time, in ns."""
        self._now = now
        self._route = route
        self._open_bus = open_bus
        self._timing = timing
        self._choice = choice
        self._stop = stop
        self._on_progress = on_progress
        self._recorded = RecordedTime(1)
        self._late = Lateness()
        self._unsent: Counter[str] = Counter()
        self._opened = ExitStack()
        self._outputs: dict[str, Output] = {}  # by channel
        self._unseen = set(route.assigned)
        self._is_first_reading = True
        self._handed = 0
        self._taken_back = 0
        self._sent = 0
        self._begun_ns = self._now_ns = self._now()
        self._start_ns: int | None = None  # when the first frame is due
        self._head_start_ns = 0
        self._told_ns = 0
        self._is_stopped = False
        self._log: Log | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None and not self._stop:
            self._count_sent()
            self._opened.close()
            return
        self._is_stopped = not isinstance(error, Exception)  # by Ctrl-C, or stop
        with suppress(CanError):  # the first error is told
            self._take_back()
        with suppress(CanError):
            self._opened.close()

    def play(self, log: Log, loops: int | None) -> None:
        """Returns when the adapters have taken the last frame, or when it is stopped.

        :param loops: ``None`` is for ever.
        :raises CanError: a channel cannot be opened, or does not take a frame; the file cannot be
            read, has no frames, or not the interfaces that are assigned.
        """
        self._log = log
        if log.seekable and self._timing.is_paced:
            self._head_start_ns = _HEAD_START_NS
        done = 0
        while (loops is None or done < loops) and not self._stop:
            if done:
                self._timing.restart()
            self._recorded = RecordedTime(1)
            self._read(log)
            done += 1
            if not self._handed:
                break
        self._finish()

    def report(self) -> ReplayReport:
        """The account up to now; complete once the player is closed."""
        log = self._log
        return ReplayReport(
            sent=self._sent,
            unsent=dict(self._unsent),
            faults=() if log is None else tuple(f"{log.name}: {each}" for each in log.faults()),
            stopped=self._is_stopped,
            taken_back=self._taken_back,
            duration=(self._now() - self._begun_ns) / clock.SECOND,
            late_p50=self._late.quantile(0.5),
            late_p99=self._late.quantile(0.99),
            late_max=self._late.quantile(1),
        )

    # ------------------------------------------------------------------------------- reading

    def _read(self, log: Log) -> None:
        for batch in log.batches():
            self._open(self._route.known())
            if not self._play(batch):
                break
            self._tell()
        else:
            if self._unseen:
                raise CanInitializationError(f"{log.name} has no interface {min(self._unseen)!r}")
        self._is_first_reading = False

    def _play(self, batch: list[Record]) -> bool:
        """Sends a part of the log ahead; returns whether more is to be read."""
        filters, window = self._choice.filters, self._choice.window
        for record in batch:
            frame, logged = record.frame, record.channel
            timestamp_ns = frame.timestamp_ns
            self._unseen.discard(logged)
            self._recorded.due_ns(timestamp_ns)
            place = window.place(timestamp_ns, self._recorded.elapsed_ns)
            if place is Place.OVER:
                self._push()
                return False
            channel = self._route.channel(logged)
            if (
                place is not Place.INSIDE
                or channel is None
                or not filters.matches(frame.arbitration_id, frame.flags)
            ):
                continue
            self._send(channel, frame, self._timing.due_ns(timestamp_ns))
            if self._stop:
                return False
        self._push()
        return True

    def _send(self, channel: str, frame: Frame, offset_ns: int) -> None:
        output = self._outputs.get(channel)
        if output is None:
            self._open([channel])
            output = self._outputs[channel]
        hindrance = _hindrance(frame, channel, output)
        if hindrance is not None:
            self._unsent[hindrance] += self._is_first_reading
            return
        if self._start_ns is None:
            self._now_ns = self._now()
            self._start_ns = self._now_ns + self._head_start_ns
        due_ns = self._start_ns + offset_ns
        if due_ns - self._now_ns > LEAD_NS:
            self._push()
            self._sleep_until(due_ns - _STRETCH_NS)
        output.add(
            Frame(0, frame.arbitration_id, frame.flags & ~_NOT_SENT, frame.data),
            due_ns,
            self._now_ns,
        )
        self._handed += 1
        if not self._handed % _MAX_TOGETHER:
            self._push()
            self._now_ns = self._now()
            self._tell()

    def _open(self, channels: Iterable[str]) -> None:
        """Opens what is not open yet. The replay's time stands still meanwhile."""
        missing = [channel for channel in channels if channel not in self._outputs]
        if not missing:
            return
        if "" in missing and self._log is not None:
            raise CanInitializationError(
                f"{self._log.name} does not tell the channels of its frames: give one"
            )
        self._push()
        before_ns = self._now()
        for channel in missing:
            bus = self._opened.enter_context(self._open_bus(channel))
            self._outputs[channel] = Output(bus, self._late, is_paced=self._timing.is_paced)
        if self._start_ns is not None:
            self._start_ns += self._now() - before_ns

    def _push(self) -> None:
        for output in self._outputs.values():
            output.push()

    # ------------------------------------------------------------------------------- waiting

    def _sleep_until(self, until_ns: int) -> None:
        while (now_ns := self._now()) < until_ns and not self._stop:
            self._tell()
            self._stop.wait(min(until_ns - now_ns, _REPORT_NS))
        self._now_ns = now_ns

    def _tell(self) -> None:
        """Reports the progress, unless that was done a moment ago."""
        now_ns = self._now()
        if now_ns - self._told_ns < _REPORT_NS:
            return
        self._told_ns = now_ns
        for output in self._outputs.values():
            output.sending.pending()  # collects answers, which tell how late frames were
        self._on_progress(
            Progress(
                position=self._recorded.elapsed_ns / clock.SECOND,
                share=None if self._log is None else self._log.position,
                sent=self._handed,
                late=self._late.latest_ns / clock.SECOND,
            )
        )

    # -------------------------------------------------------------------------------- ending

    def _finish(self) -> None:
        """Returns when all has been sent, or when it is stopped."""
        self._told_ns = 0
        for output in self._outputs.values():
            while not self._stop:
                self._tell()
                try:
                    output.bus.flush(_REPORT_NS / clock.SECOND)
                except CanTimeoutError:
                    continue
                break
        self._told_ns = 0
        self._tell()

    def _take_back(self) -> None:
        """Takes back what the adapters have not taken, of all channels, whatever happens to one."""
        with ExitStack() as each:
            each.callback(self._count_sent)
            for output in self._outputs.values():
                each.callback(self._discard, output)

    def _discard(self, output: Output) -> None:
        self._taken_back += output.bus.flush_tx_buffer()
        output.bus.flush(_ANSWERS_S)  # so that the others are known to be sent

    def _count_sent(self) -> None:
        self._sent = sum(output.bus.stats.sent for output in self._outputs.values())


def _hindrance(frame: Frame, channel: str, output: Output) -> str | None:
    """The kind of frames that cannot be sent to which the frame belongs; ``None``: it can be."""
    if frame.flags & ERROR:
        return "error frames"
    if frame.flags & FD and not output.sending.fd:
        return f"CAN FD frames to channel {channel!r}, which is open without CAN FD,"
    if frame_fault(frame.arbitration_id, frame.flags & ~_NOT_SENT, frame.data) is not None:
        return "frames that no bus can carry"
    return None
