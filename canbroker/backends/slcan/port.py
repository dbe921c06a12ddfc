"""A serial line for two threads: bytes in without blocking, whole lines out.

The only place that knows pyserial's exceptions.
"""

from __future__ import annotations

import errno
import io
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import serial

from canbroker.backends.base import AdapterGoneError
from canbroker.backends.slcan.lookout import Lookout
from canbroker.errors import CanInitializationError, CanOperationError
from canbroker.system import terminals
from canbroker.system.descriptors import is_waited_for
from canbroker.system.poll_set import poll_set
from canbroker.system.portable import PORTABLE
from canbroker.system.wake import Wake

_CHUNK = 65_536
_WRITE_TIMEOUT_S = 1.0
_POLL_S = 0.05
#: Waits in vain until one of them has begun after the question; and those without a question after
#: which the next one is the first again.
_WHOLE = 2
_FORGOTTEN = 4
#: Bytes that a pump buffers before it leaves the rest to the driver.
_PUMP_LIMIT = 1 << 20

#: What operations on a line raise; SerialException is an OSError.
_FOREIGN: Final[tuple[type[Exception], ...]] = (OSError, ValueError, *terminals.ERRORS)

_IN_USE = {errno.EAGAIN, errno.EBUSY}


class Port:
    """An open serial line. Constructing opens it.

    Until :meth:`start` it belongs to one thread, which waits in :meth:`wait`. After it, one
    thread calls :meth:`read`, any thread :meth:`write` and :meth:`close`.

    :raises CanInitializationError: names the device and why it cannot be opened.
    """

    def __init__(self, name: str, baudrate: int, rtscts: bool) -> None:
        self.name = name
        self._write_lock = threading.Lock()
        self._closed = False
        self._is_torn = False
        self._pump: _Pump | None = None
        self._bell: _Bell | None = None
        self._lookout: Lookout | None = None
        self._serial: serial.Serial = _open(name, baudrate, rtscts)
        try:
            self._descriptor: int | None = self._serial.fileno()
        except (io.UnsupportedOperation, AttributeError):  # rfc2217://, loop://; Windows
            self._descriptor = None
            self._serial.timeout = _POLL_S  # reads do the waiting
        self._is_device = type(self._serial) is serial.Serial and self._descriptor is not None

    def start(self, wakes: bool) -> None:
        """Makes reads non-blocking from now on; ``wakes``: :meth:`wake` is needed.

        A thread of the port provides a descriptor, if the line cannot be waited for together with
        sockets, or if the system has no sets of descriptors. It reads ahead if the line has none.

        :raises CanOperationError: no descriptors are left.
        """
        if self._descriptor is None:
            self._pump = _Pump(self)
        elif (self._is_device and not is_waited_for(self._descriptor)) or (wakes and PORTABLE):
            self._lookout = Lookout(self._descriptor, f"slcan {self.name}")
        elif wakes:
            self._bell = _Bell(self._descriptor)

    def fileno(self) -> int:
        """Readable while :meth:`read` has something to return, or after :meth:`wake`."""
        if self._pump is not None:
            return self._pump.wake.fileno()
        if self._lookout is not None:
            return self._lookout.wake.fileno()
        if self._bell is not None:
            return self._bell.fileno()
        return -1 if self._descriptor is None else self._descriptor

    def wake(self) -> None:
        """Makes the descriptor readable until the next :meth:`read`, if it was started for that."""
        if self._pump is not None:
            self._pump.wake.set()
        elif self._lookout is not None:
            self._lookout.wake.set()
        elif self._bell is not None:
            self._bell.wake.set()

    def read(self) -> bytes:
        """The bytes that have arrived, possibly none; never waits.

        :raises AdapterGoneError: the device is gone, or the port was closed.
        """
        if self._closed:
            raise AdapterGoneError(f"adapter {self.name} is closed")
        if self._pump is not None:
            return self._pump.take()
        if self._bell is not None:
            self._bell.wake.clear()
        if self._lookout is not None:
            self._lookout.wake.clear()
        data = self._arrived()
        if self._lookout is not None:
            with self._mapped("read"):
                self._lookout.go_on(has_read=bool(data))
        return data

    def _arrived(self) -> bytes:
        if self._is_device:
            # pyserial takes four times as long. If this reads nothing, it tells why.
            with suppress(OSError):
                if data := os.read(self._serial.fileno(), _CHUNK):
                    return data
        with self._mapped("read"):
            return self._serial.read(_CHUNK)

    def wait(self) -> bytes:
        """The bytes that have arrived; waits up to 50 ms for some.

        :raises AdapterGoneError: as :meth:`read`.
        """
        with self._mapped("read"):
            if self._descriptor is None:
                return self._serial.read(1) + self._serial.read(self._serial.in_waiting)
            if select.select([self._descriptor], [], [], _POLL_S)[0]:
                return self._serial.read(_CHUNK)
            return b""

    @property
    def is_torn(self) -> bool:
        """Whether a write was incomplete, possibly in the middle of a line."""
        return self._is_torn

    @property
    def drained(self) -> bool:
        """Whether everything that has arrived was read. A port that reads ahead knows that after a
        while: ask it again until it does."""
        if self._pump is not None:
            return self._pump.drained
        with self._mapped("read"):
            return not self._serial.in_waiting

    def write(self, data: bytes) -> None:
        """Writes all of it, waiting up to 1 s for the device to take some.

        :raises AdapterGoneError: the device is gone, or did not take it all.
        """
        with self._write_lock, self._mapped("write"):
            self._is_torn = True
            if self._is_device:
                self._write_out(memoryview(data))
            else:
                self._serial.write(data)
            self._is_torn = False

    def _write_out(self, rest: memoryview) -> None:
        # pyserial's own write only looks at the clock: after the process was stopped for a while,
        # it would report a timeout of the device even if everything was written.
        while rest:
            if not select.select([], [self._serial.fileno()], [], _WRITE_TIMEOUT_S)[1]:
                raise serial.SerialTimeoutException
            rest = rest[os.write(self._serial.fileno(), rest) :]

    def close(self, farewell: bytes) -> None:
        """Sends ``farewell`` if the device still takes it, and closes. Idempotent; any thread."""
        if self._closed:
            return
        self._closed = True
        try:
            self.write(farewell)
        except AdapterGoneError:
            self._discard_output()
        if self._pump is not None:
            self._pump.stop()
        if self._lookout is not None:
            self._lookout.stop()
        if self._bell is not None:
            self._bell.close()
        if type(self._serial) is serial.Serial:
            with suppress(*_FOREIGN):  # programs that had it open before may keep it
                terminals.share(self._serial.fileno())
        # pyserial's socket:// stays open if the other side has closed the connection before.
        connection = getattr(self._serial, "_socket", None)
        self._serial.close()
        if isinstance(connection, socket.socket):
            connection.close()

    @property
    def closed(self) -> bool:
        return self._closed

    def _discard_output(self) -> None:
        # Closing would wait for output that the device no longer accepts.
        try:
            self._serial.reset_output_buffer()
        except _FOREIGN:
            return  # unplugged: there is no output buffer either

    @contextmanager
    def _mapped(self, doing: str) -> Iterator[None]:
        try:
            yield
        except serial.SerialTimeoutException as error:
            raise AdapterGoneError(
                f"adapter {self.name} did not take data for {_WRITE_TIMEOUT_S:g} s"
            ) from error
        except TypeError as error:
            if not self._closed:
                raise
            # close() took the descriptor away from under pyserial.
            raise AdapterGoneError(f"adapter {self.name} is closed") from error
        except _FOREIGN as error:
            what = "closed" if self._closed else f"gone: {doing} failed, {_cause(error)}"
            raise AdapterGoneError(f"adapter {self.name} is {what}") from error


