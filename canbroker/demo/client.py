"""A client process of the demonstration: an ordinary user of :class:`canbroker.client.Bus`.

Its argument is an :class:`Assignment` as JSON. It prints a line of JSON when it is ready, twice a
second, and at the end, which is when its standard input ends.
"""

from __future__ import annotations

import select
import sys
import time
from collections import deque
from typing import Any, Final

import msgspec

from canbroker.client import Bus
from canbroker.demo.ledger import Report, Tally
from canbroker.errors import CanError
from canbroker.model.message import Message
from canbroker.system.clock import SECOND

_REPORT_S: Final = 0.5
_LATENCIES: Final = 10_000


class Assignment(msgspec.Struct, kw_only=True):
    """What a client opens."""

    channel: str
    parameters: dict[str, Any]
    can_filters: list[dict[str, int | bool]] | None


class Account:
    """What this client has received."""

    def __init__(self) -> None:
        self._tally = Tally()
        self._latencies_ns: deque[int] = deque(maxlen=_LATENCIES)
        self._since = (time.monotonic(), 0)

    def take(self, message: Message) -> None:
        self._latencies_ns.append(time.time_ns() - round(message.timestamp * SECOND))
        data = message.dlc if message.is_remote_frame else message.data
        self._tally.add(message.arbitration_id, message.is_extended_id, data)

    def report(self, bus: Bus) -> Report:
        """How things stand; the rate is that since the report before."""
        now, stats = time.monotonic(), bus.stats
        at, frames = self._since
        self._since = (now, self._tally.frames)
        ordered = sorted(self._latencies_ns)
        return Report(
            frames=self._tally.frames,
            lost=stats.lost,
            restarts=stats.restarts,
            rate=(self._tally.frames - frames) / max(now - at, 1e-9),
            p50_us=ordered[len(ordered) // 2] / 1000 if ordered else None,
            p99_us=ordered[len(ordered) * 99 // 100] / 1000 if ordered else None,
        )

    def final(self, bus: Bus) -> Report:
        return msgspec.structs.replace(self.report(bus), digest=self._tally.digest)


def main() -> int:
    """Receives until told to end; returns the exit code."""
    assignment = msgspec.json.decode(sys.argv[1], type=Assignment)
    account = Account()
    try:
        with Bus(
            channel=assignment.channel,
            interface="slcan",
            can_filters=assignment.can_filters,
            **assignment.parameters,
        ) as bus:
            _say(Report())
            while not _told_to_end():
                _receive(bus, account)
                _say(account.report(bus))
            while (message := bus.recv(0)) is not None:
                account.take(message)
            _say(account.final(bus))
    except CanError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _receive(bus: Bus, account: Account) -> None:
    """Takes what arrives until it is time for a report."""
    until = time.monotonic() + _REPORT_S
    while (left := until - time.monotonic()) > 0:
        message = bus.recv(left)
        if message is not None:
            account.take(message)


def _told_to_end() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def _say(report: Report) -> None:
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
