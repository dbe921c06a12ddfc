"""Programs that send and receive numbered frames, and keep accounts that can be reconciled."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from canbroker import Bus, CanError, Message
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.processes import Program

#: The frame after the last one.
END: Final = 0x7FF

#: Bounds of the half-open ranges in which programs tell numbers.
Ranges = Iterable[tuple[int, int]]

_RANGES = """
def extend(ranges, number):
    if ranges and ranges[-1][1] == number:
        ranges[-1][1] += 1
    else:
        ranges.append([number, number + 1])
"""

#: Sends until it hears something: ``rate`` frames a second, ``each`` a request, with so many
#: ``identifiers`` in turn. With ``each`` 1 and a ``timeout`` it knows the fate of each frame.
_SENDER = (
    _RANGES
    + """
import select
accounts = {"sent": [], "handed": [], "refused": [], "unknown": []}
timeout, each = arguments["timeout"], arguments["each"]

def message(number):
    return Message(arbitration_id=arguments["id"] + number % arguments["identifiers"],
                   data=number.to_bytes(4, "big"), is_extended_id=False)

def fate(begin):
    try:
        bus.send_batch([message(number) for number in range(begin, begin + each)], timeout)
    except canbroker.CanError as error:
        # What a driver had when its adapter went, or which died with its actor, may be sent.
        return "unknown" if timeout and "cannot send" not in str(error) else "refused"
    return "sent" if timeout else "handed"

with Bus(*arguments["bus"], **arguments["options"],
         can_filters=[{"can_id": 0x7FE, "can_mask": 0x7FF}]) as bus:
    say("ready")
    hear()
    say("started")  # what is told next is not read along with that
    number, began = 0, time.monotonic()
    while not select.select([sys.stdin], [], [], 0)[0]:
        account = accounts[fate(number)]
        for number in range(number, number + each):
            extend(account, number)
        number += 1
        if number == each:  # what a bus makes for its first wait, it has from the beginning
            bus.flush(30)
        ahead = began + number / arguments["rate"] - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
    took = time.monotonic() - began
    try:
        bus.flush(30)
    except canbroker.CanOperationError:
        pass  # counted as failed
    stats = bus.stats
    say({**accounts, "stats": [stats.sent, stats.failed, stats.transmit_queue],
         "rate": number / took})
"""
)

#: Receives until the end, through errors, too. Then it tells the median delay within each of the
#: windows of time that it is told.
_RECEIVER = (
    _RANGES
    + """
import statistics
from array import array
numbers, errors = {}, []
times, delays = array("d"), array("d")
with Bus(*arguments["bus"], **arguments["options"]) as bus:
    say("ready")
    ended = False
    while not ended:
        try:
            messages = bus.recv_batch(1000, 1)
        except canbroker.CanOperationError as error:
            errors.append([time.time(), str(error)])
            time.sleep(0.02)
            continue
        now = time.time()
        for message in messages:
            ended = ended or message.arbitration_id == arguments["end"]
            extend(numbers.setdefault(message.arbitration_id, []),
                   int.from_bytes(message.data, "big"))
            times.append(message.timestamp)
            delays.append(now - message.timestamp)
    stats = bus.stats
    say({"numbers": list(numbers.items()), "errors": errors, "received": stats.received,
         "lost": stats.lost, "repaired": stats.repaired, "restarts": stats.restarts,
         "interruptions": stats.interruptions})
    say([statistics.median(delay for at, delay in zip(times, delays) if begin <= at < end)
         for begin, end in hear()])
"""
)


@dataclass(frozen=True)
class Sent:
    """A sender's account, of numbers.

    ``sent``: taken by the driver. ``handed``: ``send`` returned, and nobody waited; of them
    ``confirmed`` were taken by the driver and ``failed`` were reported. ``refused``: ``send``
    raised before it handed the frame over; ``unknown``: it raised afterwards. ``rate``: frames/s.
    """

    sent: set[int]
    handed: set[int]
    refused: set[int]
    unknown: set[int]
    confirmed: int
    failed: int
    rate: float


@dataclass(frozen=True)
class Received:
    """A receiver's account. ``numbers``: of each identifier, in the order of their arrival."""

    numbers: dict[int, list[int]]
    errors: list[tuple[float, str]]
    received: int
    lost: int
    repaired: int
    restarts: int
    interruptions: int


