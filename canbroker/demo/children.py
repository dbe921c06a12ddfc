"""The demonstration's processes, and the lines that they print."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self, cast

from canbroker.errors import CanOperationError
from canbroker.system.descriptors import is_closed_pipe
from canbroker.system.processes import apart

_LEAVE_S: Final = 5.0
_CHUNK: Final = 65_536
_LOG_TAIL: Final = 2_000


class Child:
    """A process that reads commands from standard input and prints lines.

    It leads its own session: Ctrl-C reaches only the demonstration, which ends it in order.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self._log = log
        self._unread = b""
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                **apart(),
            )
        self._input = cast(IO[bytes], self._process.stdin)
        self._output = cast(IO[bytes], self._process.stdout)
        self._descriptor = self._output.fileno()

    def tell(self, line: str) -> None:
        """Sends it a command.

        :raises CanOperationError: it has ended.
        """
        try:
            self._input.write(line.encode() + b"\n")
            self._input.flush()
        except OSError as error:
            if not is_closed_pipe(error):
                raise
            raise CanOperationError(f"{self.name} has ended: {self.complaint()}") from error

    def end(self) -> None:
        """Tells it to end, by closing its input."""
        self._input.close()

    def lines(self) -> list[str] | None:
        """The next lines that it prints; waits for some. ``None`` when it has ended."""
        data = os.read(self._descriptor, _CHUNK)
        *lines, self._unread = (self._unread + data).split(b"\n")
        return [line.decode().rstrip("\r") for line in lines] if data else None

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self) -> int:
        """Waits for its exit code; it has closed its output, so it is about to end."""
        return self._process.wait(_LEAVE_S)

    def complaint(self) -> str:
        """The last lines that it wrote to standard error."""
        return self._log.read_text(errors="replace")[-_LOG_TAIL:].strip()

    def end_by_force(self) -> None:
        """Ends it, by force if necessary, and waits for that."""
        try:
            self._input.close()
        except OSError as error:  # it ended before it had read everything
            if not is_closed_pipe(error):
                raise
            self._unread = b""
        self._process.terminate()
        try:
            self._process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Closes its output, after its end."""
        self._output.close()


class Children:
    """Starts processes, collects their lines, and ends all of them when its context is left."""

    def __init__(self, directory: Path) -> None:
        """``directory`` is their runtime directory, and receives their logs."""
        self._directory = directory
        self._environment = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}
        self._said: queue.SimpleQueue[tuple[Child, list[str] | None]] = queue.SimpleQueue()
        self._children: list[Child] = []
        self._listening: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for child in reversed(self._children):
            child.end_by_force()
        for thread in self._listening:  # each ends with its child's output
            thread.join(_LEAVE_S)
        for child in self._children:
            child.close()

    def start(self, name: str, command: Sequence[str]) -> Child:
        child = Child(name, command, self._environment, self._directory / f"{name}.log")
        self._children.append(child)
        # A thread for each: Windows cannot wait for pipes.
        thread = threading.Thread(target=self._listen, args=(child,), name=name, daemon=True)
        self._listening.append(thread)
        thread.start()
        return child

    def lines(self, timeout: float) -> Iterator[tuple[str, str]]:
        """Waits up to ``timeout`` seconds for output; yields (name, line) for each line.

        :raises CanOperationError: a process has failed.
        """
        try:
            child, lines = self._said.get(timeout=timeout)
        except queue.Empty:
            return
        if lines is None:
            self._check(child)
            return
        for line in lines:
            yield child.name, line

    def _listen(self, child: Child) -> None:
        while True:
            lines = child.lines()
            self._said.put((child, lines))
            if lines is None:
                return

    def _check(self, child: Child) -> None:
        code = child.wait()
        if code:
            raise CanOperationError(
                f"{child.name} ended with {code}: {child.complaint() or 'it does not say why'}"
            )
