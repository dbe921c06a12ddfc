"""The simulated adapter as a process; its argument is a :class:`SimulatorOptions` as JSON."""

from __future__ import annotations

import sys

import msgspec

from canbroker.errors import CanError
from canbroker.simulator import SimulatorOptions, run


def main() -> int:
    """Simulates until told to quit; returns the exit code."""
    options = msgspec.json.decode(sys.argv[1], type=SimulatorOptions)
    try:
        return run(options, sys.stdout, sys.stdin)
    except CanError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
