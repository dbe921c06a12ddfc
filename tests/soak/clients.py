"""The clients of a soak: receivers that keep accounts of constant size, owners, visitors."""

from __future__ import annotations

from typing import Any, Final

from tests.support.ledger import END, Received
from tests.support.processes import Program

#: Runs of numbers, not numbers: an hour without a loss is one pair. ``pause``: seconds that a slow
#: one does nothing between two calls.
_RECEIVER: Final = """
numbers, errors = {}, 0
with Bus(*arguments["bus"], **arguments["options"]) as bus:
    say("ready")
    ended = False
    while not ended:
        try:
            messages = bus.recv_batch(1000, 1)
        except canbroker.CanOperationError as error:
            errors += 1
            time.sleep(0.02)
            continue
        for message in messages:
            ended = ended or message.arbitration_id == arguments["end"]
            if message.arbitration_id not in arguments["numbered"]:
                continue
            number = int.from_bytes(message.data[:4], "big")
            runs = numbers.setdefault(message.arbitration_id, [])
            if runs and runs[-1][1] == number:
                runs[-1][1] += 1
            else:
                runs.append([number, number + 1])
        time.sleep(arguments["pause"])
    stats = bus.stats
    say({"numbers": list(numbers.items()), "errors": [[0.0, str(errors)]] if errors else [],
         "received": stats.received, "lost": stats.lost, "repaired": stats.repaired,
         "restarts": stats.restarts, "interruptions": stats.interruptions})
"""

#: Has periodic tasks until it is told to end. Frames that were refused are raised then.
_OWNER: Final = """
try:
    with Bus(*arguments["bus"], **arguments["options"],
             can_filters=[{"can_id": 0x7FE, "can_mask": 0x7FF}]) as bus:
        for n in range(arguments["tasks"]):
            bus.send_periodic(Message(arbitration_id=arguments["id"] + n, data=bytes(4),
                                      is_extended_id=False), arguments["period"])
        say("ready")
        hear()
except canbroker.CanOperationError as error:
    say(str(error))
"""

#: Attaches, has the channel to itself or receives its past, changes filters, leaves.
_VISITOR: Final = """
try:
    with Bus(*arguments["bus"], **arguments["options"]) as bus:
        say("ready")
        until = time.monotonic() + arguments["seconds"]
        while time.monotonic() < until:
            try:
                bus.recv_batch(1000, 0.1)
                bus.set_filters([{"can_id": int(time.monotonic() * 10) % 0x400, "can_mask": 0x700}])
                bus.send(Message(arbitration_id=arguments["id"], is_extended_id=False), 1)
            except canbroker.CanError:
                time.sleep(0.02)
except canbroker.CanError as error:
    say(str(error))
"""


class Receiver(Program):
    """Receives numbered frames, from now on to the :data:`~tests.support.ledger.END`."""

    def __init__(
        self, bus: tuple[str, str], numbered: list[int], *, pause: float = 0, **options: Any
    ) -> None:
        """``numbered``: the identifiers of which it keeps an account."""
        arguments = {"numbered": numbered, "pause": pause, "options": options}
        super().__init__(_RECEIVER, bus=bus, end=END, **arguments)
        assert self.said() == "ready"

    def account(self) -> Received:
        """Waits for its end of the traffic."""
        account = self.said(120)
        numbers = {
            identifier: [number for begin, end in runs for number in range(begin, end)]
            for identifier, runs in account.pop("numbers")
        }
        return Received(numbers=numbers, **account)


class Owner(Program):
    """Owns ``tasks`` periodic tasks of ``period`` seconds; their identifiers begin with ``id``."""

    def __init__(self, bus: tuple[str, str], identifier: int, tasks: int, period: float) -> None:
        arguments = {"id": identifier, "tasks": tasks, "period": period}
        super().__init__(_OWNER, bus=bus, options={}, **arguments)
        assert self.said() == "ready"


class Visitor(Program):
    """Comes for ``seconds``; sends frames of ``identifier``, without an account."""

    def __init__(
        self, bus: tuple[str, str], identifier: int, seconds: float, **options: Any
    ) -> None:
        super().__init__(_VISITOR, bus=bus, id=identifier, seconds=seconds, options=options)
