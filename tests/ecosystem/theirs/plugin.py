"""pytest's part, in a process of its own: chooses the bus, and writes down how each test ends.

``--bus virtual`` is python-can's own, ``--bus canbroker`` our plugin in its place. Some tests
want an interface that is not there, or none at all; what they are about does not need it.
"""

from __future__ import annotations

import json
import queue
from pathlib import Path
from typing import Any, Final

import can
import pytest
from can.interfaces import BACKENDS
from can.interfaces.virtual import VirtualBus

from tests.conformance import ways
from tests.ecosystem.theirs import stand_ins

KINDS: Final[dict[str, type[can.BusABC]]] = {
    "virtual": VirtualBus,
    "canbroker": ways.VirtualBus,
}

_outcomes: dict[str, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bus", choices=sorted(KINDS), required=True)
    parser.addoption("--outcomes", type=Path, required=True, help="File for them (JSON).")


def pytest_configure(config: pytest.Config) -> None:
    kind = KINDS[config.getoption("--bus")]
    BACKENDS["virtual"] = BACKENDS["socketcan"] = (kind.__module__, kind.__name__)
    stand_ins.install()


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: Any) -> None:
    if name == "TestPythonIsoTpConnection":  # skipped without the kernel's ISO-TP; uses none of it
        obj.__unittest_skip__ = False
    elif name == "CanToolsTesterTest":  # has a bus that is made of queues
        module = collector.getparent(pytest.Module)
        assert module is not None
        module.obj.CanBus = lambda: TesterBus(KINDS[collector.config.getoption("--bus")])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    worse = _outcomes.get(report.nodeid) == "failed"
    if report.when == "call" or not report.passed:
        _outcomes[report.nodeid] = "failed" if worse else report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.getoption("--outcomes").write_text(json.dumps(_outcomes))


class TesterBus(can.BusABC):
    """The queues of cantools' tests of its tester, at the other end of a real bus."""

    _channels: Final = iter(range(1 << 30))

    def __init__(self, kind: type[can.BusABC]) -> None:
        channel = f"tester-{next(self._channels)}"
        self._bus = kind(channel)
        self._other_end = kind(channel)
        self._started: queue.Queue[tuple[can.Message, float]] = queue.Queue()
        self._stopped: queue.Queue[None] = queue.Queue()
        super().__init__(channel)

    def recv(self, timeout: float | None = None) -> can.Message | None:
        return self._bus.recv(timeout)

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        self._bus.send(msg, timeout)

    def send_periodic(self, msgs: Any, period: float, *_: Any, **__: Any) -> Any:
        """A real task, whose first frame has arrived when the test hears of it."""
        task = self._bus.send_periodic(msgs, period)
        received = self._other_end.recv(10)
        assert isinstance(received, can.Message)
        self._started.put((received, period))
        return _Task(task, self._stopped)

    def wait_for_send(self) -> can.Message | None:
        return self._other_end.recv(10)

    def wait_for_send_periodic(self, timeout: float | None = None) -> tuple[can.Message, float]:
        return self._started.get(timeout=timeout)

    def wait_for_periodic_stop(self) -> None:
        self._stopped.get(timeout=10)

    def input_message(self, message: can.Message) -> None:
        self._other_end.send(message)

    def shutdown(self) -> None:
        for bus in (self._bus, self._other_end):
            bus.shutdown()
        super().shutdown()


class _Task:
    """A task that says when it was stopped."""

    def __init__(self, task: Any, stopped: queue.Queue[None]) -> None:
        self._task = task
        self._stopped = stopped
        self.modify_data = task.modify_data

    def stop(self) -> None:
        self._task.stop()
        self._stopped.put(None)
