"""``canbroker top`` in a real terminal: tmux's. What it shows there, and how it leaves it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from canbroker import Bus, Message
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.runtime import Runtime
from tests.support.brokers import wait_until

pytestmark = pytest.mark.long

pytest.importorskip("textual", reason="needs the extra top")

DEADLINE_S: Final = 30.0


class Terminal:
    """A terminal of 80 x 24 with a shell; ``tmux`` of its own, with nobody's configuration.

    The shell exports its size, as shells do that were started by a program with GNU Readline.
    """

    def __init__(self, directory: Path) -> None:
        self._socket = str(directory / "tmux")
        self._is_closed = False
        self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24",
            "env PS1='$ ' COLUMNS=80 LINES=24 bash --norc --noprofile",
        )  # fmt: skip
        wait_until(lambda: "$" in self.text(), "there is a shell", DEADLINE_S)

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", self._socket, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def type(self, *keys: str) -> None:
        """Keys by tmux's names; other words letter by letter."""
        self._tmux("send-keys", *keys)

    def text(self) -> str:
        return self._tmux("capture-pane", "-p")

    def resize(self, width: int, height: int) -> None:
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def modes(self) -> str:
        """Alternate screen, cursor, mouse."""
        return self._tmux("display", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}")

    def settings(self) -> str:
        """Of the terminal's line, as stty has them."""
        tty = self._tmux("display", "-p", "#{pane_tty}").strip()
        with open(tty, "rb") as line:  # noqa: PTH123 - a device
            asked = ["/usr/bin/stty", "-g"]
            return subprocess.run(
                asked, stdin=line, check=True, capture_output=True, text=True
            ).stdout

    def process(self) -> psutil.Process:
        """The program that the shell runs."""
        (program,) = psutil.Process(int(self._tmux("display", "-p", "#{pane_pid}"))).children()
        return program

    def wait(self, text: str) -> str:
        wait_until(lambda: text in self.text(), f"{text!r} is on the screen", DEADLINE_S)
        return self.text()

    def close(self) -> None:
        """Closes its window, and with it what runs there. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._tmux("kill-server")


@pytest.fixture
def terminal(runtime: Runtime) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    directory = Path(tempfile.mkdtemp(prefix="cb-tmux-", dir="/tmp"))
    terminal = Terminal(directory)
    yield terminal
    terminal.close()
    shutil.rmtree(directory)


@pytest.fixture
def other(runtime: Runtime) -> Iterator[Bus]:
    with Bus("x", "virtual", bitrate=500_000) as other:
        yield other


def run(terminal: Terminal, *channel: str) -> None:
    command = shlex.join(EntryPoint.COMMAND.command("top", *channel))
    terminal.type(f"clear; {command}; echo code $?", "Enter")
    terminal.wait("q quit")


def start(terminal: Terminal, other: Bus) -> None:
    """Starts it, and shows it frames."""
    run(terminal, "virtual.x")
    for number in range(30):
        message = Message(arbitration_id=0x100 + number, data=bytes(8), is_extended_id=False)
        other.send(message, timeout=5)
    terminal.wait("100 tx")


def has_ended(program: psutil.Process) -> bool:
    """Also if nobody has asked for its exit code: its parent has ended."""
    try:
        return program.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def is_last(terminal: Terminal, height: int, text: str) -> bool:
    """Whether the last line of the terminal begins with a text."""
    lines = terminal.text().splitlines()
    return len(lines) == height and lines[-1].startswith(text)


def test_it_fills_the_terminal_and_follows_its_size(terminal: Terminal, other: Bus) -> None:
    start(terminal, other)
    lines = terminal.text().splitlines()
    assert lines[0].startswith("virtual.x  active  500k  load")
    assert lines[2].startswith("id▼")
    assert lines[2].endswith("data")
    row = next(line for line in lines if "100 tx" in line)
    assert row.rstrip("▁▂▃▄▅▆▇█ ").endswith("00 00 00 00 00 00 00 00")
    assert lines[23].startswith("q quit")
    terminal.resize(60, 12)
    wait_until(lambda: is_last(terminal, 12, "q quit"), "the last line is the last", DEADLINE_S)
    terminal.type("s")
    terminal.wait("count▼")
    terminal.type("q")
    terminal.wait("code 0")


def test_one_of_several_channels_is_chosen(terminal: Terminal, other: Bus) -> None:
    with Bus("y", "virtual", bitrate=250_000):
        run(terminal)
        terminal.wait("virtual.y")
        terminal.type("Down", "Enter")
        terminal.wait("virtual.y  active  250k  load")
        terminal.type("o")
        terminal.wait("Esc back")
        terminal.type("C-c")
        terminal.wait("code 0")


@pytest.mark.parametrize("way", ["C-c", "q", "SIGINT", "SIGTERM", "SIGHUP"])
def test_the_terminal_is_left_as_it_was(terminal: Terminal, other: Bus, way: str) -> None:
    modes, settings = terminal.modes(), terminal.settings()
    start(terminal, other)
    assert terminal.modes() != modes
    assert terminal.settings() != settings
    if way.startswith("SIG"):
        number = signal.Signals[way]
        os.kill(terminal.process().pid, number)
        terminal.wait(f"code {128 + number}")
    else:
        terminal.type(way)
        terminal.wait("code 0")
    assert terminal.modes() == modes
    assert terminal.settings() == settings
    assert "Traceback" not in terminal.text()


def test_it_ends_with_its_terminal(terminal: Terminal, other: Bus) -> None:
    start(terminal, other)
    program = terminal.process()
    terminal.close()
    wait_until(lambda: has_ended(program), "it has ended", DEADLINE_S)
