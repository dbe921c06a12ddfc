"""A broker with an adapter that replays a vehicle, its page, and Debian's chromium."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from canbroker.logs.candump import format_frame, format_log_line
from canbroker.model.frame import Frame
from canbroker.simulator.traffic import generate_vehicle
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.runtime import Runtime
from tests.support.brokers import private_runtime
from tests.support.pages import Site, site
from tests.support.simulated import Simulated

CHROMIUM: Final = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

_CONFIG: Final = """
[channels.car]
interface = "slcan"
channel = "{adapter}"
bitrate = 500000

[channels.bench]
interface = "virtual"
bitrate = 500000

[web]
listen = "127.0.0.1:{port}"
transmit = ["100-1FF"]
"""


class Bench:
    """The broker, and what its adapter replays when it is told to ``start``."""

    def __init__(self, page: Site, adapter: Simulated, frames: Sequence[Frame], path: Path) -> None:
        self.page = page
        self.runtime: Runtime = page.runtime
        self.adapter = adapter
        self.frames = frames
        self.config = path

    def last(self) -> dict[str, tuple[int, str]]:
        """Of each identifier: how many frames, and the data of the last one."""
        found: dict[str, tuple[int, str]] = {}
        for frame in self.frames:
            name = format_frame(frame).partition("#")[0]
            assert isinstance(frame.data, bytes)
            found[name] = found.get(name, (0, ""))[0] + 1, frame.data.hex(" ").upper()
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    frames = [entry.frame for entry in generate_vehicle(1.5, seed=7)]
    log = tmp_path / "car.log"
    log.write_text("".join(f"{format_log_line(frame, 'can0')}\n" for frame in frames))
    # As fast as they are read: in the time of the log, a busy host loses some of them.
    replayed = Simulated(replay=str(log), paused=True, rate=0)
    with private_runtime() as runtime, replayed as adapter:
        config = _CONFIG.format(adapter=adapter.path, port=_free_port())
        with site(runtime, tmp_path, config) as page:
            yield Bench(page, adapter, frames, tmp_path / "bench.toml")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture
def browser() -> Iterator[Any]:
    """A browser; each test has another one, so that nothing of it is left behind."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright; make test-web has it"
    )
    if CHROMIUM is None:
        pytest.skip("needs chromium (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Command:
    """``canbroker web`` with options, which serves a page of its own."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            EntryPoint.COMMAND.command("web", "--listen", "127.0.0.1:0", *options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
