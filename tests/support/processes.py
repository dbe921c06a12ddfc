"""Programs that tests run as processes of their own and talk to in lines of JSON."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

from tests.support.pipes import lines_of

DEADLINE_S = 30.0

_PRELUDE = """
import json, sys, time
import canbroker
from canbroker import Bus, Message, ThreadSafeBus

def say(value):
    print(json.dumps(value), flush=True)

def hear():
    return json.loads(sys.stdin.readline())

arguments = json.loads(sys.argv[1])
"""


class Program:
    """A Python program. It has ``arguments``, ``say(value)`` and ``hear()``.

    ``within`` begins its command, for example that of another network namespace; it must keep the
    process.
    """

    def __init__(self, source: str, *within: str, **arguments: Any) -> None:
        source = _PRELUDE + textwrap.dedent(source)
        self.process = subprocess.Popen(
            [*within, sys.executable, "-c", source, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self._said = lines_of(self.process.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self.process.pid

    def tell(self, value: Any) -> None:
        """Sends the program something to ``hear()``."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(value).encode() + b"\n")
        self.process.stdin.flush()

    def said(self, timeout: float = DEADLINE_S) -> Any:
        """The next thing that the program says."""
        try:
            return json.loads(self._said.next(timeout))
        except EOFError:
            raise EOFError(f"the program ended with {self.process.wait()}") from None

    def end(self) -> int:
        """Waits for the program's own end; returns its exit code."""
        return self.process.wait(DEADLINE_S)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self._said.close()


@contextmanager
def busy(processor: int, count: int = 1) -> Iterator[None]:
    """Other processes want all of a processor. Linux only."""
    code = f"import os; os.sched_setaffinity(0, {{{processor}}})\nprint(flush=True)\nwhile True: 0"
    with ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(
                subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()
        yield
