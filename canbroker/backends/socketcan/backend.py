"""An interface of the kernel as a backend."""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
import sys
import threading
from collections.abc import Sequence
from typing import Final

from canbroker.backends.adapter_clock import AdapterClock
from canbroker.backends.base import (
    AT_ONCE,
    AdapterGoneError,
    Backend,
    BusCondition,
    RepeatKey,
    Repetition,
    StampClock,
    Transmit,
)
from canbroker.backends.coalescing import Coalescing
from canbroker.backends.socketcan import interface
from canbroker.backends.socketcan.bcm import Repeater
from canbroker.backends.socketcan.codec import CANFD_MTU, can_id_of, decode
from canbroker.backends.socketcan.error_frames import (
    condition_after,
    describe_error,
    error_causes,
    is_overrun,
)
from canbroker.backends.socketcan.linux import Received, ancillary_size, polled, receiver
from canbroker.backends.socketcan.netlink import NetDevice
from canbroker.backends.socketcan.options import SocketcanOptions
from canbroker.backends.socketcan.passing import PassList, pack_entries
from canbroker.backends.socketcan.queue import STALL_NS, STALLED, WINDOW, TransmitQueue
from canbroker.backends.socketcan.sockets import (
    SO_TIMESTAMPING,
    drops,
    open_socket,
    set_filter,
)
from canbroker.errors import CanInitializationError
from canbroker.model.error_counters import ErrorCounters, counters_in
from canbroker.model.filters import FilterSet
from canbroker.model.frame import ERROR, HARDWARE_TIMESTAMP, EchoFrame, Frame
from canbroker.system import clock
from canbroker.system.throttle import Throttle
from canbroker.system.wake import Wake

_log = logging.getLogger("canbroker.socketcan")

#: Most frames that one read() returns, so that publishing gets its turn.
_MAX_READ: Final = 512

_TIMES = struct.Struct("@6l")  # struct scm_timestamping: software, unused, raw hardware
_ANCILLARY: Final = ancillary_size(_TIMES.size)

# linux/socket.h: sent by this socket, sent by this host. Numbers, as "&" with the enum that the
# module socket has for them took longer than all the rest that is done with a frame here.
_MSG_CONFIRM: Final = 0x800
_MSG_DONTROUTE: Final = 0x04

#: The interface is down, or no longer there.
_GONE: Final = {errno.ENETDOWN, errno.ENODEV, errno.ENXIO, errno.EBADF}


def open_interface(options: SocketcanOptions) -> SocketcanBackend:
    """Opens the interface.

    :raises CanInitializationError: it is missing, down, or not as asked for; says what to do.
    """
    if sys.platform != "linux":
        raise CanInitializationError("interface 'socketcan' needs Linux")
    link = interface.prepare(options)
    raw = open_socket(link.name, fd=link.mtu >= CANFD_MTU, bitrate=link.bitrate)
    try:
        return SocketcanBackend(raw, link, options)
    except BaseException:
        raw.close()
        raise


