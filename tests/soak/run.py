"""Runs a soak, and says how it went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from canbroker import Bus, CanError
from canbroker.transport.runtime import Runtime
from tests.soak import samples
from tests.soak.accounts import faults_of, faults_of_sender
from tests.soak.clients import Owner, Receiver
from tests.soak.faults import Faults
from tests.support.brokers import status_of, tasks_of, wait_until
from tests.support.ledger import END, Sender, end_traffic
from tests.support.simulated import Simulated

WAITING: Final = 0x100
HASTY: Final = 0x200
PERIODIC: Final = 0x300
#: Frames/s of the sender that does not wait; the one that does has a third of it.
RATE: Final = 150
_REPORT_S: Final = 30.0
_CALM_S: Final = 2.0
_LOOK_S: Final = 0.2

_OPTIONS: Final[dict[str, Any]] = {"bitrate": 500_000}


class Lane:
    """A channel with its senders and receivers."""

    def __init__(self, stack: ExitStack, bus: tuple[str, str]) -> None:
        numbered = [WAITING, HASTY]
        exactly = [{"can_id": number, "can_mask": 0x7FF} for number in (WAITING, END)]
        self.bus = bus
        self.own = stack.enter_context(
            Bus(*bus, can_filters=[{"can_id": 0x7FE, "can_mask": 0x7FF}], **_OPTIONS)
        )
        self.everything = Receiver(bus, numbered, **_OPTIONS)
        self.filtered = Receiver(bus, numbered, can_filters=exactly, **_OPTIONS)
        self.slow = Receiver(bus, numbered, pause=0.5, **_OPTIONS)
        self.senders = {
            WAITING: Sender(bus, WAITING, RATE // 3, timeout=20, **_OPTIONS),
            HASTY: Sender(bus, HASTY, RATE, **_OPTIONS),
        }
        for program in (*self.receivers, *self.senders.values()):
            stack.enter_context(program)
        for sender in self.senders.values():
            sender.start()

    @property
    def receivers(self) -> list[Receiver]:
        return [self.everything, self.filtered, self.slow]

    def end(self) -> Iterator[str]:
        """Ends the traffic; yields a line for each account, with what does not agree."""
        sent = {identifier: sender.stop() for identifier, sender in self.senders.items()}
        end_traffic(self.own)
        for identifier, account in sent.items():
            wrong = faults_of_sender(account)
            yield (
                f"{self.bus[1]:8} sender {identifier:X}: {account.confirmed} sent, {account.failed}"
                f" failed, {len(account.refused)} refused {_verdict(wrong)}"
            )
        for name, receiver in zip(("all", "filtered", "slow"), self.receivers, strict=True):
            got = receiver.account()
            expected = {WAITING: sent[WAITING]} if name == "filtered" else sent
            wrong = faults_of(got, expected)
            yield (
                f"{self.bus[1]:8} receiver {name}: {got.received} received, {got.repaired}"
                f" repaired, {got.lost} lost, {got.restarts} restarts,"
                f" {got.interruptions} interruptions {_verdict(wrong)}"
            )


class Soak:
    """Runs it for ``seconds``; ``say`` gets each line. ``runtime`` is private to it."""

    def __init__(self, runtime: Runtime, directory: Path, say: Callable[[str], None]) -> None:
        self._runtime, self._directory, self._say = runtime, directory, say
        self._samples: list[samples.Sample] = []

    def run(self, seconds: float, seed: int, report_s: float = _REPORT_S) -> bool:
        """Whether all was flat and exact."""
        with ExitStack() as stack:
            adapter = stack.enter_context(Simulated(self._directory))
            buses = [("x", "virtual"), (adapter.link, "slcan")]
            lanes = [Lane(stack, bus) for bus in buses]
            owner = stack.enter_context(Owner(buses[0], PERIODIC, 5, 0.02))
            clients = [
                program for lane in lanes for program in (*lane.receivers, *lane.senders.values())
            ]
            faults = Faults(seed, self._runtime, adapter, buses, [*clients, owner])
            stack.callback(faults.end)
            kinds = {
                "senders": [sender.pid for lane in lanes for sender in lane.senders.values()],
                "receivers": [receiver.pid for lane in lanes for receiver in lane.receivers],
                "owner": [owner.pid],
                "adapter": [adapter.process.pid],
            }
            before = self._settled(kinds)
            self._flow(seconds, report_s, faults, kinds)
            faults.end()
            after = self._settled(kinds, before)
            lines = [line for lane in lanes for line in lane.end()]
            owner.tell("end")
            owner.end()
        for line in lines:
            self._say(line)
        return self._judge(before, after, lines)

    def _flow(
        self, seconds: float, report_s: float, faults: Faults, kinds: dict[str, list[int]]
    ) -> None:
        began = time.monotonic()
        reported = began
        while (now := time.monotonic()) < began + seconds:
            faults.one()
            time.sleep(min(_CALM_S, seconds / 10))  # undisturbed
            if now >= reported + report_s:
                reported = now
                self._report(now - began, faults, self._sample(kinds))

    def _used(self, kinds: dict[str, list[int]]) -> list[samples.Sample]:
        """What each kind of process uses now, those of the broker's included."""
        status = status_of(self._runtime)
        actors = {
            f"actor {channel.interface}": [channel.pid]
            for channel in status.channels
            if channel.pid is not None
        }
        scheduler = [status.scheduler.pid] if status.scheduler.pid is not None else []
        return samples.take({"broker": [status.pid], **actors, "scheduler": scheduler, **kinds})

    def _sample(self, kinds: dict[str, list[int]]) -> list[samples.Sample]:
        taken = self._used(kinds)
        self._samples += taken
        return taken

    def _settled(
        self, kinds: dict[str, list[int]], like: list[samples.Sample] | None = None
    ) -> list[samples.Sample]:
        """What is used when everything runs; waits until that is no more than in ``like``."""
        now: list[samples.Sample] = []

        def settled() -> bool:
            nonlocal now
            status = status_of(self._runtime)
            phases = [channel.phase for channel in status.channels]
            running = [*phases, status.scheduler.phase] == ["running"] * (len(phases) + 1)
            used = self._used(kinds)
            time.sleep(_LOOK_S)  # connections that a fault has broken are made again
            now = self._used(kinds)
            is_still = not _more(used, now) and not _more(now, used)
            return running and is_still and (like is None or not _more(like, now))

        try:
            wait_until(settled, "all is as it was", timeout=20)
        except AssertionError as late:
            self._say(f"{late}")
        # Not another look: who asks for the status is a descriptor of the broker's meanwhile.
        self._samples += now
        return now

    def _report(self, at: float, faults: Faults, taken: list[samples.Sample]) -> None:
        self._say(f"--- {at:.0f} s; {sum(faults.counts.values())} faults: {dict(faults.counts)}")
        self._say(samples.HEADING)
        for sample in taken:
            self._say(samples.line(sample))
        try:
            tasks = tasks_of(self._runtime)
        except (CanError, AssertionError) as error:
            self._say(f"periodic: {error}")  # the scheduler is being replaced
            return
        late = [task.late_p99_ns / 1e6 for task in tasks if task.late_p99_ns is not None]
        sent, skipped = (sum(getattr(task, name) for task in tasks) for name in ("sent", "skipped"))
        worst = f"{max(late):.2f} ms" if late else "-"
        self._say(f"periodic: {len(tasks)} tasks, {sent} sent, {skipped} skipped, p99 late {worst}")

    def _judge(
        self, before: list[samples.Sample], after: list[samples.Sample], lines: list[str]
    ) -> bool:
        grown = samples.growth(self._samples)
        for kind, megabytes in grown.items():
            flat = "flat" if megabytes < samples.GROWTH_MB else "GROWS"
            self._say(f"memory of {kind}: {megabytes:+.2f} MB in the second half: {flat}")
        more = _more(before, after)
        self._say(f"descriptors and threads: {f'MORE {more}' if more else 'no more than before'}")
        exact = not any("WRONG" in line for line in lines)
        self._say(f"ledger: {'exact' if exact else 'WRONG'}")
        flat_memory = all(megabytes < samples.GROWTH_MB for megabytes in grown.values())
        good = exact and flat_memory and not more
        self._say(f"verdict: {'held' if good else 'DID NOT HOLD'}")
        return good


def _more(before: list[samples.Sample], after: list[samples.Sample]) -> list[str]:
    """The kinds of process that have more descriptors or threads than before."""
    was = {sample.kind: sample for sample in before}
    return [
        f"{now.kind}: {was[now.kind].descriptors}, {was[now.kind].threads}"
        f" -> {now.descriptors}, {now.threads}"
        for now in after
        if now.kind in was
        and (now.descriptors > was[now.kind].descriptors or now.threads > was[now.kind].threads)
    ]


def _verdict(wrong: list[str]) -> str:
    return f"WRONG: {'; '.join(wrong)}" if wrong else "exact"


@contextmanager
def killed_afterwards(find: Callable[[], list[psutil.Process]]) -> Iterator[None]:
    """Kills what is left of the processes that ``find`` finds."""
    try:
        yield
    finally:
        for process in find():
            process.kill()