class Sender(Program):
    """Sends numbered frames between :meth:`start` and :meth:`stop`."""

    def __init__(
        self,
        bus: tuple[str, str],
        identifier: int,
        rate: int,
        *within: str,
        each: int = 1,
        identifiers: int = 1,
        timeout: float | None = None,
        **options: Any,
    ) -> None:
        """``options`` are those of the bus; ``timeout`` as ``send`` has it; ``identifiers``: so
        many are used in turn, beginning with ``identifier``."""
        arguments = {"id": identifier, "identifiers": identifiers, "rate": rate, "each": each}
        super().__init__(_SENDER, *within, **arguments, bus=bus, timeout=timeout, options=options)
        assert self.said() == "ready"

    def start(self) -> None:
        self.tell("start")
        assert self.said() == "started"

    def stop(self) -> Sent:
        self.tell("stop")
        account = self.said(60)
        confirmed, failed, unanswered = account.pop("stats")
        assert unanswered == 0
        rate = account.pop("rate")
        numbers = {name: set(_expanded(ranges)) for name, ranges in account.items()}
        return Sent(**numbers, confirmed=confirmed, failed=failed, rate=rate)


class Receiver(Program):
    """Receives numbered frames, from now on to the :data:`END`."""

    def __init__(self, bus: tuple[str, str], *within: str, **options: Any) -> None:
        super().__init__(_RECEIVER, *within, bus=bus, end=END, options=options)
        assert self.said() == "ready"

    def account(self) -> Received:
        """Waits for its end of the traffic."""
        account = self.said(60)
        numbers = {identifier: _expanded(ranges) for identifier, ranges in account.pop("numbers")}
        del numbers[END]
        return Received(numbers=numbers, **account)

    def delays(self, *windows: tuple[float, float]) -> list[float]:
        """The median delay, seconds, of the frames with a timestamp within each of ``windows``;
        after :meth:`account`."""
        self.tell(windows)
        medians: list[float] = self.said()
        return medians


def _expanded(ranges: Ranges) -> list[int]:
    return [number for begin, end in ranges for number in range(begin, end)]


def end_traffic(bus: Bus) -> None:
    """Sends the :data:`END`, as soon as the channel takes it."""

    def is_sent() -> bool:
        try:
            bus.send(Message(arbitration_id=END, data=bytes(4), is_extended_id=False), 10)
        except CanError:
            return False
        return True

    wait_until(is_sent, "the end is sent", timeout=30)


def reconcile(sender: Sent, numbers: list[int], brokers: int = 0) -> int:
    """Checks that a sender's frames arrived as it was told, those of ``numbers``, at a receiver or
    an adapter that has lost none. Returns how many more arrived than were confirmed.

    A ring ends with its broker: after each of ``brokers`` that were killed a receiver may miss
    what the next one's actor sends before anybody is subscribed again. Whatever becomes of actors,
    it misses nothing.
    """
    assert numbers == sorted(set(numbers)), "in order, none twice"
    arrived = set(numbers)
    taken = sender.sent | sender.handed | sender.unknown
    assert arrived <= taken, "what was refused is not there"
    assert sender.confirmed + sender.failed == len(taken)
    missed = sorted(sender.sent - arrived)
    if not brokers:
        assert not missed, "what was sent is there"
        assert len(arrived) >= sender.confirmed
    begun = [number for number in missed if number - 1 not in sender.sent - arrived]
    assert len(begun) <= brokers
    assert not {number - 1 for number in begun} & sender.sent, "the first that an actor sent"
    return len(arrived) - sender.confirmed


@contextmanager
def serving(
    runtime: Runtime,
    directory: Path,
    config: str,
    log: IO[bytes] | None = None,
    within: Sequence[str] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """A broker in the foreground with this configuration, ready; its log goes to ``log``.

    ``within`` begins its command, for example that of another network namespace.
    """
    file = directory / "serve.toml"
    file.write_text(config)
    command = [*within, *EntryPoint.COMMAND.command("serve", "-c", str(file))]

    def is_ready() -> bool:
        try:
            return bool(status_of(runtime).pid)
        except (AssertionError, CanError):  # there is none yet
            return False

    with subprocess.Popen(command, stderr=subprocess.DEVNULL if log is None else log) as process:
        try:
            wait_until(is_ready, "the broker is ready", timeout=30)
            yield process
        finally:
            process.terminate()