class SocketcanBackend(Backend):
    """An open interface; :func:`open_interface` makes it.

    One socket receives and sends, so that received frames and confirmations of sent ones come in
    the order of the bus.
    """

    def __init__(self, raw: socket.socket, link: NetDevice, options: SocketcanOptions) -> None:
        self.info = interface.describe(link)
        self.bitrate = link.bitrate
        self.data_bitrate = link.data_bitrate if options.fd else None
        self.fd = options.fd
        self.listen_only = options.listen_only or link.listen_only
        self.condition = self._controller = interface.condition_of(link)
        self.coalescing = Coalescing(options.coalesce_ns)
        self._link = link
        self._errors: ErrorCounters | None = None  # as last reported by an error frame
        self._name = link.name
        self._socket = raw
        self._lock = threading.Lock()  # guards the queue, the pass list, the repeater and writing
        self._queue = TransmitQueue()
        self._passing = PassList()
        self._repeater = Repeater(link)
        self.repeats = self._repeater.available
        self._has_echoed = not link.echoes  # whether it is known that sent frames come back
        self._hardware_clock = AdapterClock()  # of stamps that the controller makes
        self._overflows = 0  # as the kernel counts them, modulo 2^32
        self._throttle = Throttle(_log)
        self._gone: AdapterGoneError | None = None
        self._wake = Wake()
        self._polled = polled(raw, self._wake)

    def __repr__(self) -> str:
        state = "closed" if self._polled.closed else self.condition.reason or "open"
        return f"<SocketcanBackend {self._name} {state}>"

    def fileno(self) -> int:
        return self._polled.fileno()

    def read(self) -> Sequence[Frame | Transmit]:
        """See the base class. Also rewrites frames that the kernel had no room for: this thread
        sees when frames have left the kernel's queue."""
        if self._gone is not None:
            raise self._gone
        self._wake.clear()
        asked_ns = clock.monotonic_ns()  # a stall that began later may be our own sleep
        received, lost = self._receive()
        now_ns = clock.monotonic_ns()
        with self._lock:
            happened = [item for one in received if (item := self._item(one, now_ns)) is not None]
            self._count_drops(now_ns)
            confirmed = any(isinstance(item, Transmit) for item in happened)
            self._queue.give_up(now_ns)
            stall_ns = self._stall_ns()
            has_all = lost is None and len(received) < _MAX_READ
            if has_all and stall_ns is not None and stall_ns <= asked_ns:
                self._stall(now_ns)
            if lost is None and self._queue.should_retry(now_ns, confirmed=confirmed):
                try:
                    self._write()
                except AdapterGoneError as error:
                    lost = error
            happened.extend(self._queue.take_ended())
            self.condition = self._condition()
        if lost is not None and not happened:
            raise lost
        self._gone = lost  # for the next call, after what was read before
        return happened

    def due_ns(self) -> int | None:
        if self._gone is not None:
            return AT_ONCE
        with self._lock:
            times = (self._queue.due_ns(), self._stall_ns())
        return min((time for time in times if time is not None), default=None)

    def room(self, sender: str) -> int:
        del sender  # the interface has one queue for all senders
        if self.listen_only:
            return 0
        with self._lock:
            return self._queue.room()

    def send(self, transmits: Sequence[Transmit]) -> None:
        with self._lock:
            idle = self._queue.head() is None
            self._queue.add(transmits, clock.monotonic_ns())
            self._admit({can_id_of(t.frame.arbitration_id, t.frame.flags) for t in transmits})
            if self.condition.off:
                # The kernel would take them, and drop them without a word.
                self._queue.fail_all(self.condition.reason)
            elif idle:
                self._write()
            if self._queue.needs_reader():
                self._wake.set()  # the waiting recv thread does not know this due time yet

    def repeat(self, repetition: Repetition) -> str | None:
        faults = filter(None, map(self.fault, repetition.frames))
        with self._lock:
            now_ns = clock.monotonic_ns()
            problem = self.condition.reason if self.condition.off else next(faults, None)
            if problem is None:
                ids = {can_id_of(f.arbitration_id, f.flags) for f in repetition.frames}
                self._admit(ids)
                if self._stall_ns() is None:
                    self._queue.progress_ns = now_ns  # nothing was expected back so far
                problem = self._repeater.repeat(repetition, now_ns)
            else:
                self._repeater.stop(repetition.key, now_ns)
            self._share_queue()
            self.repeats = self._repeater.available and self._queue.confirms
        return problem

    def stop_repeating(self, key: RepeatKey) -> None:
        with self._lock:
            self._repeater.stop(key, clock.monotonic_ns())
            self._share_queue()

    def repeated(self) -> dict[RepeatKey, int]:
        with self._lock:
            return self._repeater.counts()

    def abandon(self) -> Sequence[Transmit]:
        with self._lock:
            return self._queue.abandon()

    def filter(self, filters: FilterSet) -> None:
        with self._lock:
            before = self._passing.entries
            self._passing.want(filters, self._queue.can_ids() | self._repeater.can_ids())
            if self._passing.entries != before:
                self._set_filter()

    def stamp_clock(self) -> StampClock | None:
        return self._hardware_clock.quality

    def counters(self) -> dict[str, int]:
        return dict(self._throttle.counts)

    def error_counters(self) -> ErrorCounters | None:
        return interface.errors_now(self._link) or self._errors

    def close(self) -> None:
        with self._lock:
            self._polled.close()
            self._repeater.close()
            self._socket.close()
            self._wake.close()

    # ------------------------------------------------------------------------------ receiving

    def _receive(self) -> tuple[list[Received], AdapterGoneError | None]:
        """The raw messages of the socket, and the error if the interface is lost."""
        received: list[Received] = []
        lost: AdapterGoneError | None = None
        receive, size = receiver(self._socket), CANFD_MTU
        while len(received) < _MAX_READ or lost is not None:
            try:
                received.append(receive(size, _ANCILLARY))
            except BlockingIOError:
                break
            except OSError as error:
                if lost is not None:
                    break
                # Reported once, and before the frames that are still in the receive buffer.
                lost = self._lost(error)
        return received, lost

    def _item(self, received: Received, now_ns: int) -> Frame | Transmit | None:
        """The frame or the confirmed transmit; ``None`` for what nobody is told of."""
        wire, ancillary, message_flags, _ = received
        timestamp_ns = host_ns = flags = 0
        for _, kind, value in ancillary:
            if kind == SO_TIMESTAMPING:
                seconds, nanoseconds, _, _, hardware_s, hardware_ns = _TIMES.unpack(value)
                timestamp_ns = host_ns = seconds * clock.SECOND + nanoseconds
                if hardware_s or hardware_ns:
                    stamp_ns = hardware_s * clock.SECOND + hardware_ns
                    timestamp_ns = self._hardware_clock.wall_ns(stamp_ns, host_ns)
                    flags = HARDWARE_TIMESTAMP
        if message_flags & _MSG_CONFIRM:
            self._has_echoed = self._queue.confirms = True
            confirmed = self._queue.confirm(wire, timestamp_ns, now_ns)
            if confirmed is None:
                self._throttle.note("unexpected_confirmation", f"{self._name}: {wire.hex()}")
            return confirmed
        if len(wire) == CANFD_MTU and not self.fd:
            self._throttle.note("fd_frame", f"{self._name} was opened without fd=True")
            return None
        frame = decode(wire, timestamp_ns, flags)
        if message_flags & _MSG_DONTROUTE:
            # Also error frames: a program sent these, not the controller.
            if not frame.flags & ERROR:
                self._has_echoed = True
                self._queue.progress(now_ns)
            if self._repeater:
                return self._of_repeater(wire, frame, host_ns, now_ns)
        elif frame.flags & ERROR:
            if self._link.kind == "can":  # from a vxcan's other end it is not a controller's either
                self._error_frame(frame)
        elif self._controller.off:
            self._controller = BusCondition()  # its restart was missed, but frames arrive
        return frame

    def _of_repeater(self, wire: bytes, frame: Frame, host_ns: int, now_ns: int) -> Frame:
        """A frame that another socket of this host sent; an echo if the repeater sent it."""
        sent_ns = now_ns - (clock.wall_ns() - host_ns)
        origin = self._repeater.sent(wire, sent_ns, now_ns)
        if origin is None:
            return frame
        flags = frame.flags & ~HARDWARE_TIMESTAMP
        return EchoFrame(frame.timestamp_ns, frame.arbitration_id, flags, frame.data, origin)

    def _count_drops(self, now_ns: int) -> None:
        """Asks the socket for its count of drops, because the count in received frames is missing
        when no more frames come."""
        lost = (drops(self._socket) - self._overflows) & 0xFFFFFFFF
        if lost:
            self._overflows += lost
            self.dropped += lost
            self._queue.doubt_all(now_ns)

    def _error_frame(self, frame: Frame) -> None:
        words = f"{self._name}: {describe_error(frame)}"
        for kind, _ in error_causes(frame):
            self._throttle.note(kind, words)
        if is_overrun(frame):
            self.dropped += 1  # at least one; controllers do not count them
        self._errors = counters_in(frame) or self._errors
        self._controller = condition_after(frame, self._controller)
        if self._controller.off:
            # The kernel drops the frames in its queue and the controller's without reporting it.
            self._queue.fail_all(f"interface {self._name}: {self._controller.reason}")
            self._repeater.stop_all(clock.monotonic_ns())
            self._share_queue()

    # -------------------------------------------------------------------------------- sending

    def _write(self) -> None:
        """Writes the waiting frames until the kernel has no more room. Holds the lock.

        :raises AdapterGoneError: the interface is lost.
        """
        queue = self._queue
        while (wire := queue.head()) is not None:
            try:
                self._socket.send(wire)
            except OSError as error:
                if error.errno in _GONE:
                    raise self._lost(error) from error
                if error.errno in {errno.ENOBUFS, errno.EAGAIN}:
                    queue.full(clock.monotonic_ns())
                    return
                queue.refused(f"interface {self._name} refused it: {error.strerror}")
                self._throttle.note("refused", f"{self._name}: {error.strerror}")
            else:
                queue.written(clock.monotonic_ns(), clock.wall_ns())

    def _stall_ns(self) -> int | None:
        """When transmission counts as stalled if no frame is confirmed; ``None``: never."""
        period_ns = self._repeater.longest_period_ns
        if self._queue.under_way():
            period_ns = 0
        return None if period_ns is None else self._queue.progress_ns + STALL_NS + period_ns

    def _stall(self, now_ns: int) -> None:
        """Nothing has been confirmed for too long."""
        is_silent = self._queue.confirms and not self._has_echoed
        if is_silent and interface.sent_since(self._link) >= max(1, self._queue.taken):
            _log.warning(
                "the driver of %s does not confirm what it has sent: frames count as sent when the"
                " kernel has taken them, and tasks are not handed down to it",
                self._name,
            )
            self._queue.trust(clock.wall_ns())
            self._repeater.stop_all(now_ns)
            self._share_queue()
            self.repeats = False
            return
        if not self._queue.stalled:
            self._throttle.note("stalled", f"{self._name}: {STALLED}")
        self._queue.stall(now_ns)

    def _condition(self) -> BusCondition:
        told = self._controller
        if not self._queue.stalled or told.off:
            return told
        return BusCondition(reason=f"{STALLED} ({told.reason})" if told.reason else STALLED)

    def _admit(self, can_ids: set[int]) -> None:
        if self._passing.admit(can_ids):
            self._set_filter()

    def _share_queue(self) -> None:
        room = self._repeater.room_for_others()
        self._queue.window = WINDOW if room is None else min(WINDOW, room)

    def _set_filter(self) -> None:
        try:
            set_filter(self._socket, pack_entries(self._passing.entries))
        except OSError as error:
            if error.errno not in _GONE:
                raise
            # Reading or writing reports it, too, where the actor expects it.
            _log.debug("no filter for %s: %s", self._name, error.strerror)

    def _lost(self, error: OSError) -> AdapterGoneError:
        what = {
            errno.ENETDOWN: f"interface {self._name} is down",
            errno.EBADF: f"interface {self._name} is closed",
        }.get(error.errno or 0, f"interface {self._name} is gone")
        return AdapterGoneError(f"{what} ({os.strerror(error.errno or 0)})")
