"""What happens to the parts of a soak, one after the other, from a seed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence

from canbroker.transport.runtime import Runtime
from tests.soak.clients import Visitor
from tests.support.brokers import status_of
from tests.support.processes import Program
from tests.support.simulated import Simulated

_LONGEST_S = 5.0
_VISITOR_ID = 0x400


class Faults:
    """Makes faults; ``counts`` says how many of each. One thread."""

    def __init__(
        self,
        seed: int,
        runtime: Runtime,
        adapter: Simulated,
        buses: Sequence[tuple[str, str]],
        clients: Sequence[Program],
    ) -> None:
        """Chooses among ``clients``, and the actors of ``buses``, for ever the same way."""
        self.counts: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._runtime, self._adapter = runtime, adapter
        self._buses, self._clients = buses, clients
        self._visitors: list[Visitor] = []
        self._kinds: dict[str, Callable[[], None]] = {
            "actor killed": self._kill_actor,
            "actor stopped": lambda: self._stop(self._actor()),
            "scheduler killed": lambda: _signal(self._scheduler(), signal.SIGKILL),
            "client stopped": lambda: self._stop(self._chance.choice(self._clients).pid),
            "adapter unplugged": self._unplug,
            "client came": lambda: self._visit(history=self._chance.choice([0.0, 2.0])),
            "exclusive client came": lambda: self._visit(exclusive=True),
            "client killed": self._kill_visitor,
        }

    def one(self) -> None:
        """The next fault; returns when it is over."""
        name = self._chance.choice(sorted(self._kinds))
        self._kinds[name]()
        self.counts[name] += 1

    def end(self) -> None:
        """Ends all visitors."""
        while self._visitors:
            self._visitors.pop().kill()

    def _actor(self) -> int | None:
        return self._chance.choice(status_of(self._runtime).channels).pid

    def _scheduler(self) -> int | None:
        return status_of(self._runtime).scheduler.pid

    def _kill_actor(self) -> None:
        _signal(self._actor(), signal.SIGKILL)

    def _stop(self, pid: int | None) -> None:
        _signal(pid, signal.SIGSTOP)
        try:
            time.sleep(self._chance.uniform(0.1, _LONGEST_S))
        finally:
            _signal(pid, signal.SIGCONT)

    def _unplug(self) -> None:
        self._adapter.command("unplug")
        time.sleep(self._chance.uniform(0.1, 2))
        self._adapter.replug()

    def _visit(self, **options: object) -> None:
        for visitor in [
            visitor for visitor in self._visitors if visitor.process.poll() is not None
        ]:
            self._visitors.remove(visitor)
            visitor.kill()  # closes its pipes
        bus, seconds = self._chance.choice(self._buses), self._chance.uniform(0.5, 3)
        self._visitors.append(Visitor(bus, _VISITOR_ID, seconds, **options))

    def _kill_visitor(self) -> None:
        self._visit()
        self._visitors[-1].said()  # it is there, or was refused
        self._visitors.pop().kill()


def _signal(pid: int | None, number: signal.Signals) -> None:
    """Sends a signal to a process of this soak, if it is still there."""
    if pid is None:
        return
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has been killed, and is being replaced
