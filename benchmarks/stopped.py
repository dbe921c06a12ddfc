"""``python -m benchmarks.stopped``: what others notice while a stopped client catches up.

A program sends 2,000 frames a second, another one receives them and measures how old they are, and
a third keeps the channel busy. A client that receives everything is stopped for some seconds, and
goes on: it repairs what it has missed. As a control, a process that knows nothing of canbroker uses
a processor meanwhile: what that costs others is the machine's, and not ours. The account of the
client that was stopped must be exact.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple, TypeAlias

from rich.console import Console

from benchmarks.figures import US, Key, percentile
from benchmarks.pace import paced
from benchmarks.periodic import private_broker
from benchmarks.team import Team
from benchmarks.usage import cpu_s
from canbroker import Bus, Message
from canbroker.demo.broker import BrokerView
from canbroker.transport.runtime import Runtime

LOAD: Final = "a stopped client catches up"
BURNER: Final = "a busy process"

_CHANNEL: Final = "stopped"
_PACED: Final = 0x100
_BUSY: Final = 0x200
_RATE: Final = 2_000
_BUSY_RATE: Final = 12_000
_AT_ONCE: Final = 60

_BEFORE_S: Final = 4.0
_SETTLE_S: Final = 1.0

#: A client has caught up when it receives a frame that is younger.
_CURRENT_S: Final = 0.05

Pipe: TypeAlias = "Connection[Any, Any]"


class Span(NamedTuple):
    """From one monotonic time to another, ns."""

    begin: int
    end: int

    @property
    def seconds(self) -> float:
        return (self.end - self.begin) / 1e9


class CaughtUp(NamedTuple):
    """When the client that was stopped had caught up (monotonic ns), and its account then."""

    at_ns: int
    lost: int
    repaired: int


class Ledger(NamedTuple):
    """What the client that was stopped has received in all."""

    received: int
    out_of_order: int
    lost: int


class Outcome(NamedTuple):
    """p99 in ms of another client's frames; ``actor`` and ``client``: processor time in s."""

    before: float
    burning: float
    catching_up: float
    seconds: float
    repaired: int
    actor: float
    client: float
    missing: int

    def __str__(self) -> str:
        return (
            f"p99 {self.before:.2f} ms before; {self.burning:.2f} beside {BURNER} "
            f"({self.burning / self.before:.1f} x); {self.catching_up:.2f} while "
            f"{self.repaired:,} frames were repaired in {self.seconds:.2f} s "
            f"({self.catching_up / self.before:.1f} x), for which actor and client used "
            f"{self.actor:.2f} and {self.client:.2f} s; not accounted for: {self.missing} frames"
        )


def measure(stopped_s: float, *, everything: bool = False) -> Outcome:
    """One round, with a broker that is found by the environment.

    ``everything``: the client whose p99 is measured has the filters of the one that is stopped.
    """
    with (
        BrokerView(Runtime.at()) as broker,
        Team() as observed,
        Team() as burners,
        Team() as team,
        Team() as senders,
    ):
        observed.start(_observe, everything)
        team.start(_receive_all)
        burners.start(_burn)
        observed.hear()
        (pid,) = team.hear()
        senders.start(_send, _PACED, _RATE, 1)
        senders.start(_send, _BUSY, _BUSY_RATE, _AT_ONCE)
        senders.hear()
        time.sleep(_SETTLE_S)
        before = _span(lambda: time.sleep(_BEFORE_S))
        burners.tell(_BEFORE_S)
        (burning,) = burners.hear()
        time.sleep(_SETTLE_S)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(stopped_s)
        actor = broker.channel().pid or 0
        used = cpu_s(actor), cpu_s(pid)
        team.tell(None)
        began = time.monotonic_ns()
        os.kill(pid, signal.SIGCONT)
        (caught_up,) = team.hear()
        used = cpu_s(actor) - used[0], cpu_s(pid) - used[1]
        time.sleep(_SETTLE_S)
        senders.tell(None)
        sent = sum(senders.hear())
        team.tell(sent)
        observed.tell(None)
        (ledger,) = team.hear()
        (ages,) = observed.hear()
    catching_up = Span(began, caught_up.at_ns)
    return Outcome(
        before=_p99(ages, before),
        burning=_p99(ages, burning),
        catching_up=_p99(ages, catching_up),
        seconds=catching_up.seconds,
        repaired=caught_up.repaired,
        actor=used[0],
        client=used[1],
        missing=abs(sent - ledger.received) + ledger.out_of_order + ledger.lost,
    )


