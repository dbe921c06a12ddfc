"""Kills recorders at random moments, in every format at once, and compares the accounts.

Run it with ``make kills-record``. It needs the packages of all formats.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from canbroker.bus.recording import start_recording, stop_recording
from canbroker.logs.formats import FORMATS
from canbroker.transport.runtime import Runtime
from canbroker.wire.recordings import RecordingStatus
from tests.support.brokers import private_runtime, status_of, wait_until
from tests.support.ledger import Sender
from tests.support.recorded import recorded

_RATE: Final = 1000
_PATIENCE_S: Final = 60.0


def main() -> int:
    """Returns the exit code: 1 if an account is not exact."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="kills of each recorder")
    parser.add_argument("--formats", nargs="*", default=list(FORMATS))
    parser.add_argument("--rate", type=int, default=_RATE, help="frames a second")
    arguments = parser.parse_args()
    with private_runtime() as runtime, tempfile.TemporaryDirectory() as directory:
        sent = _record(runtime, Path(directory), arguments)
        failed = 0
        for kind in arguments.formats:
            found = recorded(Path(directory), kind)
            in_files, known = len(found.numbers), len(found.numbers) + found.lost
            is_ordered = found.numbers == sorted(set(found.numbers))
            failed += known != sent or not is_ordered
            print(  # noqa: T201
                f"{kind:8} files {len(found.sides):3}  frames {in_files:8,}  lost {found.lost:4}  "
                f"of {sent:,}{'' if known == sent and is_ordered else '  WRONG'}",
                flush=True,
            )
        if failed:
            print(runtime.log_path.read_text()[-3000:])  # noqa: T201
    return bool(failed)


def _record(runtime: Runtime, directory: Path, arguments: argparse.Namespace) -> int:
    """Records while recorders are killed; returns how many frames were sent."""
    chance = random.Random()
    for kind in arguments.formats:
        options = {"channels": ["x"], "interface": "virtual", "format": kind, "rotate_s": 20}
        start_recording(kind, {**options, "directory": str(directory)}, None)
    with Sender(("x", "virtual"), 0x100, arguments.rate, each=10) as sender:
        sender.start()
        for _ in range(arguments.count):
            for kind in chance.sample(arguments.formats, len(arguments.formats)):
                _kill(runtime, kind, chance)
        sent = sender.stop()
        assert not sent.failed
        for kind in arguments.formats:
            _wait_until_it_runs(runtime, kind)
            stop_recording(kind, None)
    wait_until(lambda: not list(directory.glob("*.part")), "all is converted", _PATIENCE_S)
    return sent.confirmed


def _status(runtime: Runtime, kind: str) -> RecordingStatus:
    return next(each for each in status_of(runtime).recordings if each.name == kind)


def _wait_until_it_runs(runtime: Runtime, kind: str) -> None:
    wait_until(lambda: _status(runtime, kind).phase == "running", f"{kind} records", _PATIENCE_S)


def _kill(runtime: Runtime, kind: str, chance: random.Random) -> None:
    _wait_until_it_runs(runtime, kind)
    signal.sigtimedwait([], chance.uniform(0, 1.2))
    pid = _status(runtime, kind).pid
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: _status(runtime, kind).pid != pid, f"{kind} is killed", _PATIENCE_S)


if __name__ == "__main__":
    sys.exit(main())
