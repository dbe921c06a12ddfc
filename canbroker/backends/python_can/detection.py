"""A process that asks python-can's drivers for adapters, and prints each one as a line of JSON.

Drivers load vendors' libraries, which may hang, print or crash. So this is a process that its
parent ends when it takes too long, and each driver is asked in a thread of its own.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any, TextIO

import can
from can.interfaces import BACKENDS as KNOWN

from canbroker.backends.python_can.failures import DriverError, foreign
from canbroker.backends.python_can.known import driver


def main() -> int:
    """Asks the drivers that the first argument selects (``wanted``, ``without``), all at once."""
    asked = json.loads(sys.argv[1])
    # Standard output is for the results; what drivers print goes to standard error.
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    names = KNOWN.keys() if asked["wanted"] is None else KNOWN.keys() & asked["wanted"]
    lock = threading.Lock()
    threads = [
        threading.Thread(target=_ask, args=(name, results, lock), name=name, daemon=True)
        for name in sorted(names - set(asked["without"]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


def _ask(interface: str, results: TextIO, lock: threading.Lock) -> None:
    try:
        with foreign("detection"):
            found = [dict(config) for config in can.detect_available_configs(interface)]
    except DriverError as error:
        sys.stderr.write(f"{interface}: {error}\n")
        return
    for config in found:
        plain = _opening(interface, config)
        if "channel" in plain:
            line = json.dumps({"interface": interface, **plain})
            with lock:
                results.write(f"{line}\n")
                results.flush()


def _opening(interface: str, config: dict[str, Any]) -> dict[str, Any]:
    """What of it opens that very adapter again.

    Drivers also tell what the adapter is. Only scalars can be written in a configuration.
    """
    needed = driver(interface).needed
    return {
        key: value
        for key, value in config.items()
        if type(value) in _SCALARS and (needed is None or key in needed or key == "channel")
    }


_SCALARS = frozenset({str, int, float, bool})


if __name__ == "__main__":
    sys.exit(main())
