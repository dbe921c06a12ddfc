"""The account of the frames that a client has sent: what is under way, and what became of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from canbroker.bus.failure import Failure, summary
from canbroker.bus.unanswered import Unanswered
from canbroker.model.frame import describe
from canbroker.wire.transmit import Reply, Status

#: Called when the driver has taken all frames up to a token's: the token, and when it took the last
#: one, by the wall clock of the channel's host.
Taken: TypeAlias = Callable[[int, int], None]


class Account:
    """Requests to transmit until they are answered, or given up, and how many frames were sent.

    One thread at a time, except :attr:`unanswered`. ``sent`` counts the frames that the driver
    took, ``failed`` the others. ``on_taken`` may be called again for the same answer. A signal
    handler may raise anywhere in here: each request is answered once, with all of its frames.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.failed = 0
        self.unanswered = 0  # frames
        self.on_taken: Taken | None = None
        self._requests: deque[Unanswered] = deque()
        self._asking = 0  # requests that only ask for answers
        self._failures: list[Failure] = []

    def raise_failures(self) -> None:
        """Raises the failures since the last call."""
        if self._failures:
            error = self._failures[0].error(summary(self._failures))
            self._failures = []
            raise error

    def _book(self, reply: Reply) -> None:
        """Accounts for an answer, by the rules of ``docs/protocol.md``. Idempotent: the link hands
        out the same answer again if an exception has struck in here."""
        if reply.status == Status.OK:
            while self._requests and self._requests[0].token <= reply.token:
                self._pop(0, self._requests[0].count)
            if self.on_taken is not None:
                self.on_taken(reply.token, reply.timestamp_ns)
        elif reply.status == Status.STALE:
            self._give_up(reply.reason, reply.token)
        else:
            for index, request in enumerate(self._requests):
                if request.token == reply.token:
                    request.expired = reply.status == Status.EXPIRED
                    failed = [] if reply.status == Status.DISCARDED else reply.failed
                    is_unknown = reply.status == Status.UNKNOWN
                    what = "is not known to be sent" if is_unknown else "was not sent"
                    told = Failure(f"{what}: {reply.reason}", reply.forbidden)
                    self._fail(index, reply.accepted, failed, told)
                    return

    def _give_up(self, reason: str, until: int | None = None) -> None:
        """Fails the requests that will not be answered: all, or those up to a token.

        The actor that had them may have sent some of their frames.
        """
        while self._requests and (until is None or self._requests[0].token <= until):
            frames = range(len(self._requests[0].frames))
            self._fail(0, 0, frames, Failure(f"is not known to be sent: {reason}"))

    def _fail(self, index: int, sent: int, failed: Sequence[int], told: Failure) -> None:
        """Books a request as answered, some of whose frames were not sent; ``told``: why."""
        request = self._requests[index]
        failures = []
        if not request.asks:
            texts = [f"{describe(request.frames[at])} {told.text}" for at in failed]
            failures = [Failure(text, told.forbidden) for text in texts]
        self._pop(index, sent, failures)
        if request.failed is not None:
            for failure in failures:
                request.failed(failure, request.expired)

    def _pop(self, index: int, sent: int, failures: Sequence[Failure] = ()) -> None:
        """Books a request as answered."""
        failed = self.failed + len(failures)
        # At once.
        request = self._requests[index]
        del self._requests[index]
        self.unanswered -= request.count
        self._asking -= request.asks
        request.answered = True
        self.sent += sent
        self.failed = failed
        if request.failed is None:
            told = request.failures if request.awaited else self._failures
            told += failures
