"""Periodic frames that a channel's driver sends by itself, for the scheduler. Send thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from canbroker.backends import Backend, Repetition
from canbroker.system import clock
from canbroker.transport.replier import Caller, Handler
from canbroker.wire import control
from canbroker.wire.stream import Holder, locked_by
from canbroker.wire.tasks import Repeat, RepeatCount, RepeatCounts, Repeating, TaskKey

#: A scheduler asks for the counts every second. If it has not asked for this long, it can no longer
#: stop anything, and all repetitions end.
LEASE_NS: Final = 10 * clock.SECOND


class Repeats:
    """Serves the control methods of repetitions. Times are monotonic ns."""

    def __init__(self, answer_when_published: Callable[[Caller], None]) -> None:
        """``answer_when_published`` answers a caller once all frames that were on the bus before
        have been published."""
        self._answer_when_published = answer_when_published
        self._backend: Backend | None = None
        self._holder: Holder | None = None  # the only client that may transmit, if there is one
        self._scheduler = b""  # its connection
        self._renewed = False  # the scheduler has asked for something since the last step
        #: When all repetitions end if the scheduler stays silent; ``None`` while there are none.
        self.lease_ns: int | None = None
        self.handlers: Mapping[str, Handler] = {
            "repeat": self._repeat,
            "repeat_stop": self._stop,
            "repeat_counts": self._counts,
        }

    def use(self, backend: Backend | None) -> None:
        """Uses this adapter from now on; the repetitions of the one before ended with it."""
        self._backend = backend
        self._renewed = False
        self.lease_ns = None

    def lock(self, holder: Holder | None) -> None:
        """Ends and refuses the repetitions of all other clients; ``None``: everyone may repeat."""
        self._holder = holder
        if holder is not None:
            self._end(lambda owner: owner != holder.client_id)

    def forget(self, client_id: str) -> None:
        """Ends the repetitions of a client that has left."""
        self._end(lambda owner: owner == client_id)

    def step(self, now_ns: int) -> None:
        """Ends all repetitions if the scheduler has been silent for too long."""
        if self._renewed:
            self._renewed = False
            self.lease_ns = now_ns + LEASE_NS
        elif self.lease_ns is not None and now_ns >= self.lease_ns:
            self.lease_ns = None
            self._end(lambda _: True)

    def _end(self, ends: Callable[[str], bool]) -> None:
        """Ends the repetitions of the clients for which ``ends`` is true."""
        if self._backend is not None:
            for key in self._backend.repeated():
                if ends(key[0]):
                    self._backend.stop_repeating(key)

    def _repeat(self, caller: Caller, params: Repeat) -> Repeating | control.ErrorResult:
        backend = self._able_backend()
        if isinstance(backend, control.ErrorResult):
            return backend
        if self._holder is not None and self._holder.client_id != params.client_id:
            return Repeating(repeating=False, reason=locked_by(self._holder))
        self._scheduler = caller.identity
        self._renewed = True
        reason = backend.repeat(
            Repetition(
                key=(params.client_id, params.task),
                frames=params.messages,
                period_ns=params.period_ns,
                due_ns=params.due_ns,
            )
        )
        return Repeating(repeating=reason is None, reason=reason or "")

    def _stop(self, caller: Caller, params: TaskKey) -> None:
        if self._backend is not None:
            self._backend.stop_repeating((params.client_id, params.task))
        self._answer_when_published(caller)

    def _counts(self, caller: Caller, _: control.Params) -> RepeatCounts | control.ErrorResult:
        backend = self._able_backend()
        if isinstance(backend, control.ErrorResult):
            return backend
        if self.lease_ns is not None and caller.identity == self._scheduler:
            self._renewed = True
        return RepeatCounts(
            tasks=[
                RepeatCount(client_id=client_id, task=task, sent=sent)
                for (client_id, task), sent in backend.repeated().items()
            ]
        )

    def _able_backend(self) -> Backend | control.ErrorResult:
        """The adapter if it can repeat frames, else the error to answer with."""
        if self._backend is None:
            return control.ErrorResult("down", "the adapter is not open")
        if not self._backend.repeats:
            return control.ErrorResult("unsupported", "this interface cannot repeat frames")
        return self._backend
