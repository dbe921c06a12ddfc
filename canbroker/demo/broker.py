"""The demonstration's view of the broker that its clients have started."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from canbroker.bus.discovery import ask, stop_broker
from canbroker.errors import CanOperationError
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import SharedContext
from canbroker.wire import control
from canbroker.wire.status import BrokerStatus, ChannelStatus

_ANSWER_S: Final = 5.0
_STOP_S: Final = 15.0


class BrokerView:
    """Asks the broker of a runtime directory, and stops it when its context is left."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._context = SharedContext()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        finally:
            self._context.close()

    def status(self) -> BrokerStatus:
        """The broker's status.

        :raises CanError: it does not answer.
        """
        return ask(
            self._context,
            self._runtime,
            "status",
            control.Params(),
            BrokerStatus,
            _ANSWER_S,
        )

    def channel(self) -> ChannelStatus:
        """The one channel of the broker.

        :raises CanError: the broker does not answer, or has none.
        """
        channels = self.status().channels
        if not channels:
            raise CanOperationError(f"the broker at {self._runtime.address} has no channel")
        return channels[0]

    def stop(self) -> None:
        """Stops the broker, if one was started; returns when it has left.

        :raises CanTimeoutError: it does not leave.
        """
        stop_broker(self._runtime, _STOP_S)