class _Bell:
    """A descriptor that is readable while a line is, and after its ``wake`` was set."""

    def __init__(self, descriptor: int) -> None:
        """:raises CanOperationError: no descriptors are left."""
        self.wake = Wake()
        try:
            self._both = poll_set()
        except CanOperationError:
            self.wake.close()
            raise
        self._both.add(descriptor)
        self._both.add(self.wake.fileno())
        self.fileno = self._both.fileno

    def close(self) -> None:
        self._both.close()
        self.wake.close()


class _Pump:
    """A thread that reads a port into a buffer and sets a descriptor."""

    def __init__(self, port: Port) -> None:
        self.wake = Wake()
        self._port = port
        self._changed = threading.Condition()
        self._buffer = bytearray()
        self._error: AdapterGoneError | None = None
        self._vain = 0  # waits of the line in which nothing came
        self._asked = self._asked_first = -_FORGOTTEN  # of them, when somebody asked
        self._stop = False
        self._thread = threading.Thread(target=self._run, name=f"slcan {port.name}", daemon=True)
        self._thread.start()

    @property
    def drained(self) -> bool:
        """[reader] Whether the line has nothing either. It may have something although this thread
        has not got it yet: after the process was stopped for a while, say. So a whole wait in vain
        has to follow the first question.
        """
        with self._changed:
            if self._vain - self._asked >= _FORGOTTEN:
                self._asked_first = self._vain
            self._asked = self._vain
            waited = self._error is not None or self._vain - self._asked_first >= _WHOLE
            return waited and not self._buffer

    def take(self) -> bytes:
        """[reader] The buffer's content; the error only after everything before it."""
        with self._changed:
            if self._error is None:
                self.wake.clear()
            elif not self._buffer:
                raise self._error
            data = bytes(self._buffer)
            self._buffer.clear()
            self._changed.notify_all()
            return data

    def stop(self) -> None:
        with self._changed:
            self._stop = True
            self._changed.notify_all()
        self._thread.join()
        self.wake.close()

    def _run(self) -> None:
        while self._step():
            pass

    def _step(self) -> bool:
        try:
            data = self._port.wait()
        except AdapterGoneError as error:
            self._error = error
            self.wake.set()
            return False
        with self._changed:
            self._buffer += data
            if data:
                self._asked = self._vain - _FORGOTTEN
                self.wake.set()
            else:
                self._vain += 1
            self._changed.wait_for(lambda: self._stop or len(self._buffer) < _PUMP_LIMIT)
            return not self._stop


