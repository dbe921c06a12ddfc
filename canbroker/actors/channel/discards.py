"""Requests of clients to discard their queued frames. Send thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import msgspec

from canbroker.actors.channel.accounts import Account
from canbroker.transport.replier import Caller
from canbroker.wire import control

#: Pending requests of each kind. When there are more, the oldest are dropped without an answer.
_MAX_WAITING: Final = 1024

#: Drops the queued frames of an account; returns their number.
Drop: TypeAlias = Callable[[Account], int]


class Discards:
    """Serves the method ``discard``."""

    def __init__(self) -> None:
        # Those whose transmit request has not arrived; those with frames that the driver still has.
        self._coming: deque[tuple[Caller, control.Discard]] = deque(maxlen=_MAX_WAITING)
        self._leaving: deque[tuple[Caller, Account, int]] = deque(maxlen=_MAX_WAITING)

    @property
    def waiting(self) -> int:
        """Requests that could not be served yet."""
        return len(self._coming) + len(self._leaving)

    def ask(self, caller: Caller, params: control.Discard) -> None:
        """Queues a request for :meth:`serve`."""
        self._coming.append((caller, params))

    def serve(
        self,
        accounts: Mapping[str, Account],
        drop: Drop,
        reply: Callable[[Caller, msgspec.Struct], None],
    ) -> None:
        """Serves and answers the requests that can be served now."""
        for _ in range(len(self._coming)):
            caller, params = self._coming.popleft()
            account = accounts.get(params.client_id)
            if params.token and (account is None or account.token < params.token):
                self._coming.append((caller, params))
                continue
            count = 0 if account is None else drop(account)
            if account is not None and params.through:
                self._leaving.append((caller, account, count))
            else:
                reply(caller, control.Discarded(count))
        for _ in range(len(self._leaving)):
            caller, account, count = self._leaving.popleft()
            if account.outstanding:
                self._leaving.append((caller, account, count))
            else:
                reply(caller, control.Discarded(count))

    def refuse(
        self, error: control.ErrorResult, reply: Callable[[Caller, msgspec.Struct], None]
    ) -> None:
        """Answers all pending requests with an error."""
        callers = [caller for caller, _ in self._coming]
        callers += [caller for caller, _, _ in self._leaving]
        for caller in callers:
            reply(caller, error)
        self._coming.clear()
        self._leaving.clear()
