"""The demonstration: an adapter, a broker and five clients, and a ledger that must be exact.

Everything runs in separate processes and in a private runtime directory, which is removed
afterwards.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape

from canbroker.demo import ledger
from canbroker.demo.broker import BrokerView
from canbroker.demo.children import Child, Children
from canbroker.demo.client import Assignment
from canbroker.demo.ledger import Report
from canbroker.demo.roles import Role, cast
from canbroker.demo.screen import Screen
from canbroker.errors import CanInitializationError, CanOperationError
from canbroker.logs import candump
from canbroker.logs.reader import LogReader, Skipped
from canbroker.logs.timing import RecordedTime
from canbroker.model.filters import FilterSet, validate
from canbroker.model.frame import ERROR, FD, Frame
from canbroker.simulator import SimulatorOptions, traffic
from canbroker.system.clock import SECOND
from canbroker.system.entry_points import EntryPoint
from canbroker.system.portable import PORTABLE
from canbroker.system.service import ending_signals
from canbroker.transport.runtime import Runtime
from canbroker.wire import topics
from canbroker.wire.stream import StateEvent

_GENERATED_S: Final = 6.0
_SEED: Final = 1
_ADAPTER: Final = "adapter"
_PLAIN_PROGRAM: Final = Path(__file__).with_name("programs") / "plain_subscriber.py"

_START_S: Final = 30.0
_END_S: Final = 15.0
#: A client that has received nothing for this long will receive nothing more.
_QUIET_S: Final = 2.0
_TICK_S: Final = 0.1
#: Frames a second that any machine can read.
_SLOWEST_RATE: Final = 1000


def run(trace: Path | None, speed: float = 1.0) -> int:
    """Replays a trace to five clients and checks every frame; 0 if the ledger is exact, else 1.

    Prints its progress on standard output. Main thread only: it handles SIGINT, SIGTERM and
    SIGHUP.

    :param trace: a candump log; ``None`` generates a vehicle's traffic.
    :param speed: of the replay: 1 is as recorded, 0 is as fast as the adapter is read.
    :raises ValueError: the speed is negative.
    :raises CanError: the trace cannot be read, or a process did not start or has ended.
    :raises KeyboardInterrupt: on one of these signals, when all processes have ended.
    """
    if not (math.isfinite(speed) and speed >= 0):
        raise ValueError(f"speed must be 0 or above, got {speed}")
    console = Console()
    with _interrupted_once(), _private_directory() as directory:
        if trace is None:
            trace = _made_up_trace(directory)
        frames, skipped = _load(trace)
        roles = cast(frames)
        with ExitStack() as stack:
            # Closed in reverse: the clients, the broker, then the directory.
            broker = stack.enter_context(BrokerView(Runtime(directory / "canbroker")))
            children = stack.enter_context(Children(directory))
            screen = stack.enter_context(Screen(console, roles))
            stage = _Stage(children, broker, screen, roles)
            if skipped:
                screen.say(escape(f"{trace}: {skipped}"))
            # A link, where there can be one, so that no adapter of others is ever opened.
            stage.start_adapter(trace, None if PORTABLE else directory / "can", speed)
            stage.start_clients(frames)
            expected = {role: ledger.expect(role.can_filters, frames) for role in roles}
            counts = {role.name: tally.frames for role, tally in expected.items()}
            stage.play(counts, _span_s(frames, speed))
            adapter = stage.finish()
        screen.ledger(adapter["replayed"], expected, stage.reports)
        lost = ledger.lost(expected, stage.reports)
        faults = ledger.faults(len(frames), adapter, expected, stage.reports)
        for fault in faults:
            screen.say(fault)
        screen.say(f"lost {lost} — ledger {'NOT exact' if faults else 'exact'}")
        return 1 if faults else 0


class _Stage:
    """The processes, and their latest reports."""

    def __init__(
        self, children: Children, broker: BrokerView, screen: Screen, roles: list[Role]
    ) -> None:
        self.reports: dict[str, Report] = {}
        self._children = children
        self._broker = broker
        self._screen = screen
        self._roles = roles
        self._clients: dict[str, Child] = {}
        self._events: dict[str, dict[str, Any]] = {}  # the adapter's last one of each kind
        self._path: str | None = None
        self._state: StateEvent | None = None
        self._state_due = math.inf  # once all are there
        self._progress_at = 0.0

    def start_adapter(self, trace: Path, link: Path | None, speed: float) -> None:
        """Starts the adapter, which does not replay yet; clients open ``link``, if there is one.

        The adapter supports CAN FD, which the trace may contain.
        """
        options = SimulatorOptions(
            firmware="canable2-lawicel",
            replay=str(trace.absolute()),
            rate=speed,
            paused=True,
            link=None if link is None else str(link),
            timestamps=False,
        )
        self._adapter = self._children.start(
            _ADAPTER, EntryPoint.DEMO_ADAPTER.command(_encoded(options))
        )
        self._until(lambda: self._path is not None, "the adapter is there", _START_S)
        self._channel = str(link or self._path)

    def start_clients(self, frames: list[Frame]) -> None:
        """Starts the clients, which start the broker; returns when all are ready."""
        parameters: dict[str, Any] = {"bitrate": traffic.VEHICLE_BITRATE}
        if any(frame.flags & FD for frame in frames):
            parameters |= {"fd": True, "data_bitrate": 2_000_000}
        for role in self._roles:
            if not role.plain:
                assignment = Assignment(
                    channel=self._channel,
                    parameters=parameters,
                    can_filters=_can_filters(role),
                    tapped=role.tapped,
                )
                self._start_client(role, EntryPoint.DEMO_CLIENT.command(_encoded(assignment)))
        self._until(self._all_ready, "the clients are ready", _START_S)
        for role in self._roles:
            if role.plain:
                self._start_client(role, self._plain_command(role))
        self._until(self._all_ready, "the plain subscriber is ready", _START_S)
        self._screen.say("five clients are ready; the adapter starts to replay")

    def play(self, counts: dict[str, int], span_s: float) -> None:
        """Replays the trace until every client has received its count, or receives nothing more.

        :raises CanOperationError: the adapter does not reach the end of the trace.
        """
        self._state_due = time.monotonic()
        self._adapter.tell("start")
        done = "replay_done"
        self._until(lambda: done in self._events, "the replay ends", span_s + _START_S)
        self._progress_at = time.monotonic()

        def is_over() -> bool:
            complete = all(self.reports[name].frames >= count for name, count in counts.items())
            return complete or time.monotonic() > self._progress_at + _QUIET_S

        self._until(is_over, "the clients receive nothing more", span_s + _START_S)

    def finish(self) -> dict[str, Any]:
        """Ends clients, broker and adapter, in this order; returns the adapter's counts."""
        self._state_due = math.inf
        for name, client in self._clients.items():
            client.end()
            self._until(partial(_ended, client), f"{name} ends", _END_S)
        self._broker.stop()
        self._adapter.tell("quit")
        self._until(partial(_ended, self._adapter), "the adapter ends", _END_S)
        return self._events["exit"]

    # -------------------------------------------------------------------------------- details

    def _start_client(self, role: Role, command: list[str]) -> None:
        self._clients[role.name] = self._children.start(role.name, command)

    def _all_ready(self) -> bool:
        return self._clients.keys() == self.reports.keys()

    def _plain_command(self, role: Role) -> list[str]:
        """The plain subscriber needs only two topics, as the documentation describes them."""
        channel = self._broker.channel()
        wanted = _filter_set(role)
        route = topics.route_topic(channel.name, wanted).decode()
        private = topics.private_topic(channel.name, "plain", wanted).decode()
        return [sys.executable, "-P", str(_PLAIN_PROGRAM), channel.stream, route, private]

    def _until(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        """Handles and shows reports until ``condition`` is true.

        :raises CanOperationError: a process fails, or the condition, which ``what`` describes, is
            not true in time.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            now = time.monotonic()
            if now > deadline:
                raise CanOperationError(f"waited {timeout:.0f} s in vain until {what}")
            for name, line in self._children.lines(_TICK_S):
                self._heard(name, line)
            if now >= self._state_due:
                self._state_due = now + 0.5
                self._state = self._broker.channel().state
            if self._state_due < math.inf:
                self._screen.show(self.reports, self._state)

    def _heard(self, name: str, line: str) -> None:
        if name != _ADAPTER:
            report = msgspec.json.decode(line, type=Report)
            before = self.reports.get(name)
            if before is None or before.frames != report.frames:
                self._progress_at = time.monotonic()
            self.reports[name] = report
        elif self._path is None:
            self._path = line
        else:
            event = json.loads(line)
            self._events[event["event"]] = event


def _ended(child: Child) -> bool:
    return child.ended


def _encoded(argument: msgspec.Struct) -> str:
    """The argument of a process of this package."""
    return msgspec.json.encode(argument).decode()


def _can_filters(role: Role) -> list[dict[str, int | bool]] | None:
    return None if role.can_filters is None else msgspec.to_builtins(role.can_filters)


def _filter_set(role: Role) -> FilterSet:
    return validate(_can_filters(role))


def _made_up_trace(directory: Path) -> Path:
    path = directory / "vehicle.log"
    entries = traffic.generate_vehicle(_GENERATED_S, _SEED)
    lines = (candump.format_log_line(entry.frame, entry.interface) for entry in entries)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _load(trace: Path) -> tuple[list[Frame], Skipped]:
    """The frames that an adapter would pass on, and the lines that were skipped.

    The ledger needs all frames at once. Error frames are left out: an adapter makes its own.

    :raises CanInitializationError: the file cannot be read, or contains no frames.
    """
    with LogReader.open(trace) as log:
        frames = [entry.frame for entry in log if not entry.frame.flags & ERROR]
    if not frames:
        raise CanInitializationError(f"{trace} contains no frames but error frames")
    return frames, log.skipped


def _span_s(frames: list[Frame], speed: float) -> float:
    """The least time that the replay takes, roughly."""
    if not speed:
        return len(frames) / _SLOWEST_RATE
    timing = RecordedTime(speed)
    return max(timing.due_ns(frame.timestamp_ns) for frame in frames) / SECOND


@contextmanager
def _private_directory() -> Iterator[Path]:
    """A directory for this demonstration; its path is short, because socket paths must be."""
    directory = Path(tempfile.mkdtemp(prefix="cb-demo-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextmanager
def _interrupted_once() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt once: the cleanup must not be interrupted.

    A SIGHUP that is ignored stays ignored: ``nohup`` has asked for it."""
    numbers = ending_signals()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