def figures(outcome: Outcome) -> dict[Key, float]:
    return {
        Key(LOAD, US, "p99 of others / before", "x"): outcome.catching_up / outcome.before,
        Key(LOAD, US, "not accounted for", "frames"): outcome.missing,
        Key(LOAD, BURNER, "p99 of others / before", "x"): outcome.burning / outcome.before,
    }


def main() -> int:
    """Prints a line for each round and the medians; 1 if a frame is not accounted for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stopped", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="for which it is stopped")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--all", action="store_true", help="the other client receives everything, too"
    )
    arguments = parser.parse_args()
    console = Console(highlight=False, width=200)
    outcomes = []
    for _ in range(arguments.rounds):
        with private_broker():
            outcomes.append(measure(arguments.seconds, everything=arguments.all))
        console.print(str(outcomes[-1]))
    ratio, floor = (
        statistics.median(getattr(each, field) / each.before for each in outcomes)
        for field in ("catching_up", "burning")
    )
    console.print(f"medians: {ratio:.1f} x while it catches up, {floor:.1f} x beside {BURNER}")
    return int(any(each.missing for each in outcomes))


def _p99(ages: Iterable[tuple[int, int]], span: Span) -> float:
    """In ms, of the frames that were sent within ``span``."""
    chosen = [age for sent_ns, age in ages if span.begin <= sent_ns < span.end]
    return percentile(chosen, 99) / 1e6


def _span(job: Callable[[], object]) -> Span:
    begin = time.monotonic_ns()
    job()
    return Span(begin, time.monotonic_ns())


# ------------------------------------------------------------------------------------ processes


def _send(pipe: Pipe, identifier: int, rate: int, at_once: int) -> None:
    """Sends numbered frames until it is told to stop, then tells how many."""
    stop = threading.Event()
    with Bus(_CHANNEL, "virtual") as bus:
        threading.Thread(target=_set_when_told, args=(pipe, stop), daemon=True).start()
        pipe.send(None)
        sent = 0
        for _ in paced(1 << 40, rate / at_once):
            if stop.is_set():
                break
            now = time.monotonic_ns()
            messages = [
                Message(
                    arbitration_id=identifier,
                    is_extended_id=False,
                    data=(now + number).to_bytes(8, "little"),
                )
                for number in range(at_once)
            ]
            bus.send(messages[0]) if at_once == 1 else bus.send_batch(messages)
            sent += at_once
        bus.flush()
        pipe.send(sent)


def _set_when_told(pipe: Pipe, event: threading.Event) -> None:
    pipe.recv()
    event.set()


def _observe(pipe: Pipe, everything: bool) -> None:
    """Receives the paced frames until it is told to stop; tells when each was sent, and its age."""
    ages: list[tuple[int, int]] = []
    wanted = {"can_id": _PACED, "can_mask": 0x7FF, "extended": False}
    with Bus(_CHANNEL, "virtual", can_filters=None if everything else [wanted]) as bus:
        pipe.send(None)
        while (message := bus.recv(1.0)) is not None or not pipe.poll():
            if message is not None and message.arbitration_id == _PACED:
                sent_ns = int.from_bytes(message.data, "little")
                ages.append((sent_ns, time.monotonic_ns() - sent_ns))
        pipe.send(ages)


def _receive_all(pipe: Pipe) -> None:
    """Receives everything; tells when it has caught up after it was told to expect a backlog."""
    received = out_of_order = 0
    last: dict[int, int] = {}
    stopped = told = False
    expected: int | None = None
    with Bus(_CHANNEL, "virtual") as bus:
        pipe.send(os.getpid())
        while expected is None or received < expected:
            message = bus.recv(1.0)
            if message is None:
                if expected is not None:
                    break
            else:
                received += 1
                number = int.from_bytes(message.data, "little")
                out_of_order += number <= last.get(message.arbitration_id, 0)
                last[message.arbitration_id] = number
                if stopped and not told and time.time() - message.timestamp < _CURRENT_S:
                    pipe.send(CaughtUp(time.monotonic_ns(), bus.stats.lost, bus.stats.repaired))
                    told = True
            if (message is None or received % 512 == 0) and pipe.poll():
                order = pipe.recv()
                stopped, expected = (True, expected) if order is None else (stopped, order)
        pipe.send(Ledger(received, out_of_order, bus.stats.lost))


def _burn(pipe: Pipe) -> None:
    """Uses a processor for as long as it is told; tells when."""
    seconds = pipe.recv()
    begin = time.monotonic_ns()
    while time.monotonic_ns() - begin < seconds * 1e9:
        pass
    pipe.send(Span(begin, time.monotonic_ns()))


if __name__ == "__main__":
    raise SystemExit(main())
