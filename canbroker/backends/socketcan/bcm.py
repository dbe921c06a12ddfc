"""Frames that the kernel sends periodically by itself: its broadcast manager, ``linux/can/bcm.h``.

All tasks share one socket. The kernel distinguishes its operations by the identifier in a message's
header, and takes the frames' identifiers from the frames. So the one in the header is a number of
ours, and several tasks may send the same identifier.
"""

from __future__ import annotations

import itertools
import socket
import struct
from collections import deque
from collections.abc import Iterable
from typing import Final

from canbroker.backends.base import RepeatKey, Repetition
from canbroker.backends.socketcan.codec import CANFD_MTU, can_id_of, encode
from canbroker.backends.socketcan.linux import broadcast_socket
from canbroker.backends.socketcan.netlink import NetDevice
from canbroker.backends.socketcan.rhythm import Rhythm
from canbroker.system.clock import SECOND

_TX_SETUP: Final = 1
_TX_DELETE: Final = 2

_SETTIMER: Final = 0x01
_STARTTIMER: Final = 0x02  # and send the first frame at once
_CAN_FD_FRAME: Final = 0x800

#: Frames of one operation (MAX_NFRAMES in net/can/bcm.c).
MAX_FRAMES: Final = 256

#: Frames per second of all operations: a classic bus of 1 Mbit/s has room for no more, and
#: where there is no bus to slow it down the kernel would do nothing else.
MAX_RATE: Final = 1_000_000 // 47

#: How long frames of a stopped or changed task may stay in the controller's queue.
LATE_NS: Final = 1 * SECOND

# struct bcm_msg_head: opcode, flags, count, two intervals of seconds and microseconds, can_id,
# nframes; the frames that follow are aligned to 8 bytes.
_HEAD = struct.Struct("@3I4l2I")


class Operation:
    """The kernel's operation for one task."""

    def __init__(self, handle: int, repetition: Repetition, wires: list[bytes]) -> None:
        self.handle = handle
        self.repetition = repetition
        self.wires = wires  # its frames as they come back; none once it has ended
        self.rhythm = Rhythm(repetition.period_ns, repetition.due_ns)
        self.seen = 0

    @property
    def flags(self) -> int:
        return _CAN_FD_FRAME if len(self.wires[0]) == CANFD_MTU else 0


