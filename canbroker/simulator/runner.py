"""The simulated adapter as a process: its line, a control stream, signals."""

from __future__ import annotations

import select
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from types import FrameType
from typing import TextIO

from canbroker.errors import CanInitializationError
from canbroker.simulator.control import ControlStream
from canbroker.simulator.line import Line
from canbroker.simulator.options import SimulatorOptions
from canbroker.simulator.replay import Recording
from canbroker.simulator.simulation import OUTPUT_LIMIT, Simulation
from canbroker.simulator.tcp_line import TcpLine
from canbroker.system.clock import MILLISECOND, SECOND, monotonic_ns
from canbroker.system.handles import SocketPair
from canbroker.system.portable import PORTABLE
from canbroker.system.service import ending_signals
from canbroker.system.waits import ProcessorWaits

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
    with ExitStack() as stack:
        stop = stack.enter_context(_signals())
        line = stack.enter_context(closing(_line(options.link, simulation.boots)))
        line.open()
        stream = None if control is None else stack.enter_context(closing(ControlStream(control)))
        out.write(f"{line.path}\n")
        out.flush()
        waits = stack.enter_context(ProcessorWaits())
        runner = _Runner(simulation, line, out, stream, stop, waits)
        while not simulation.quitting:
            runner.step()
    simulation.report("exit")
    runner.print_reports()
    if recording and recording.skipped:
        sys.stderr.write(f"{recording.path}: {recording.skipped}\n")
    return 0


class _Runner:
    """Moves bytes between the simulation and the world, sleeping while nothing is due.

    A real adapter always has its processor. What was written while this one waited for it did not
    come at once.
    """

    def __init__(
        self,
        simulation: Simulation,
        line: Line,
        out: TextIO,
        control: ControlStream | None,
        stop: int,
        waits: ProcessorWaits,
    ) -> None:
        self._waits = waits
        self._simulation = simulation
        self._line = line
        self._out = out
        self._control = control
        self._stop = stop
        self._empty_ns = monotonic_ns()  # the host had written nothing that was not read

    def step(self) -> None:
        was_there = self._simulation.plugged and self._line.has_data()
        waited_ns = self._waits.total_ns()
        ready = self._wait()
        if not was_there:
            self._empty_ns = self._without_waits(monotonic_ns(), waited_ns)
        if self._stop in ready:
            self._simulation.quitting = True
        if self._control is not None and self._control.fileno() in ready:
            self._read_control(self._control)
        self._plug()
        if self._simulation.plugged:
            self._reset_if_opened()
            if len(self._simulation.output) < _ANSWER_LIMIT and self._line.has_data():
                self._receive()
        self._simulation.step(monotonic_ns())
        self._flush()
        self.print_reports()

    def _receive(self) -> None:
        waited_ns = self._waits.total_ns()
        data = self._line.read()
        # A program that opened the port and wrote between two lines of this one: the reset comes
        # before the bytes.
        self._reset_if_opened()
        now_ns = monotonic_ns()
        self._simulation.receive(data, now_ns, self._empty_ns)
        self._empty_ns = self._without_waits(now_ns, waited_ns)

    def _without_waits(self, now_ns: int, before_ns: int) -> int:
        """When this would be done if there had always been a processor for it."""
        return now_ns - (self._waits.total_ns() - before_ns)

    def _reset_if_opened(self) -> None:
        if self._line.was_opened():
            self._simulation.port_opened(monotonic_ns())

    def print_reports(self) -> None:
        for line in self._simulation.reports:
            self._out.write(f"{line}\n")
        self._out.flush()
        self._simulation.reports.clear()

    def _wait(self) -> set[int]:
        now = monotonic_ns()
        sources: list[int] = [self._stop]
        targets: list[int] = []
        if self._control is not None:
            sources.append(self._control.fileno())
        due = self._simulation.due_ns(now)
        if self._simulation.plugged:
            sources += self._line.sources(len(self._simulation.output) < _ANSWER_LIMIT)
            if self._simulation.output and not self._simulation.hangs(now):
                if self._simulation.split:
                    due = min(due or now + _SPLIT_PAUSE_NS, now + _SPLIT_PAUSE_NS)
                else:
                    targets += self._line.targets()
        timeout = None if due is None else max(0, due - now) / SECOND
        # Writing needs no permission: what finds no room stays in the output.
        return set(select.select(sources, targets, [], timeout)[0])

    def _flush(self) -> None:
        output = self._simulation.output
        if not output or not self._simulation.plugged or self._simulation.hangs(monotonic_ns()):
            return
        size = self._simulation.random.randint(1, 16) if self._simulation.split else len(output)
        del output[: self._line.write(bytes(output[:size]))]

    def _plug(self) -> None:
        if not self._simulation.plugged:
            self._line.close()
        elif self._line.closed:
            self._line.open()
            self._simulation.plugged_in(self._line.path)

    def _read_control(self, control: ControlStream) -> None:
        lines = control.lines()
        if lines is None:
            # Whoever started the process in the background has no more to say; a person at a
            # terminal ends it.
            self._simulation.quitting = control.is_terminal
            self._control = None
            return
        for line in lines:
            if not line.strip():
                continue
            try:
                self._simulation.command(line.decode("utf-8", "replace"), monotonic_ns())
            except ValueError as error:
                sys.stderr.write(f"{error}\n")
                sys.stderr.flush()
            self._plug()  # unplug and replug may come in one read


def _line(link: str | None, watched: bool) -> Line:
    """:raises CanInitializationError: there is something else at ``link``, or no links are here."""
    if sys.platform != "win32" and not PORTABLE:
        from canbroker.simulator.terminal import Terminal  # noqa: PLC0415 - POSIX only

        return Terminal(link, watched)
    if link is not None:
        raise CanInitializationError(f"{link}: only a pseudo-terminal of Linux can have a link")
    return TcpLine()


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that becomes readable at SIGTERM, SIGINT and SIGHUP.

    A SIGHUP that is ignored stays so: ``nohup`` asks for it.
    """

    def noted(_number: int, _frame: FrameType | None) -> None:
        """The interpreter has written to the descriptor already."""

    with ExitStack() as stack:
        pair = stack.enter_context(closing(SocketPair()))  # Windows writes to sockets only
        stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(pair.ends[1].fileno()))
        for number in ending_signals():
            stack.callback(signal.signal, number, signal.signal(number, noted))
        yield pair.fileno()
