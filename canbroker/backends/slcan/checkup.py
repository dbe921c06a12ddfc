"""Checks that a quiet adapter is still open; no I/O.

Another program that opens the device, which only some systems prevent, may close the adapter's
channel or change its bit rate; a reset does so, too. The channel is then silent, like an idle bus.
So an adapter that has been quiet for a while gets a question, if it is known to answer: ``F``,
which adapters that follow the manual answer only while they are open, else ``V``.
"""

from __future__ import annotations

from typing import Final

from canbroker.backends.slcan.codec import CR
from canbroker.backends.slcan.handshake import REFUSED, STATUS, Adapter, status_kind
from canbroker.system.clock import SECOND

_QUIET_NS: Final = 2 * SECOND
_ANSWER_NS: Final = 1 * SECOND
NEVER_NS: Final = 2**63

#: Bits of the answer to F (CANUSB Manual), worst first.
_CONDITIONS: Final = (
    (0x20, "error passive"),
    (0x04, "error warning"),
    (0x80, "bus error"),
)


class Checkup:
    """Decides when to ask and evaluates the answers. One thread; monotonic ns.

    ``next_ns``: when to call :meth:`question`, or :meth:`expire` while an answer is pending.
    ``problem`` is set, permanently, when an answer differs from before or is missing.
    ``condition`` is the problem of the bus that the last answer reported; empty if none.
    """

    def __init__(self, adapter: Adapter, now_ns: int) -> None:
        self.problem: str | None = None
        self.condition = ""
        self.is_waiting = False
        #: Whether the answer may look like the answer to a transmit.
        self.is_answered_in_turn = adapter.status is not None
        self._status = adapter.status
        self._version = adapter.version and adapter.version.encode("ascii")
        self._patience_ns = max(_ANSWER_NS, 2 * adapter.answer_ns)
        # The adapter ignores these while it is open; if it was closed, they reopen it.
        is_mute = adapter.acknowledges is False  # else its answers would be mistaken for others
        repeated = b"".join(adapter.commands) if adapter.dialect.repeatable and is_mute else b""
        self._question = b"F" + CR if adapter.status else repeated + b"V" + CR
        asks = bool(adapter.status or adapter.version)
        self.next_ns = now_ns + _QUIET_NS if asks else NEVER_NS
        self._heard = False  # since the question
        self._missed = False  # the answer before

    def heard(self, now_ns: int) -> None:
        """A frame or an acknowledgement came, so the channel is open."""
        if self.is_waiting:
            self._heard = True
        elif self.next_ns != NEVER_NS and not self.condition:
            self.next_ns = now_ns + _QUIET_NS

    def question(self, now_ns: int) -> bytes:
        """The question to write now."""
        self.is_waiting = True
        self.next_ns = now_ns + self._patience_ns
        self._heard = False
        return self._question

    def postpone(self, now_ns: int) -> None:
        """The question was not asked, or is no longer needed."""
        self.is_waiting = False
        self.next_ns = now_ns + _QUIET_NS

    def answers(self, line: bytes, terminator: bytes, now_ns: int) -> bool:
        """Whether a line is the pending answer; evaluates it if so."""
        if not self.is_waiting:
            return False
        if self._status is None:
            if not self._version or line[:2] != self._version[:2]:  # some tell the time, too
                return False
        else:
            kind = status_kind(line, terminator)
            if kind is None:
                return False
            self.condition = condition_of(line) if kind == STATUS else ""
            if kind == REFUSED != self._status:
                self.problem = "closed its channel: something else has opened it, or it was reset"
            elif kind != self._status:
                self.problem = f"answers F with {line!r}, and did not before"
        self._missed = False
        self.postpone(now_ns)
        return True

    def expire(self, now_ns: int) -> None:
        """No answer has come. This is not a ``problem`` the first time, or if other lines have come
        meanwhile: an adapter without room for an answer between its frames drops it."""
        self.postpone(now_ns)
        if self._heard:
            return
        if self._missed:
            self.problem = f"has not answered for {2 * self._patience_ns / SECOND:g} s"
        self._missed = True
        self.next_ns = now_ns


def condition_of(line: bytes) -> str:
    """The problem of the bus in an answer to ``F``; empty if there is none."""
    try:
        flags = int(line[1:], 16)
    except ValueError:
        return ""
    return next((words for bit, words in _CONDITIONS if flags & bit), "")
