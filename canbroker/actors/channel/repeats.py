"""What a channel's driver repeats by itself, for the scheduler. Send thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from canbroker.backends import Backend, Repetition
from canbroker.system import clock
from canbroker.transport.replier import Caller, Handler
from canbroker.wire import control
from canbroker.wire.stream import Holder, locked_by
from canbroker.wire.tasks import Repeat, RepeatCount, RepeatCounts, Repeating, TaskKey

#: A scheduler asks for the counts every second. When nobody does for this long it is not there to
#: stop anything any more, and everything ends.
LEASE_NS: Final = 10 * clock.SECOND


class Repeats:
    """Serves the methods of repeating."""

    def __init__(self, settle: Callable[[Caller], None]) -> None:
        """``settle`` answers a caller when what the bus has seen before has been published."""
        self._settle = settle
        self._backend: Backend | None = None
        self._holder: Holder | None = None  # who alone may transmit
        self._scheduler = b""  # its connection
        self._lease_ns: int | None = None  # the end of it, while anything is repeated
        self.handlers: Mapping[str, Handler] = {
            "repeat": self._repeat,
            "repeat_stop": self._stop,
            "repeat_counts": self._counts,
        }

    def use(self, backend: Backend | None) -> None:
        """The adapter from now on; what another one has repeated ended with it."""
        self._backend = backend
        self._lease_ns = None

    def lock(self, holder: Holder | None) -> None:
        """Ends what is repeated for others than the holder, and refuses more; ``None``: no one."""
        self._holder = holder
        if holder is not None:
            self._end(lambda owner: owner != holder.client_id)

    def forget(self, client_id: str) -> None:
        """Ends what is repeated for a client that has left."""
        self._end(lambda owner: owner == client_id)

    def patience(self) -> int | None:
        """Nanoseconds until :meth:`step` is to be called; ``None``: it is not."""
        return clock.remaining_ns(self._lease_ns)

    def step(self) -> None:
        """Ends everything when the scheduler has not been heard for long."""
        if self._lease_ns is not None and clock.monotonic_ns() >= self._lease_ns:
            self._lease_ns = None
            self._end(lambda _: True)

    def _end(self, concerned: Callable[[str], bool]) -> None:
        if self._backend is not None:
            for key in self._backend.repeated():
                if concerned(key[0]):
                    self._backend.stop_repeating(key)

    def _repeat(self, caller: Caller, params: Repeat) -> Repeating | control.ErrorResult:
        backend = self._able()
        if isinstance(backend, control.ErrorResult):
            return backend
        if self._holder is not None and self._holder.client_id != params.client_id:
            return Repeating(repeating=False, reason=locked_by(self._holder))
        self._scheduler = caller.identity
        self._lease_ns = clock.monotonic_ns() + LEASE_NS
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
        self._settle(caller)

    def _counts(self, caller: Caller, _: control.Params) -> RepeatCounts | control.ErrorResult:
        backend = self._able()
        if isinstance(backend, control.ErrorResult):
            return backend
        if self._lease_ns is not None and caller.identity == self._scheduler:
            self._lease_ns = clock.monotonic_ns() + LEASE_NS
        return RepeatCounts(
            tasks=[
                RepeatCount(client_id=client_id, task=task, sent=sent)
                for (client_id, task), sent in backend.repeated().items()
            ]
        )

    def _able(self) -> Backend | control.ErrorResult:
        if self._backend is None:
            return control.ErrorResult("down", "the adapter is not open")
        if not self._backend.repeats:
            return control.ErrorResult("unsupported", "this interface repeats nothing by itself")
        return self._backend
