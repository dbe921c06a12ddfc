"""The simulated adapter as a process; its argument is a :class:`SimulatorOptions` as JSON.

It ends with its standard input, so no adapter is left behind when the demonstration is killed.
"""

from __future__ import annotations

import os
import sys
import threading

import msgspec

from canbroker.errors import CanError
from canbroker.simulator import SimulatorOptions, run


def main() -> int:
    """Simulates until told to quit; returns the exit code."""
    options = msgspec.json.decode(sys.argv[1], type=SimulatorOptions)
    read, write = os.pipe()
    threading.Thread(target=_relay, args=(write,), daemon=True).start()
    try:
        with os.fdopen(read) as control:
            return run(options, sys.stdout, control)
    except CanError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _relay(write: int) -> None:
    """Passes commands on; the end of the input becomes the command ``quit``.

    Unbuffered: the interpreter cannot exit while a thread waits inside a buffered read.
    """
    while data := os.read(sys.stdin.fileno(), 4096):
        os.write(write, data)
    os.write(write, b"quit\n")


if __name__ == "__main__":
    sys.exit(main())
