"""A broker that runs already, for those who look at it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from canbroker.bus import discovery, starting
from canbroker.bus.brokers import remote_broker
from canbroker.errors import CanInitializationError
from canbroker.system.closing import Closing
from canbroker.transport.calls import NoAnswerError
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import SharedContext
from canbroker.wire import control
from canbroker.wire.status import BrokerStatus

if TYPE_CHECKING:
    from canbroker.bus.remote import Met

_T = TypeVar("_T")


class RunningBroker(Closing):
    """A broker that runs: one of this host, or one behind a gateway. Never starts one.

    ``name``: what to call it. ``context``: to reach it, and its actors, as its status names them.
    """

    def __init__(self, address: str | None) -> None:
        """:raises CanInitializationError: none runs at ``address``, or it cannot be reached."""
        self.context = SharedContext()
        self._remote = remote_broker(address, self.context)
        self.runtime: Runtime | None = None
        if self._remote is not None:
            self.name = self._remote.place.describe_broker()
            return
        self.runtime = Runtime.at(address)
        if not starting.is_running(self.runtime):
            raise CanInitializationError(f"no broker at {self.runtime.address}")
        self.name = self.runtime.place.describe_broker()

    def close(self) -> None:
        """Closes the connections to the broker and its actors. Idempotent."""
        if self._remote is not None:
            self._remote.close()
        self.context.close()

    @property
    def met(self) -> Met | None:
        """What it has said of its clock; ``None`` if it is ours."""
        return None if self._remote is None else self._remote.meet()

    def status(self) -> BrokerStatus:
        """Its status, with the addresses by which we reach its actors.

        :raises CanError: as :meth:`ask`.
        """
        status = self.ask("status", BrokerStatus)
        if self._remote is not None:
            reached = self._remote.reached
            status.scheduler.control = str(reached(status.scheduler.control))
            for channel in status.channels:
                channel.stream = str(reached(channel.stream))
                channel.transmit = str(reached(channel.transmit))
                channel.control = str(reached(channel.control))
        return status

    def ask(
        self,
        method: str,
        result: type[_T],
        timeout: float = 5.0,
        params: control.Params | None = None,
    ) -> _T:
        """Its answer to a method, by default one without parameters.

        :raises CanError: the answer is an error, or there is none within ``timeout`` seconds.
        """
        params = control.Params() if params is None else params
        if self.runtime is None:
            if self._remote is None:
                raise CanInitializationError("the broker is not open")
            return self._remote.ask(method, params, result, 2 * timeout)
        try:
            return discovery.ask(self.context, self.runtime, method, params, result, timeout)
        except NoAnswerError as error:
            raise NoAnswerError(f"{self.name} does not answer") from error
