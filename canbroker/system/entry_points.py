"""What canbroker starts with ``python -m``, in one table."""

from __future__ import annotations

import enum
import sys
from collections.abc import Sequence


class EntryPoint(enum.StrEnum):
    """A module that runs in a process of its own."""

    BROKER = "canbroker.broker"
    ACTOR = "canbroker.actors.process"
    COMMAND = "canbroker.cli"
    CONVERSION = "canbroker.actors.recorder.conversion"
    MF4_READING = "canbroker.logs.mf4_reading"
    DETECTION = "canbroker.backends.python_can.detection"
    DEMO_ADAPTER = "canbroker.demo.adapter"
    DEMO_CLIENT = "canbroker.demo.client"

    def command(self, *arguments: str) -> list[str]:
        """The command that starts the module with these arguments.

        ``-P``: the user's working directory may have a ``serial.py`` that is not pyserial.
        """
        return [sys.executable, "-P", "-m", self.value, *arguments]

    def is_in(self, command: Sequence[str]) -> bool:
        """Whether the command of a process, as the system shows it, runs this module."""
        return self.value in command
