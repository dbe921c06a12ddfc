"""A plugin for python-can that does what plugins should not, as its parameters say.

What is sent comes back from ``recv`` with the next identifier, as an answer of another node.
"""

from __future__ import annotations

import errno
import queue
import threading
from typing import Any

import can


class OddError(BaseException):
    """Nothing that ``except Exception`` would catch."""


class NastyBus(can.BusABC):
    """``recv``: waits, blocks, early, raises, odd, dies, fails. ``send``, ``shutdown``: fine,
    blocks, raises. ``send`` also: full, and busy, which takes each message at the third time; late.
    ``filters``: none, kept, raises. What blocks ends with :attr:`release`. ``timing`` shows in the
    channel's description."""

    def __init__(
        self,
        channel: Any,
        recv: str = "waits",
        send: str = "fine",
        shutdown: str = "fine",
        timing: can.BitTiming | can.BitTimingFd | None = None,
        **kwargs: Any,
    ) -> None:
        if channel == "refused":
            raise LookupError("no such device")
        if channel == "exits":
            raise SystemExit("the driver has had enough")
        if channel == "waits":
            threading.Event().wait()
        if channel == "leaves a thread":
            threading.Thread(target=threading.Event().wait, name="a driver's").start()
            raise LookupError("no such device")
        if timing is not None:
            self.channel_info = repr(timing)
        self.ways = {"recv": recv, "send": send, "shutdown": shutdown}
        self.inbox: queue.Queue[Any] = queue.Queue()
        self.release = threading.Event()
        self.calls = 0
        self.attempts = 0
        self._troubles = _troubles(recv)
        super().__init__(channel, **kwargs)

    def recv(self, timeout: float | None = None) -> Any:
        self.calls += 1
        way = self.ways["recv"]
        if way == "dies":
            raise OSError(errno.ENODEV, "No such device")
        if way == "fails":
            raise can.CanOperationError("the driver reports an error")
        if self._troubles:
            trouble = self._troubles.pop(0)
            if isinstance(trouble, BaseException):
                raise trouble
            return trouble
        if way == "blocks":
            self.release.wait()
            return None
        try:
            return self.inbox.get(timeout=0 if way == "early" else timeout, block=way != "early")
        except queue.Empty:
            return None

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        del timeout  # honoured by nothing here
        way = self.ways["send"]
        self.attempts += 1
        if way == "blocks":
            self.release.wait()
        if way == "raises":
            raise KeyError(msg.arbitration_id)
        if way == "late":
            raise can.CanTimeoutError("not acknowledged")
        if way == "full" or (way == "busy" and self.attempts % 3):
            refuse()
        answer = can.Message(
            arbitration_id=msg.arbitration_id + 1, is_extended_id=msg.is_extended_id, data=msg.data
        )
        self.inbox.put(answer)

    def shutdown(self) -> None:
        super().shutdown()
        if self.ways["shutdown"] == "blocks":
            self.release.wait()
        if self.ways["shutdown"] == "raises":
            raise OddError("not now")

    @staticmethod
    def _detect_available_configs() -> list[Any]:
        print("a driver's banner")  # noqa: T201 - what drivers print must not get in the way
        handle = object()
        return [
            {"interface": "nasty", "channel": 0, "serial": "A-1", "handle": handle},
            {"interface": "nasty", "channel": "dev/a b", "fd": True},
            {"interface": "nasty"},
        ]


class HangingBus(NastyBus):
    """One that never says what it finds."""

    @staticmethod
    def _detect_available_configs() -> list[Any]:
        threading.Event().wait()
        return []


class FilteringBus(NastyBus):
    """One that filters itself: ``applied`` is what it was told, in order."""

    def __init__(self, channel: Any, filters: str = "kept", **kwargs: Any) -> None:
        self.applied: list[Any] = []
        self.refuses = filters == "raises"
        super().__init__(channel, **kwargs)

    def _apply_filters(self, filters: Any) -> None:
        self.applied.append(filters)
        if self.refuses and filters:
            raise OddError("no filters today")


def refuse() -> None:
    """As drivers on top of sockets do when a queue is full."""
    cause = OSError(errno.ENOBUFS, "No buffer space available")
    raise can.CanOperationError("Failed to transmit", cause.errno) from cause


def _troubles(recv: str) -> list[Any]:
    if recv == "raises":
        return [KeyError("id"), OddError(), can.CanOperationError("overrun"), StopIteration()]
    if recv == "odd":
        return ["text", 7, *map(_with, ("arbitration_id", "data", "dlc")), _with_too_much_data()]
    return []


def _with(attribute: str) -> can.Message:
    message = can.Message(arbitration_id=1, is_remote_frame=attribute == "dlc")
    setattr(message, attribute, "odd")
    return message


def _with_too_much_data() -> can.Message:
    message = can.Message(arbitration_id=1)
    message.data = bytearray(9)
    return message
