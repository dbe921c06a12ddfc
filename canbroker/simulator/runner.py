"""The simulated adapter as a process: a pseudo-terminal, a control stream, signals. POSIX."""

from __future__ import annotations

import os
import select
import signal
import sys
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

from canbroker.errors import CanInitializationError
from canbroker.simulator.opens import OpenWatch
from canbroker.simulator.options import SimulatorOptions
from canbroker.simulator.replay import Recording
from canbroker.simulator.simulation import OUTPUT_LIMIT, Simulation
from canbroker.system.clock import MILLISECOND, monotonic_ns

_CHUNK = 65_536
_SPLIT_PAUSE_NS = MILLISECOND // 4
#: A host that writes without reading is not read beyond this many bytes of answers.
_ANSWER_LIMIT = 16 * OUTPUT_LIMIT


def run(options: SimulatorOptions, out: TextIO, control: TextIO | None) -> int:
    """Simulates until told to quit, SIGTERM, SIGINT or SIGHUP; returns the exit status.

    The first line on ``out`` is the path to open; every other one is a JSON object, the last one
    the ledger. ``control`` brings one command a line. Main thread only.

    :raises CanInitializationError: the log or the link is wrong.
    :raises ValueError: a fault is.
    """
    recording = Recording(options.replay) if options.replay else None
    simulation = Simulation(options, recording or [])
    for fault in options.faults:
        simulation.command(fault, monotonic_ns())
    with _signals() as stop, _Terminal(options.link, simulation.boots) as terminal:
        out.write(f"{terminal.path}\n")
        out.flush()
        runner = _Runner(simulation, terminal, out, control, stop)
        while not simulation.quitting:
            runner.step()
    simulation.report("exit")
    runner.print_reports()
    if recording and recording.skipped:
        sys.stderr.write(f"{recording.path}: {recording.skipped}\n")
    return 0


