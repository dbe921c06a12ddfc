"""Clients that take back what they have asked a channel to transmit. Send thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import msgspec

from canbroker.actors.channel.accounts import Account
from canbroker.transport.replier import Caller
from canbroker.wire import control

#: Requests that wait, of each kind; the oldest are never answered.
_MAX_WAITING: Final = 1024

#: Drops what waits of an account, and says how much.
Drop: TypeAlias = Callable[[Account], int]


class Discards:
    """Serves the method ``discard``."""

    def __init__(self) -> None:
        # What they speak of is to arrive; and of what they spoke the driver has some.
        self._coming: deque[tuple[Caller, control.Discard]] = deque(maxlen=_MAX_WAITING)
        self._leaving: deque[tuple[Caller, Account, int]] = deque(maxlen=_MAX_WAITING)

    def ask(self, caller: Caller, params: control.Discard) -> None:
        """:meth:`serve` does it."""
        self._coming.append((caller, params))

    def serve(
        self,
        accounts: Mapping[str, Account],
        drop: Drop,
        reply: Callable[[Caller, msgspec.Struct], None],
    ) -> None:
        """Does what can be done now, and answers it."""
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
        """Answers all that wait."""
        callers = [caller for caller, _ in self._coming]
        callers += [caller for caller, _, _ in self._leaving]
        for caller in callers:
            reply(caller, error)
        self._coming.clear()
        self._leaving.clear()
