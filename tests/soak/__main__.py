"""``python -m tests.soak``: runs it; an exit code says if it held."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from canbroker.transport.runtime import Runtime
from tests.soak.run import Soak, killed_afterwards
from tests.support.brokers import processes_of, stop_broker


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Soaks in a private runtime directory; returns 1 if it did not hold."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--duration", type=float, default=60, help="seconds")
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    arguments = parser.parse_args()
    # Not a long name: the paths of Unix sockets are short.
    directory = Path(tempfile.mkdtemp(prefix="cb-soak-", dir="/tmp"))
    os.environ["XDG_RUNTIME_DIR"] = str(directory)
    runtime = Runtime.at()
    with killed_afterwards(lambda: processes_of(runtime)):
        held = Soak(runtime, directory, _say).run(
            arguments.duration, arguments.seed, min(30, arguments.duration / 12)
        )
        stop_broker(runtime)
    if held:
        shutil.rmtree(directory)
    else:
        _say(f"what the broker has logged: {runtime.log_path}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
