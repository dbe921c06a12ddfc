"""A client process of the demonstration: an ordinary user of canbroker.

Its argument is an :class:`Assignment` as JSON. It prints a line of JSON when it is ready, twice a
second, and at the end, when its standard input is closed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from contextlib import ExitStack
from typing import Any, Final, Protocol

import msgspec

from canbroker.bus.tapping import tap
from canbroker.client import Bus
from canbroker.delivery.tap import Frames, Missed, Restarted, Tap
from canbroker.demo.ledger import Report, Tally
from canbroker.errors import CanError
from canbroker.model.frame import EXTENDED
from canbroker.system.clock import SECOND

_REPORT_S: Final = 0.5
_LATENCIES: Final = 10_000


class Assignment(msgspec.Struct, kw_only=True):
    """What a client opens. ``tapped``: it reads the stream of a recorder, not messages."""

    channel: str
    parameters: dict[str, Any]
    can_filters: list[dict[str, int | bool]] | None
    tapped: bool = False


class Account:
    """What this client has received, and what it knows to have missed."""

    def __init__(self) -> None:
        self.lost = 0
        self.restarts = 0
        self._tally = Tally()
        self._latencies_ns: deque[int] = deque(maxlen=_LATENCIES)
        self._since = (time.monotonic(), 0)

    def add(
        self, timestamp_ns: int, arbitration_id: int, extended: bool, data: bytes | bytearray | int
    ) -> None:
        """Counts a frame; ``data`` of a remote frame is its length."""
        self._latencies_ns.append(time.time_ns() - timestamp_ns)
        self._tally.add(arbitration_id, extended, data)

    def report(self) -> Report:
        """The account so far; the rate is that since the last report."""
        now = time.monotonic()
        at, frames = self._since
        self._since = (now, self._tally.frames)
        ordered = sorted(self._latencies_ns)
        return Report(
            frames=self._tally.frames,
            lost=self.lost,
            restarts=self.restarts,
            rate=(self._tally.frames - frames) / max(now - at, 1e-9),
            p50_us=ordered[len(ordered) // 2] / 1000 if ordered else None,
            p99_us=ordered[len(ordered) * 99 // 100] / 1000 if ordered else None,
        )

    def final(self) -> Report:
        return msgspec.structs.replace(self.report(), digest=self._tally.digest)


class Reader(Protocol):
    """Receives for an account."""

    def read(self, timeout: float) -> bool:
        """Waits up to ``timeout`` seconds for frames; returns whether there were any."""


class BusReader:
    """Receives messages, like most programs."""

    def __init__(self, bus: Bus, account: Account) -> None:
        self._bus = bus
        self._account = account

    def read(self, timeout: float) -> bool:
        message = self._bus.recv(timeout)
        if message is None:
            stats = self._bus.stats
            self._account.lost, self._account.restarts = stats.lost, stats.restarts
            return False
        data = message.dlc if message.is_remote_frame else message.data
        timestamp_ns = round(message.timestamp * SECOND)
        self._account.add(timestamp_ns, message.arbitration_id, message.is_extended_id, data)
        return True


class TapReader:
    """Receives a stream of events, like a recorder."""

    def __init__(self, stream: Tap, account: Account) -> None:
        self._stream = stream
        self._account = account

    def read(self, timeout: float) -> bool:
        account = self._account
        events = self._stream.receive(timeout)
        for event in events:
            match event:
                case Frames(_, frames):
                    for frame in frames:
                        extended = bool(frame.flags & EXTENDED)
                        account.add(frame.timestamp_ns, frame.arbitration_id, extended, frame.data)
                case Missed(_, loss):
                    account.lost += loss.frames or 0
                case Restarted():
                    account.restarts += 1
        return bool(events)


def main() -> int:
    """Receives until told to end; returns the exit code."""
    assignment = msgspec.json.decode(sys.argv[1], type=Assignment)
    account = Account()
    try:
        with ExitStack() as stack:
            reader = _open(assignment, account, stack)
            told_to_end = threading.Event()
            threading.Thread(target=_listen, args=(told_to_end,), daemon=True).start()
            _say(Report())
            while not told_to_end.is_set():
                _receive(reader)
                _say(account.report())
            _drain(reader)
            _say(account.final())
    except CanError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _open(assignment: Assignment, account: Account, stack: ExitStack) -> Reader:
    """Opens what the assignment says; ``stack`` closes it."""
    bus = stack.enter_context(
        Bus(
            channel=assignment.channel,
            interface="slcan",
            can_filters=assignment.can_filters,
            **assignment.parameters,
        )
    )
    if not assignment.tapped:
        return BusReader(bus, account)
    stream = stack.enter_context(tap([(assignment.channel, bus)]))
    return TapReader(stream, account)


def _receive(reader: Reader) -> None:
    """Receives frames until the next report is due."""
    until = time.monotonic() + _REPORT_S
    while (left := until - time.monotonic()) > 0:
        reader.read(left)


def _drain(reader: Reader) -> None:
    """Receives the frames that have arrived by now."""
    while reader.read(0):
        pass


def _listen(told_to_end: threading.Event) -> None:
    """Waits for the end of the input, on a thread, as Windows cannot look at a pipe.

    Unbuffered: the interpreter cannot exit while a thread waits inside a buffered read.
    """
    os.read(sys.stdin.fileno(), 1)
    told_to_end.set()


def _say(report: Report) -> None:
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
