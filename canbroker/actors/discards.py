"""Clients that take back what they have asked a channel to transmit. Send thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import msgspec

from canbroker.actors.accounts import Account
from canbroker.fabric.requests import Caller
from canbroker.wire import control

#: Requests that wait, of each kind; the oldest are never answered.
_MAX_WAITING: Final = 1024

#: Drops what waits of an account, and says how much.
Drop: TypeAlias = Callable[[Account], int]


class Discards:
    """Serves the method ``discard``."""

    def __init__(self) -> None:
        self._coming: list[tuple[Caller, control.Discard]] = []  # what they speak of is to arrive
        self._leaving: list[tuple[Caller, Account, int]] = []  # the driver has some of it

    def ask(self, caller: Caller, params: control.Discard) -> None:
        """:meth:`serve` does it."""
        self._coming = [*self._coming[1 - _MAX_WAITING :], (caller, params)]

    def serve(
        self,
        accounts: Mapping[str, Account],
        drop: Drop,
        reply: Callable[[Caller, msgspec.Struct], None],
    ) -> None:
        """Does what can be done now, and answers it."""
        coming, self._coming = self._coming, []
        for caller, params in coming:
            account = accounts.get(params.client_id)
            if params.token and (account is None or account.token < params.token):
                self._coming.append((caller, params))
                continue
            count = 0 if account is None else drop(account)
            if account is not None and params.through:
                self._leaving = [*self._leaving[1 - _MAX_WAITING :], (caller, account, count)]
            else:
                reply(caller, control.Discarded(count))
        leaving, self._leaving = self._leaving, []
        for caller, account, count in leaving:
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
        self._coming, self._leaving = [], []
