"""Reopens an adapter without blocking the keeper, which must stay able to answer and to end."""

from __future__ import annotations

import logging
import threading
from typing import Final

from canbroker.actors.channel.messages import Crashed, KeeperMessage, Opened
from canbroker.actors.mailbox import Mailbox
from canbroker.backends import Backend, Options, open_backend
from canbroker.errors import CanError

#: How long the end waits for an opening in progress, so that the adapter is closed properly.
_END_S: Final = 1.0

_logger = logging.getLogger(__name__)


class Opening:
    """One attempt to open an adapter, in a thread of its own. Sends the keeper ``Opened``.

    A network connection or a vendor's driver may take seconds to fail, longer than the broker
    waits for a channel to end; hence the thread.
    """

    def __init__(self, interface: str, options: Options, keeper: Mailbox[KeeperMessage]) -> None:
        self.options = options
        self._interface = interface
        self._keeper = keeper
        self._lock = threading.Lock()
        self._given_up = False
        self._backend: Backend | None = None
        self._thread = threading.Thread(target=self._run, name="open", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """[keeper] Closes the adapter if it was opened and not used; abandons a slower attempt."""
        self._thread.join(_END_S)
        with self._lock:
            self._given_up = True
            if self._backend is not None:
                self._backend.close()

    def _run(self) -> None:
        try:
            backend = open_backend(self._interface, self.options)
        except CanError as error:
            self._keeper.put(Opened(None, str(error)))
            return
        except Exception:
            _logger.exception("opening %s crashed", self._interface)
            self._keeper.put(Crashed("open"))
            return
        with self._lock:
            self._backend = backend
            if self._given_up:
                backend.close()
                return
        self._keeper.put(Opened(backend))