class _Runner:
    """Moves bytes between the simulation and the world, sleeping while nothing is due."""

    def __init__(
        self,
        simulation: Simulation,
        terminal: _Terminal,
        out: TextIO,
        control: TextIO | None,
        stop: int,
    ) -> None:
        self._simulation = simulation
        self._terminal = terminal
        self._out = out
        self._control = control
        self._commands = b""
        self._stop = stop
        self._empty_ns = monotonic_ns()  # the host had written nothing that was not read

    def step(self) -> None:
        was_there = self._simulation.plugged and self._terminal.has_data()
        ready = self._wait()
        if not was_there:
            self._empty_ns = monotonic_ns()
        if self._stop in ready:
            self._simulation.quitting = True
        if self._control is not None and self._control.fileno() in ready:
            self._read_control(self._control)
        self._plug()
        if self._simulation.plugged:
            self._reset_if_opened()
            if self._terminal.descriptor in ready:
                self._receive()
        self._simulation.step(monotonic_ns())
        self._flush()
        self.print_reports()

    def _receive(self) -> None:
        data = self._terminal.read()
        # A program that opened the port and wrote between two lines of this one: the reset comes
        # before the bytes.
        self._reset_if_opened()
        now_ns = monotonic_ns()
        self._simulation.receive(data, now_ns, self._empty_ns)
        self._empty_ns = now_ns

    def _reset_if_opened(self) -> None:
        if self._terminal.was_opened():
            self._simulation.port_opened(monotonic_ns())

    def print_reports(self) -> None:
        for line in self._simulation.reports:
            self._out.write(f"{line}\n")
        self._out.flush()
        self._simulation.reports.clear()

    def _wait(self) -> set[int]:
        now = monotonic_ns()
        poll = select.poll()
        poll.register(self._stop, select.POLLIN)
        if self._control is not None:
            poll.register(self._control.fileno(), select.POLLIN)
        due = self._simulation.due_ns(now)
        if self._simulation.plugged:
            events = select.POLLIN if len(self._simulation.output) < _ANSWER_LIMIT else 0
            if self._simulation.output and not self._simulation.hangs(now):
                if self._simulation.split:
                    due = min(due or now + _SPLIT_PAUSE_NS, now + _SPLIT_PAUSE_NS)
                else:
                    events |= select.POLLOUT
            poll.register(self._terminal.descriptor, events)
            if self._terminal.watch is not None:
                poll.register(self._terminal.watch.fileno(), select.POLLIN)
        # Rounded up: rounding down would poll through the last millisecond.
        timeout = None if due is None else max(0, -(-(due - now) // MILLISECOND))
        # Writing needs no permission: what finds no room stays in the output.
        return {descriptor for descriptor, event in poll.poll(timeout) if event & ~select.POLLOUT}

    def _flush(self) -> None:
        output = self._simulation.output
        if not output or not self._simulation.plugged or self._simulation.hangs(monotonic_ns()):
            return
        size = self._simulation.random.randint(1, 16) if self._simulation.split else len(output)
        del output[: self._terminal.write(bytes(output[:size]))]

    def _plug(self) -> None:
        if not self._simulation.plugged:
            self._terminal.close()
        elif self._terminal.closed:
            self._terminal.open()
            self._simulation.plugged_in(self._terminal.path)

    def _read_control(self, control: TextIO) -> None:
        data = os.read(control.fileno(), _CHUNK)
        if not data:
            # Whoever started the process in the background has no more to say; a person at a
            # terminal ends it.
            self._simulation.quitting = control.isatty()
            self._control = None
            return
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            if not line.strip():
                continue
            try:
                self._simulation.command(line.decode("utf-8", "replace"), monotonic_ns())
            except ValueError as error:
                sys.stderr.write(f"{error}\n")
                sys.stderr.flush()
            self._plug()  # unplug and replug may come in one read


class _Terminal:
    """The pseudo-terminal that a host opens, and the link to it.

    Its slave end stays open here too: else the last host that closes it would hang up the master.
    """

    def __init__(self, link: str | None, watched: bool) -> None:
        self.path = ""
        self.descriptor = -1
        self.watch: OpenWatch | None = None
        self._watched = watched
        self._slave = -1
        self._link = Path(link) if link else None
        if self._link and self._link.exists() and not self._link.is_symlink():
            raise CanInitializationError(f"{link} exists and is not a symbolic link")

    def __enter__(self) -> _Terminal:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        return self.descriptor < 0

    def open(self) -> None:
        self.descriptor, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self.descriptor, False)
        self.path = os.ttyname(self._slave)
        if self._watched:
            try:
                self.watch = OpenWatch(self.path)
            except OSError as error:
                self.close()
                raise CanInitializationError(
                    f"cannot see when a program opens {self.path}: {error.strerror}"
                ) from error
        if self._link:
            try:
                self._point(self._link)
            except OSError as error:
                self.close()
                raise CanInitializationError(
                    f"cannot link {self._link}: {error.strerror}"
                ) from error

    def close(self) -> None:
        if self.closed:
            return
        if self.watch is not None:
            self.watch.close()
            self.watch = None
        os.close(self.descriptor)
        os.close(self._slave)
        self.descriptor = self._slave = -1
        if self._link:
            self._link.unlink(missing_ok=True)

    def was_opened(self) -> bool:
        """Whether a program has opened it since this was asked last; ``False`` if unwatched."""
        return self.watch is not None and self.watch.seen()

    def has_data(self) -> bool:
        return bool(select.select([self.descriptor], [], [], 0)[0])

    def read(self) -> bytes:
        """All that the host has written; a system hands out some thousand bytes at a time."""
        data = os.read(self.descriptor, _CHUNK)
        while len(data) < _CHUNK and self.has_data():
            data += os.read(self.descriptor, _CHUNK)
        return data

    def write(self, data: bytes) -> int:
        """Number of bytes that the host has room for."""
        try:
            return os.write(self.descriptor, data)
        except BlockingIOError:
            return 0

    def _point(self, link: Path) -> None:
        fresh = link.with_name(f".{link.name}.{os.getpid()}")
        fresh.symlink_to(self.path)
        fresh.replace(link)  # at no moment without a target


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that becomes readable at SIGTERM, SIGINT and SIGHUP.

    A SIGHUP that is ignored stays so: ``nohup`` has asked for it.
    """

    def noted(_number: int, _frame: FrameType | None) -> None:
        """The interpreter has written to the descriptor already."""

    with ExitStack() as stack:
        read, write = os.pipe()
        stack.callback(os.close, read)
        stack.callback(os.close, write)
        os.set_blocking(write, False)
        stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(write))
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        for number in numbers:
            stack.callback(signal.signal, number, signal.signal(number, noted))
        yield read
