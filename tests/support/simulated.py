"""Starts, commands and stops a simulated adapter; and peers that play the adapter themselves."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from canbroker.backends import Backend, Transmit, open_backend, parse_options
from canbroker.model.frame import Frame
from canbroker.system.portable import PORTABLE
from tests.support.pipes import lines_of
from tests.support.systems import skip_on_windows

T = TypeVar("T")

DEADLINE_S = 20.0

#: Firmware that the contracts run over: the three that differ most, or all (`make firmwares`).
FIRMWARES = (
    ("lawicel", "canable", "canable2", "candapter", "arduino", "esp32")
    if os.environ.get("CANBROKER_ALL_FIRMWARES")
    else ("canable", "candapter", "esp32")
)

#: With the priority of an actor: an adapter does not wait for a processor of its host's.
_PROGRAM = """
import sys, msgspec
from canbroker.simulator import SimulatorOptions, run
from canbroker.system.priority import raise_priority
raise_priority()
options = msgspec.json.decode(sys.argv[1], type=SimulatorOptions)
sys.exit(run(options, sys.stdout, sys.stdin))
"""


class Simulated:
    """A simulated adapter in a process of its own.

    ``path`` is what to open; ``link`` what to open again: after a replug the path is another one,
    or, worse, that of somebody else's adapter. Only if it was made with one, or where lines are
    portable, is ``link`` another word for it.
    """

    def __init__(self, directory: Path | None = None, **options: Any) -> None:
        """
        :param directory: gets a link, where lines have one.
        """
        if directory is not None and not PORTABLE:
            options["link"] = str(directory / "ttyCAN")
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self._said = lines_of(self.process.stdout)
        self._events: list[dict[str, Any]] = []
        try:
            self.path = self._line().decode()
            self.link: str = options.get("link") or self.path
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Simulated:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.kill()

    def command(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n".encode())
        self.process.stdin.flush()

    def event(self, name: str) -> dict[str, Any]:
        """The next report of this name; others are kept for later."""
        for index, event in enumerate(self._events):
            if event["event"] == name:
                return self._events.pop(index)
        while (event := json.loads(self._line()))["event"] != name:
            self._events.append(event)
        return event

    def stats(self) -> dict[str, Any]:
        """The ledger as it is now."""
        self.command("stats")
        return self.event("stats")

    def accepted(self) -> list[str]:
        """Frames that the adapter took for transmission, in candump's notation, in order."""
        self.command("accepted")
        frames: list[str] = self.event("accepted")["frames"]
        return frames

    def replug(self) -> str:
        """Plugs the adapter in again; returns its path."""
        self.command("replug")
        self.path = self.event("replugged")["path"]
        return self.path

    def stop(self) -> dict[str, Any]:
        """Quits it; returns the last ledger."""
        self.command("quit")
        ledger = self.event("exit")
        assert self.process.wait(DEADLINE_S) == 0
        return ledger

    def stderr(self) -> str:
        """All that it wrote to stderr; waits for its end."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._said.close()
        for stream in (self.process.stdin, self.process.stderr):
            assert stream is not None
            stream.close()

    def _line(self) -> bytes:
        try:
            return self._said.next(DEADLINE_S)
        except EOFError:
            raise EOFError(f"the simulator ended: {self.stderr()}") from None


class Peer:
    """The adapter's end of a pty in the hands of a test, for exact bytes at exact moments."""

    def __init__(self) -> None:
        skip_on_windows("pseudo-terminals")
        import tty  # noqa: PLC0415 - POSIX only

        self.master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self.heard = b""  # everything that came from the host

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()

    def say(self, data: bytes) -> None:
        os.write(self.master, data)

    def hear(self, data: bytes) -> None:
        """Waits until the host has said ``data``, and forgets all up to its end."""
        deadline = time.monotonic() + DEADLINE_S
        while data not in self.heard:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                raise AssertionError(f"expected {data!r} from the host, got {self.heard!r}")
            self.heard += os.read(self.master, 4096)
        self.heard = self.heard.partition(data)[2]

    def silent(self, seconds: float = 0.05) -> bool:
        """Whether the host has nothing more to say."""
        if select.select([self.master], [], [], seconds)[0]:
            self.heard += os.read(self.master, 4096)
        return not self.heard

    def unplug(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            os.close(self._slave)
            self.master = -1


@contextmanager
def opened_slcan(path: str, **parameters: Any) -> Iterator[Backend]:
    """The slcan backend on a port, at 500 kbit/s unless the parameters say otherwise."""
    options = parse_options("slcan", {"channel": path, "bitrate": 500_000} | parameters)
    backend = open_backend("slcan", options)
    try:
        yield backend
    finally:
        backend.close()


def collect(
    backend: Backend, enough: Callable[[list[Frame | Transmit]], T], into: list[Frame | Transmit]
) -> T:
    """Reads until ``enough`` of what was read is true; waits as the channel actor does."""
    deadline = time.monotonic() + DEADLINE_S
    while not (result := enough(into)):
        now = time.monotonic()
        assert now < deadline, f"got no further than {into!r}"
        due = backend.due_ns()
        wait = 0.2 if due is None else min(0.2, max(0.0, due / 1e9 - now))
        select.select([backend.fileno()], [], [], wait)
        into.extend(backend.read())
    return result


def read_count(backend: Backend, count: int) -> list[Frame | Transmit]:
    """The next ``count`` things that happen, no more and no less."""
    happened: list[Frame | Transmit] = []
    collect(backend, lambda got: len(got) >= count, happened)
    assert len(happened) == count
    return happened
