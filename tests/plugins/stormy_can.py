"""A plugin for python-can: a bus with data frames all the time, and error frames now and then.

The same ones each time, by the clock: it begins when something is sent.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from typing import Any, Final

import can

DATA_RATE: Final = 500
ERROR_RATE: Final = 20_000
WINDOW_S: Final = 0.4
#: Every other one has error frames.
WINDOWS: Final = 8
ERRORS: Final = int(ERROR_RATE * WINDOW_S) * (WINDOWS // 2)

DATA: Final = 0x123
#: CAN_ERR_PROT, CAN_ERR_BUSERROR and CAN_ERR_CNT of linux/can/error.h, with what data[2] says of
#: the first; data[6] counts.
BUS_ERROR: Final = 0x288
BIT_STUFFING: Final = b"\0\0\4\0\0\0"


class StormyBus(can.BusABC):
    """``recv`` returns what is due, each with the time at which it was."""

    def __init__(self, channel: Any, **kwargs: Any) -> None:
        self.channel_info = "stormy"
        self._arrivals: Iterator[tuple[float, bool, int]] = iter(())
        self._next: tuple[float, bool, int] | None = None
        super().__init__(channel, **kwargs)

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        del msg, timeout
        self._arrivals = arrivals(time.time())
        self._next = next(self._arrivals)

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        wait = timeout or 0.0
        if self._next is None:
            time.sleep(wait)
            return None, False
        due, is_error, number = self._next
        early = due - time.time()
        if early > 0:
            time.sleep(min(early, wait))
        if early > wait:
            return None, False
        self._next = next(self._arrivals, None)
        if is_error:
            data = BIT_STUFFING + bytes((number & 0x7F, 0))
            return can.Message(due, BUS_ERROR, is_error_frame=True, data=data), False
        data = number.to_bytes(4, "big")
        return can.Message(due, DATA, is_extended_id=False, data=data), False


def arrivals(begin: float) -> Iterator[tuple[float, bool, int]]:
    """Time, whether it is an error frame, and number, of each frame in their order."""
    count = int(DATA_RATE * WINDOW_S * WINDOWS)
    data = ((begin + number / DATA_RATE, False, number) for number in range(count))
    storms = (
        (begin + window * WINDOW_S + at / ERROR_RATE, True, at)
        for window in range(1, WINDOWS, 2)
        for at in range(int(ERROR_RATE * WINDOW_S))
    )
    return heapq.merge(data, storms)


def windows(begin: float, *, storms: bool) -> list[tuple[float, float]]:
    """The times of those with error frames, or without."""
    starts = [begin + window * WINDOW_S for window in range(storms, WINDOWS, 2)]
    return [(start, start + WINDOW_S) for start in starts]