def _open(name: str, baudrate: int, rtscts: bool) -> serial.Serial:
    try:
        opened = serial.serial_for_url(
            name,
            baudrate=baudrate,
            rtscts=rtscts,
            timeout=0,
            write_timeout=_WRITE_TIMEOUT_S,
            exclusive=True,  # a lock of open descriptors: gone with the process that holds it
        )
    except _FOREIGN as error:
        raise CanInitializationError(f"cannot open {name}: {_reason(name, error)}") from error
    except Exception as error:  # pyserial's URLs are modules, each with errors of its own
        text = f"{type(error).__name__}: {error}"
        raise CanInitializationError(f"cannot open {name}: {text}") from error
    _claim(opened)
    _hurry(opened)
    return opened


def _hurry(line: serial.Serial) -> None:
    """Has the system send each command of a ``socket://`` line at once; else the second one would
    wait for the receipt of the first, and several would arrive together."""
    connection = getattr(line, "_socket", None)
    if isinstance(connection, socket.socket):
        with suppress(OSError):  # it is gone; the next write tells
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _claim(line: serial.Serial) -> None:
    """Makes the system deny the device to other programs; pyserial's lock is only advisory."""
    if type(line) is serial.Serial:
        with suppress(*_FOREIGN):  # a device that does not support it stays shared
            terminals.claim(line.fileno())


def _code(error: BaseException | None) -> int | None:
    """The system's number for an error, which termios keeps in the same place as OSError."""
    first = error.args[0] if error and error.args else None
    return first if isinstance(first, int) else None


def _cause(error: Exception) -> str:
    """Why an open line failed, in words."""
    code = _code(error) or _code(error.__context__)
    if code is not None:
        return os.strerror(code).lower()
    # pyserial has no number for a line that is readable and has nothing, and words of its own.
    return (
        "the other side closed the connection"
        if isinstance(error, serial.SerialException)
        else str(error)
    )


def _reason(name: str, error: Exception) -> str:
    if isinstance(error.__context__, TimeoutError):
        return "nothing answers there"
    code = _code(error) or _code(error.__context__)
    if code in _IN_USE:
        return f"in use by another program ({os.strerror(code)})"
    if code == errno.ENOENT:
        return "there is no such device"
    if code == errno.EACCES:
        return "no permission to use it (on Linux, is the user in the group dialout?)"
    if code == errno.ENOTTY:
        return "it is not a serial device"
    if code is not None:
        return os.strerror(code)
    return str(error).replace(f"{name}: ", "")
