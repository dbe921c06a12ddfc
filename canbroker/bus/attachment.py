"""What the broker knows of a bus, and how it is told that the bus has ended."""

from __future__ import annotations

import logging
from typing import Final

from canbroker.bus.brokers import Broker
from canbroker.bus.life import Life
from canbroker.errors import CanError
from canbroker.wire import control

#: A broker answers at once; one that is stopped or gone is not waited for.
_DETACH_S: Final = 0.5

_logger = logging.getLogger("canbroker.bus")


class Attachment:
    """Detaches at the end of a bus, if the broker was ever asked to attach it."""

    def __init__(self, life: Life, broker: Broker, client_id: str) -> None:
        self._broker = broker
        self._client_id = client_id
        self._is_known = False
        life.at_end(self._detach)

    def attaching(self, begun: bool) -> None:
        """Whether the broker may know us from now on: we are about to ask, or it has refused."""
        self._is_known = begun

    def _detach(self) -> None:
        """Tells the broker, which would otherwise have to find out."""
        if not self._is_known:
            return
        try:
            self._broker.tell("detach", control.Detach(client_id=self._client_id), _DETACH_S)
        except CanError as error:
            _logger.debug("the broker did not confirm that we left: %s", error)
