"""The periodic tasks of a bus. What they need is loaded with the first of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from canbroker.bus.connection import Connection
from canbroker.errors import CanOperationError
from canbroker.system import handles

if TYPE_CHECKING:
    from canbroker.bus.periodic.registry import Periodic
    from canbroker.bus.periodic.task import PeriodicTask


class Tasks:
    """As :class:`Periodic`, which is made with the first task. Any thread."""

    def __init__(self, connection: Connection) -> None:
        self.used = False  # whether there has been any task
        self._connection = connection
        self._closed = False
        self._made: dict[None, Periodic] = {}  # one at most

    def add(self, *arguments: Any, autostart: bool, **options: Any) -> PeriodicTask:
        """As :meth:`Periodic.add`, with the attributes of a :class:`TaskPlan`."""
        try:
            from canbroker.bus.periodic.registry import Periodic  # noqa: PLC0415 - see above
            from canbroker.bus.periodic.task import TaskPlan  # noqa: PLC0415 - likewise
        except OSError as error:
            raise CanOperationError(f"cannot add a task: {handles.explained(error)}") from error
        plan = TaskPlan(*arguments, **options)
        # In one call: another thread may add the first task, too. The link of the one that comes
        # too late stays unconnected, and ends with the bus.
        periodic = self._made.get(None) or self._made.setdefault(None, Periodic(self._connection))
        self.used = True
        if self._closed:
            periodic.close()
        return periodic.add(plan, autostart=autostart)

    def stop_all(self, *, remove: bool) -> None:
        """As :meth:`Periodic.stop_all`."""
        if (periodic := self._made.get(None)) is not None:
            periodic.stop_all(remove=remove)

    def raise_troubles(self) -> None:
        """As :meth:`Periodic.raise_troubles`."""
        if (periodic := self._made.get(None)) is not None:
            periodic.raise_troubles()

    def close(self) -> None:
        """Ends all tasks, for good."""
        self._closed = True
        if (periodic := self._made.get(None)) is not None:
            periodic.close()

    def forget(self) -> None:
        """[forked child] The tasks are the parent's."""
        if (periodic := self._made.get(None)) is not None:
            periodic.forget()
