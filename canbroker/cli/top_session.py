"""What ``canbroker top`` can do with its channel: decode, send, save, list clients and tasks.

Methods that may wait are called in threads; :attr:`Session.message` has their results.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from canbroker.bus.history import recent_frames
from canbroker.cli.common import outgoing
from canbroker.cli.record_last import save_recent
from canbroker.cli.tables import program_name
from canbroker.cli.top_rows import Shown
from canbroker.client import Bus
from canbroker.errors import CanError
from canbroker.logs.candump import parse_frame
from canbroker.model.frame import EchoFrame, Frame, identifier_text
from canbroker.model.wording import printable
from canbroker.system import clock
from canbroker.system.closing import Closing
from canbroker.view.follower import Follower
from canbroker.view.running import RunningBroker
from canbroker.view.tasks import running_tasks
from canbroker.wire.status import ChannelStatus
from canbroker.wire.tasks import TaskStatus

if TYPE_CHECKING:
    from canbroker.signals.decoder import Decoder

_TAKEN_S: Final = 1.0

#: What is saved: the recent past, from the channel's ring.
SAVED_S: Final = 60.0

#: A panel is a part of a screen.
_MOST_LINES: Final = 200


class Session(Closing):
    """One channel. ``message``: what was done last, or why it could not be done."""

    def __init__(
        self, follower: Follower, bus: Bus, broker: str | None, decoder: Decoder | None
    ) -> None:
        """
        :param bus: the follower's.
        :param broker: its broker's address.
        """
        self.follower = follower
        self.message = ""
        self._bus = bus
        self._broker = broker
        self._decoder = decoder
        self._answer: tuple[ChannelStatus | None, Sequence[TaskStatus]] = None, ()

    def close(self) -> None:
        """Closes the follower, and with it the bus. Idempotent."""
        self.follower.close()

    @property
    def has_names(self) -> bool:
        """Whether there is a database."""
        return self._decoder is not None

    def name_of(self, frame: EchoFrame) -> str | None:
        """The name of the message that a frame carries, if a database has it."""
        return None if self._decoder is None else self._decoder.name_of(frame)

    # ------------------------------------------------------------------------------- in threads

    def send(self, text: str) -> None:
        """Sends the frame that ``text`` spells, and waits until the driver has taken it."""
        try:
            frame = parse_frame(text)
        except ValueError as error:
            self.message = str(error)
            return
        try:
            self._bus.send(outgoing(frame), timeout=_TAKEN_S)
        except CanError as error:
            self.message = f"not sent: {printable(str(error))}"
        else:
            self.message = f"sent {text}"

    def save(self, name: str) -> None:
        """Writes the frames of the last minute to a file, whose suffix says the format."""
        try:
            recent = recent_frames(self._broker, self.follower.channel, SAVED_S)
            self.message = printable(
                "; ".join(reversed(save_recent(recent, Path(name).expanduser())))
            )
        except CanError as error:
            self.message = f"not saved: {printable(str(error))}"
        except click.ClickException as error:
            self.message = f"not saved: {printable(error.message)}"

    def ask(self) -> None:
        """Asks the broker for the channel's clients and tasks."""
        name = self.follower.channel
        try:
            with RunningBroker(self._broker) as running:
                status = running.status()
                tasks = running_tasks(status, (), running.context)
        except CanError as error:
            self.message = printable(str(error))
            return
        channel = next((each for each in status.channels if each.name == name), None)
        self._answer = channel, [task for task in tasks if task.channel == name]

    # ---------------------------------------------------------------------------------- panels

    def describe(self, row: Shown | None, width: int) -> list[str]:
        """A row in full: all of its data, and its signals."""
        if row is None:
            return ["no row"]
        frame = row.frame
        data = frame.data if isinstance(frame.data, int) else frame.data.hex(" ").upper()
        step = max(3, width - 1) // 3 * 3  # whole bytes
        text = str(data)
        lines = [
            f"{row.identifier} {'tx of ' + printable(frame.origin or '?') if row.is_sent else 'rx'}"
        ]
        lines += [text[at : at + step] for at in range(0, len(text), step)]
        return [line[:width] for line in (lines + self._signals(frame))[:_MOST_LINES]]

    def _signals(self, frame: Frame) -> list[str]:
        if self._decoder is None:
            return ["no database: start with --dbc FILE"]
        decoded = self._decoder.decode(frame)
        if decoded is None:
            return ["no message of the database"]
        lines = [printable(decoded.message)]
        if decoded.problems:
            lines.append(f"does not decode: {printable(decoded.problems)}")
        return lines + [
            f"  {printable(signal.name)}: {printable(str(signal))}" for signal in decoded.signals
        ]

    def clients_and_tasks(self, width: int) -> list[str]:
        """Clients and tasks, a line for each."""
        channel, tasks = self._answer
        if channel is None:
            return ["clients and tasks: asking the broker"]
        lines = [f"{len(channel.clients)} clients, {len(tasks)} tasks"]
        lines += [
            f"client {client.pid or '?':>8}  missed {client.gone}  "
            f"{printable(program_name(client.program))}  {printable(client.filters or 'all')}"
            for client in channel.clients
        ]
        lines += [_task_line(task) for task in tasks]
        return [line[:width] for line in lines[:_MOST_LINES]]


def _task_line(task: TaskStatus) -> str:
    late = (
        "" if task.late_p99_ns is None else f"  late {task.late_p99_ns / clock.MILLISECOND:.2f} ms"
    )
    return (
        f"task {identifier_text(task.arbitration_id, task.extended)}  "
        f"every {task.period_ns / clock.MILLISECOND:g} ms  sent {task.sent:,}  "
        f"skipped {task.skipped:,}  failed {task.failed:,}{late}  {task.mode}"
    )
