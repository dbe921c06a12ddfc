"""Asks a quiet adapter whether it still is as it was opened; no I/O.

Another program that opens the device, which only some systems prevent, may close the adapter's
channel or change its bit rate; so does a reset. The channel then is silent, like a bus on which
nobody sends. So an adapter that has said nothing for a while is asked, if it is known to answer:
with ``F``, which the manual's adapters answer while they are open only, else with ``V``.
"""

from __future__ import annotations

from typing import Final

from canbroker.backends.slcan.handshake import REFUSED, STATUS, Adapter, status_kind
from canbroker.clock import SECOND
from canbroker.slcan_codec import CR

_QUIET_NS: Final = 2 * SECOND
_ANSWER_NS: Final = 1 * SECOND

#: Bits of the answer to F (CANUSB Manual), worst first.
_CONDITIONS: Final = (
    (0x20, "error passive"),
    (0x04, "error warning"),
    (0x80, "bus error"),
)


class Checkup:
    """When to ask what, and what the answer means. One thread; monotonic ns.

    ``problem`` is set, for good, once an answer is another one than before, or missing.
    ``condition`` is what the last answer said of the bus, if that is bad.
    """

    def __init__(self, adapter: Adapter, now_ns: int) -> None:
        self.problem: str | None = None
        self.condition = ""
        self._status = adapter.status
        self._version = adapter.version and adapter.version.encode("ascii")
        self._patience_ns = max(_ANSWER_NS, 2 * adapter.answer_ns)
        # Ignored while the channel is open; if it was closed, it is open again.
        repeated = b"".join(adapter.commands) if adapter.dialect.repeatable else b""
        self._question = b"F" + CR if adapter.status else repeated + b"V" + CR
        self._asks = bool(adapter.status or adapter.version)
        self._due_ns = now_ns + _QUIET_NS
        self._until_ns: int | None = None
        self._heard = False  # since the question

    @property
    def is_answered_in_turn(self) -> bool:
        """Whether the answer may look like one to a transmit."""
        return self._status is not None

    @property
    def is_waiting(self) -> bool:
        return self._until_ns is not None

    def due_ns(self) -> int | None:
        """When :meth:`question` or :meth:`expired` is to be called."""
        if not self._asks:
            return None
        return self._due_ns if self._until_ns is None else self._until_ns

    def heard(self, now_ns: int) -> None:
        """A frame or an acknowledgement came, so the channel is open."""
        self._heard = True
        if not self.condition:
            self._due_ns = now_ns + _QUIET_NS

    def question(self, now_ns: int) -> bytes:
        """What to ask now; empty if nothing."""
        if not self._asks or self._until_ns is not None or now_ns < self._due_ns:
            return b""
        self._until_ns = now_ns + self._patience_ns
        self._heard = False
        return self._question

    def postpone(self, now_ns: int) -> None:
        """The question that was just returned was not asked."""
        self._until_ns = None
        self._due_ns = now_ns + _QUIET_NS

    def answers(self, line: bytes, terminator: bytes) -> bool:
        """Whether a line is the answer that is waited for. Notes what it means."""
        if self._until_ns is None:
            return False
        if self._status is None:
            if line != self._version:
                return False
        else:
            kind = status_kind(line, terminator)
            if kind is None:
                return False
            self.condition = condition_of(line) if kind == STATUS else ""
            if kind != self._status:
                closed = kind == REFUSED
                self.problem = "closed its channel: something else has opened it, or it was reset"
                if not closed:
                    self.problem = f"answers F with {line!r}, and did not before"
        self._until_ns = None
        self._due_ns += _QUIET_NS
        return True

    def expired(self, now_ns: int) -> bool:
        """Whether the answer is overdue. It is no ``problem`` if others have come meanwhile: an
        adapter that has no room for an answer beside its frames drops it."""
        if self._until_ns is None or now_ns < self._until_ns:
            return False
        if self._heard:
            self.postpone(now_ns)
            return True
        self.problem = f"has not answered for {self._patience_ns / SECOND:g} s"
        return True


def condition_of(line: bytes) -> str:
    """What an answer to ``F`` says of the bus; empty if nothing, or if it is none."""
    try:
        flags = int(line[1:], 16)
    except ValueError:
        return ""
    return next((words for bit, words in _CONDITIONS if flags & bit), "")
