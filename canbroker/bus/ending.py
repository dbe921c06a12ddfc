"""How a bus ends: shut down, forgotten, left open at the end of the process, or in a fork."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from canbroker.bus import lifetime
from canbroker.bus.life import Life
from canbroker.bus.ownership import Uncopyable, end_block
from canbroker.bus.tasks import Tasks
from canbroker.errors import CanError


class EndingBus(Uncopyable):
    """The part of a :class:`canbroker.Bus` that ends it. ``Bus.__init__`` sets the attributes."""

    _forgotten = False  # its finalizer runs
    _channel: Any
    _life: Life
    _periodic: Tasks

    def shutdown(self) -> None:
        """As documented in ``Bus``; users may override it."""
        if not self._forgotten:
            self._shut_down()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        end_block(self.shutdown, exc, CanError)

    def __del__(self) -> None:
        life = getattr(self, "_life", None)  # missing if the configuration was wrong
        if life is None or life.over:
            return
        if life.closed is not None:
            lifetime.end_later(life.end_forgotten)
            return
        self._forgotten = True
        try:
            self.shutdown()  # perhaps of a subclass; ours leaves the work to what follows
        finally:
            name = f"<{type(self).__name__} {self._channel!r}>"
            lifetime.forgotten(self, name, self._end_forgotten, "shut down")

    def _shut_down(self) -> None:
        try:
            self._periodic.close()
            closing = self._life.close()
            if closing:
                lifetime.closed(self)
            try:
                self._life.finish()  # an earlier close may have left this to us
            finally:
                if closing:
                    self._periodic.raise_troubles()
        finally:
            self._life.end()

    def _abandon(self) -> None:
        lifetime.end(self, self._end, "shut down")

    def _end(self) -> None:
        try:
            self.shutdown()
        finally:  # a subclass may have a shutdown() that does not call ours
            self._life.end_forgotten()

    def _end_forgotten(self) -> None:
        try:
            self._shut_down()
        finally:
            self._life.end_forgotten()

    def _forked(self) -> None:
        """[forked child]"""
        self._life.forked()
        self._periodic.forget()
