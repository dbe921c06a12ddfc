"""A client of the model test: the same in the test's process and in one of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from canbroker import Bus, CanError, CanOperationError, Message
from tests.support.processes import Program

#: What the program of a remote client does: what it is told, until it is told to close.
_PROGRAM: Final = """
from tests.support.model_client import ModelClient
client = ModelClient(*arguments["opened"])
say("open")
while True:
    name, *rest = hear()
    say(getattr(client, name)(*rest))
    if name == "close":
        break
"""


class ModelClient:
    """A bus and what can be done with it, in terms of JSON."""

    def __init__(
        self, channel: str, identifiers: Sequence[int], own: bool, exclusive: bool
    ) -> None:
        self._bus = Bus(
            channel,
            "virtual",
            can_filters=_filters(identifiers),
            receive_own_messages=own,
            exclusive=exclusive,
        )

    def send(self, identifier: int, numbers: Sequence[int], timeout: float) -> tuple[str, str]:
        """What became of the frames: sent, refused (never to be sent) or unknown, and why."""
        messages = [
            Message(arbitration_id=identifier, data=n.to_bytes(4, "big"), is_extended_id=False)
            for n in numbers
        ]
        try:
            self._bus.send_batch(messages, timeout)
        except CanError as error:
            text = str(error)
            refused = "cannot send" in text or "exclusive to client" in text
            return "refused" if refused else "unknown", text
        return "sent", ""

    def take(self, wanted: Sequence[int], timeout: float) -> list[int]:
        """The numbers that come until all ``wanted`` have, and what is there then."""
        missing = set(wanted)
        taken: list[int] = []
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            try:
                messages = self._bus.recv_batch(1000, max(0.0, left) if missing else 0)
            except CanOperationError:  # the actor is gone just now
                time.sleep(0.01)
                continue
            taken += [int.from_bytes(message.data, "big") for message in messages]
            missing.difference_update(taken)
            if not messages and (not missing or left <= 0):
                return taken

    def choose(self, identifiers: Sequence[int]) -> None:
        """Other filters."""
        self._bus.set_filters(_filters(identifiers))

    def lost(self) -> int:
        return self._bus.stats.lost

    def close(self) -> None:
        self._bus.shutdown()


class RemoteClient:
    """A :class:`ModelClient` in a process of its own, which can be stopped and killed."""

    def __init__(self, *opened: Any) -> None:
        self.program = Program(_PROGRAM, opened=opened)
        try:
            assert self.program.said() == "open"
        except BaseException:
            self.program.kill()
            raise

    def send(self, identifier: int, numbers: Sequence[int], timeout: float) -> tuple[str, str]:
        what, text = self._call("send", identifier, numbers, timeout)
        return what, text

    def take(self, wanted: Sequence[int], timeout: float) -> list[int]:
        taken: list[int] = self._call("take", wanted, timeout)
        return taken

    def choose(self, identifiers: Sequence[int]) -> None:
        self._call("choose", identifiers)

    def lost(self) -> int:
        lost: int = self._call("lost")
        return lost

    def close(self) -> None:
        self._call("close")
        assert self.program.end() == 0
        self.program.kill()

    def _call(self, name: str, *arguments: Any) -> Any:
        self.program.tell([name, *arguments])
        return self.program.said(60)


def _filters(identifiers: Sequence[int]) -> Any:
    """None for all frames."""
    if not identifiers:
        return None
    return [{"can_id": identifier, "can_mask": 0x7FF} for identifier in identifiers]