class Repeater:
    """The tasks that the kernel repeats on one interface. Not thread-safe: its owner guards it."""

    def __init__(self, link: NetDevice) -> None:
        self.available = True  # until the kernel says otherwise
        self._interface = link.name
        # The kernel silently drops repeated frames if the controller's queue has no room. So that
        # we never cause this, half of the queue is for them, and the other half for other
        # transmits. Interfaces without a controller have no queue.
        self._queue_length = link.queue_length if link.kind == "can" else None
        self._socket: socket.socket | None = None
        self._handles = itertools.count(1)
        #: The longest time between two frames of a task; ``None``: there are no tasks.
        self.longest_period_ns: int | None = None
        self._operations: dict[RepeatKey, Operation] = {}
        self._by_wire: dict[bytes, Operation] = {}
        self._past: deque[tuple[int, bytes, Operation]] = deque()

    def __repr__(self) -> str:
        return f"<Repeater {self._interface} tasks={len(self._operations)}>"

    def __bool__(self) -> bool:
        """Whether repeated frames may come back."""
        return bool(self._by_wire)

    def repeat(self, repetition: Repetition, now_ns: int) -> str | None:
        """Starts or changes a task. If that is impossible, ends it and returns the reason.

        If the number and the sort of its frames stay the same, a task is changed in place: its
        next frame is sent when it is due, with the new content.
        """
        wires = [encode(frame) for frame in repetition.frames]
        operation = self._operations.get(repetition.key)
        problem = self._problem(repetition, wires, operation)
        if problem is None:
            try:
                if operation is not None and _shape(operation.wires) == _shape(wires):
                    self._change(operation, repetition, wires, now_ns)
                else:
                    self.stop(repetition.key, now_ns)
                    self._start(repetition, wires)
            except OSError as error:
                problem = f"interface {self._interface} refuses to repeat it: {error.strerror}"
        if problem is not None:
            self.stop(repetition.key, now_ns)
        self._measure()
        return problem

    def stop(self, key: RepeatKey, now_ns: int) -> None:
        """Ends a task, if there is one. The kernel's timer does not run any more afterwards."""
        operation = self._operations.pop(key, None)
        if operation is not None:
            self._delete(operation)
            self._leave(operation, operation.wires, now_ns)
            operation.wires = []
            self._measure()

    def stop_all(self, now_ns: int) -> None:
        for key in list(self._operations):
            self.stop(key, now_ns)

    def room_for_others(self) -> int | None:
        """How many other frames the interface's queue should have at most; ``None``: any number."""
        if self._queue_length is None or not self._operations:
            return None
        return self._queue_length - self._queue_length // 2

    def counts(self) -> dict[RepeatKey, int]:
        """Frames of each task that were seen on the bus."""
        return {key: operation.seen for key, operation in self._operations.items()}

    def can_ids(self) -> set[int]:
        """Identifiers and formats of the repeated frames."""
        return {
            can_id_of(frame.arbitration_id, frame.flags)
            for operation in self._operations.values()
            for frame in operation.repetition.frames
        }

    def sent(self, wire: bytes, at_ns: int, now_ns: int) -> str | None:
        """The client whose task has sent this frame of this host at ``at_ns``; ``None``: another
        program's.

        All that is known of a repeated frame is its content. A program of this host outside
        canbroker that sends the very same frame is taken for the task, and counted as that: a
        task's count is what was seen of it, and nothing that ends by a number is repeated here.
        Frames of other nodes on the bus never count, because they are not frames of this host.
        """
        while self._past and self._past[0][0] <= now_ns:
            _, old, past = self._past.popleft()
            if self._by_wire.get(old) is past and old not in past.wires:
                del self._by_wire[old]
        operation = self._by_wire.get(wire)
        if operation is None:
            return None
        operation.seen += 1
        if operation.wires:
            self._keep_time(operation, at_ns, now_ns)
        return operation.repetition.key[0]

    def close(self) -> None:
        """Ends everything in the kernel. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # ---------------------------------------------------------------------------- operations

    def _problem(
        self, repetition: Repetition, wires: list[bytes], before: Operation | None
    ) -> str | None:
        if len(wires) > MAX_FRAMES:
            return f"the kernel repeats at most {MAX_FRAMES} frames in turn"
        if len(set(map(len, wires))) > 1:
            return "the kernel does not repeat classic and FD frames in turn"
        if repetition.period_ns % 1000:
            return "the kernel counts whole microseconds"
        for wire in wires:
            other = self._by_wire.get(wire)
            if other is not None and other is not before and wire in other.wires:
                return "another task repeats the same frame, and nobody could tell whose is whose"
        others = [item.repetition for item in self._operations.values() if item is not before]
        if self._queue_length is not None and len(others) >= self._queue_length // 2:
            return (
                f"the transmit queue of {self._interface} holds {self._queue_length} frames; for"
                f" more tasks: ip link set {self._interface} txqueuelen 1000, and open it again"
            )
        if sum(SECOND / item.period_ns for item in (*others, repetition)) > MAX_RATE:
            return f"the kernel is given no more than {MAX_RATE:,} frames/s to repeat"
        return None

    def _start(self, repetition: Repetition, wires: list[bytes]) -> None:
        operation = Operation(next(self._handles), repetition, wires)
        self._send(setup_message(operation, _SETTIMER | _STARTTIMER))
        self._operations[repetition.key] = operation
        self._expect(operation, wires)

    def _change(
        self, operation: Operation, repetition: Repetition, wires: list[bytes], now_ns: int
    ) -> None:
        before = operation.wires
        flags = 0
        if repetition.period_ns != operation.repetition.period_ns:
            flags = _SETTIMER
            operation.rhythm = Rhythm(repetition.period_ns, repetition.due_ns)
        operation.repetition, operation.wires = repetition, wires
        self._expect(operation, wires)
        self._leave(operation, set(before).difference(wires), now_ns)
        self._send(setup_message(operation, flags))

    def _keep_time(self, operation: Operation, at_ns: int, now_ns: int) -> None:
        """Corrects a task's timer now and then, when the next frame is some time away."""
        is_fresh = now_ns - at_ns < operation.repetition.period_ns // 2
        if is_fresh and operation.rhythm.sent(at_ns):
            try:
                self._send(setup_message(operation, _SETTIMER))
            except OSError:
                # The interface is gone: the next read or write reports it.
                self.close()

    def _measure(self) -> None:
        periods = (item.repetition.period_ns for item in self._operations.values())
        self.longest_period_ns = max(periods, default=None)

    def _delete(self, operation: Operation) -> None:
        head = _HEAD.pack(_TX_DELETE, operation.flags, 0, 0, 0, 0, 0, operation.handle, 0)
        try:
            self._send(_aligned(head))
        except OSError:
            # The interface is gone, and nothing is sent there any more.
            self.close()

    def _send(self, message: bytes) -> None:
        if self._socket is None:
            self._socket = self._open()
        self._socket.send(message)

    def _open(self) -> socket.socket:
        try:
            opened = broadcast_socket()
        except OSError:
            self.available = False  # no kernel module can_bcm
            raise
        try:
            opened.connect((self._interface,))
        except BaseException:
            opened.close()
            raise
        return opened

    # --------------------------------------------------------------------------- attribution

    def _expect(self, operation: Operation, wires: Iterable[bytes]) -> None:
        self._by_wire.update(dict.fromkeys(wires, operation))

    def _leave(self, operation: Operation, wires: Iterable[bytes], now_ns: int) -> None:
        """Frames that are no longer sent count for the task while they may be on their way."""
        self._past.extend((now_ns + LATE_NS, wire, operation) for wire in wires)


def _shape(wires: list[bytes]) -> tuple[int, int]:
    return len(wires), len(wires[0])


def setup_message(operation: Operation, flags: int) -> bytes:
    """The message that starts or changes an operation.

    It uses the second interval, which has no end. The first one applies to a number of frames,
    which each correction of the timer would set again; that cannot be exact, because the frames
    sent meanwhile are only known once they come back.
    """
    seconds, microseconds = divmod(operation.rhythm.interval_ns // 1000, 1_000_000)
    head = _HEAD.pack(
        _TX_SETUP,
        flags | operation.flags,
        0,
        *(0, 0, seconds, microseconds),
        operation.handle,
        len(operation.wires),
    )
    return _aligned(head) + b"".join(operation.wires)


def _aligned(head: bytes) -> bytes:
    return head + bytes(-len(head) % 8)
