"""``canbroker top`` on real channels: its keys, driven by Textual's pilot, and its plain output."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from canbroker import Bus, Message
from canbroker.cli.common import Opener
from canbroker.cli.top_channels import Channels
from canbroker.signals import load_databases
from canbroker.system.service import ending_signals
from canbroker.transport.runtime import Runtime
from tests.support.commands import run
from tests.support.ledger import serving

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from canbroker.cli.top_app import TopApp

DEADLINE_S: Final = 20.0

DATABASE: Final = """VERSION ""
BU_: ECU
BO_ 256 Engine: 8 ECU
 SG_ Speed : 0|16@1+ (0.1,0) [0|6553.5] "km/h" ECU
"""


def message(arbitration_id: int, data: bytes = b"") -> Message:
    return Message(arbitration_id=arbitration_id, data=data, is_extended_id=False)


class Screen:
    """A screen of 80 x 24 that a test drives."""

    def __init__(self, app: TopApp, pilot: Any) -> None:
        self.app = app
        self._pilot = pilot

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)

    async def resize(self, width: int, height: int) -> None:
        await self._pilot.resize_terminal(width, height)

    def lines(self) -> list[str]:
        """What is on the screen."""
        return [
            "".join(segment.text for segment in strip).rstrip()
            for strip in self.app.screen._compositor.render_strips()
        ]

    async def until(self, is_there: Callable[[list[str]], object]) -> list[str]:
        """The screen as soon as it is as wanted."""
        for _ in range(round(DEADLINE_S / 0.05)):
            await self._pilot.pause(0.05)
            if is_there(lines := self.lines()):
                return lines
        raise AssertionError("not on the screen:\n" + "\n".join(self.lines()))

    async def text(self, wanted: str) -> list[str]:
        return await self.until(lambda lines: any(wanted in line for line in lines))


def identifiers(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines[3:] if " tx " in line or " rx " in line]


@pytest.fixture
def other(runtime: Runtime) -> Iterator[Bus]:
    with Bus("x", "virtual", bitrate=500_000) as other:
        yield other


def drive(
    steps: Callable[[Screen], Awaitable[None]],
    database: str | None = None,
    channel: str | None = "x",
) -> None:
    """Runs the screen in this process, and ``steps`` on it; it shows a channel at first, or a list
    of them."""
    screens: Any = pytest.importorskip(
        "canbroker.cli.top_app", reason="needs the extra top", exc_type=ImportError
    )
    decoder = None if database is None else load_databases([database])
    handlers = {number: signal.getsignal(number) for number in ending_signals()}

    async def main() -> None:
        with Channels(Opener("virtual", {"bitrate": 500_000}, None), decoder) as channels:
            app = screens.TopApp(channels, channels.open(channel) if channel else None)
            async with app.run_test(size=(80, 24)) as pilot:
                await steps(Screen(app, pilot))

    try:
        asyncio.run(main())
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_rows_appear_and_are_sorted_filtered_and_scrolled(other: Bus) -> None:
    async def steps(screen: Screen) -> None:
        for number in range(50):
            other.send_batch([message(0x100 + number, bytes([1, 2]))] * (number + 1), timeout=5)
        lines = await screen.until(lambda lines: identifiers(lines)[:1] == ["100"])
        assert lines[0].startswith("x  active  500k  load ")
        assert len(lines) == 24
        assert max(map(len, lines)) <= 80
        assert identifiers(lines) == [f"{0x100 + at:X}" for at in range(len(identifiers(lines)))]
        await screen.press("s")
        lines = await screen.until(lambda lines: identifiers(lines)[0] == "131")
        assert "count▼" in lines[2]
        await screen.press("r")
        await screen.until(lambda lines: identifiers(lines)[0] == "100")
        await screen.press("end")
        await screen.until(lambda lines: identifiers(lines)[-1:] == ["131"])
        await screen.press("home", "slash", *"12f-130", "enter")
        lines = await screen.until(lambda lines: len(identifiers(lines)) == 2)
        assert identifiers(lines) == ["12F", "130"]
        assert "2 rows" in lines[-2]

    drive(steps)


def test_a_pause_and_a_frozen_row(other: Bus) -> None:
    async def steps(screen: Screen) -> None:
        other.send_batch([message(0x100, b"\x01"), message(0x200, b"\x01")], timeout=5)
        await screen.text("200 tx")
        await screen.press("f")  # the first row
        other.send_batch([message(0x100, b"\x02"), message(0x200, b"\x02")], timeout=5)
        await screen.until(lambda lines: any("200 tx" in line and "02" in line for line in lines))
        assert any("100 tx         1 " in line for line in screen.lines())
        await screen.press("f")
        await screen.text("100 tx         2 ")
        await screen.press("space")
        await screen.text("PAUSED")
        other.send(message(0x300), timeout=5)
        shown: Any = screen.app.screen
        follower = shown.session.follower
        await screen.until(lambda _: len(follower.view.table.rows) == 3)
        assert identifiers(screen.lines()) == ["100", "200"]
        await screen.press("space")
        await screen.text("300 tx")
        await screen.press("c")
        await screen.until(lambda lines: not identifiers(lines))

    drive(steps)


def test_a_frame_is_sent_and_one_that_is_none_is_refused(other: Bus) -> None:
    async def steps(screen: Screen) -> None:
        await screen.press("t", *"7df", "number_sign", *"0201", "enter")
        await screen.text("sent 7df#0201")
        received = other.recv(5)
        assert received is not None
        assert (received.arbitration_id, bytes(received.data)) == (0x7DF, b"\x02\x01")
        await screen.press("t", *"nonsense", "enter")
        await screen.text("nonsense")
        await screen.press("t", *"123", "escape")  # left
        lines = await screen.until(lambda lines: "q quit" in lines[-1])
        assert not any("sent 123" in line for line in lines)

    drive(steps)


def test_what_was_on_the_bus_is_saved(
    other: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def steps(screen: Screen) -> None:
        other.send_batch([message(0x100 + number) for number in range(10)], timeout=5)
        await screen.text("109 tx")
        await screen.press("w", *"a.log", "enter")
        await screen.text("10 frames in a.log")
        await screen.press("w", *"no/a.log", "enter")
        await screen.text("not saved: cannot write no/a.log")

    drive(steps)
    assert len((tmp_path / "a.log").read_text().splitlines()) == 10


def test_clients_and_tasks(other: Bus) -> None:
    async def steps(screen: Screen) -> None:
        task = other.send_periodic(message(0x123), 0.05)
        await screen.press("v")
        await screen.text("2 clients, 1 tasks")
        await screen.text("task 123  every 50 ms")
        task.stop()
        await screen.text("2 clients, 0 tasks")

    drive(steps)


def test_signals_are_decoded_on_demand(other: Bus, tmp_path: Path) -> None:
    pytest.importorskip("cantools", reason="needs the extra signals")
    database = tmp_path / "car.dbc"
    database.write_text(DATABASE)

    async def steps(screen: Screen) -> None:
        other.send(message(0x100, bytes([0xE8, 0x03, 0, 0, 0, 0, 0, 0])), timeout=5)
        await screen.resize(120, 24)
        await screen.text("Engine")
        await screen.press("d")
        await screen.text("Speed: 100.0 km/h")
        await screen.press("d")
        await screen.until(lambda lines: not any("Speed" in line for line in lines))

    drive(steps, str(database))


def test_any_size_will_do(other: Bus) -> None:
    async def steps(screen: Screen) -> None:
        other.send_batch([message(number, bytes(8)) for number in range(100)], timeout=5)
        await screen.text("000 tx")
        for width, height in ((200, 60), (40, 6), (10, 2), (1, 1), (80, 24)):
            await screen.resize(width, height)
            await screen.until(lambda lines, height=height: len(lines) == height)  # type: ignore[misc]
        await screen.text("000 tx")

    drive(steps)


# ---------------------------------------------------------------------------------- channels


def test_a_channel_is_chosen_and_another_one_later(other: Bus) -> None:
    with Bus("y", "virtual", bitrate=250_000) as second:

        async def steps(screen: Screen) -> None:
            lines = await screen.text("virtual.y")
            assert lines[1].split() == ["virtual.x", "virtual", "active", "500k", "0%"]
            await screen.press("down", "enter")
            await screen.text("virtual.y  active  250k  load ")
            second.send(message(0x123), timeout=5)
            await screen.text("123 tx")
            await screen.press("o")
            await screen.text("virtual.x")
            await screen.press("escape")  # stays where it was
            await screen.text("123 tx")
            await screen.press("o")
            await screen.text("virtual.x")
            await screen.press("enter")
            lines = await screen.text("virtual.x  active  500k  load ")
            assert not identifiers(lines)
            other.send(message(0x321), timeout=5)
            await screen.text("321 tx")
            await screen.until(lambda _: _clients("virtual.y") == 1)  # closed: only our own

        drive(steps, channel=None)


def _clients(name: str) -> int:
    (found,) = (each for each in Channels(Opener(None, {}, None)).listed() if each.name == name)
    return len(found.clients)


def test_a_channel_that_cannot_be_opened_is_told(runtime: Runtime, tmp_path: Path) -> None:
    config = (
        '[channels.away]\ninterface = "slcan"\nchannel = "/dev/none"\nbitrate = 500000\n'
        '[channels.here]\ninterface = "virtual"\n'
    )

    async def steps(screen: Screen) -> None:
        await screen.text("here")
        await screen.press("enter")
        lines = await screen.until(lambda lines: any("/dev/none" in each for each in lines[-3:]))
        assert any(each.startswith("here ") for each in lines)
        await screen.press("j", "enter")
        await screen.text("here  active")

    with serving(runtime, tmp_path, config):
        drive(steps, channel=None)


# ------------------------------------------------------------------------------------- plain


def test_plain_prints_tables_for_pipes(other: Bus) -> None:
    task = other.send_periodic(message(0x123, b"\xde\xad"), 0.02)
    printed = run("top", "--plain", "-n", "2", "virtual.x")
    task.stop()
    assert (printed.returncode, printed.stderr) == (0, "")
    tables = printed.stdout.strip().split("\n\n")
    assert len(tables) == 2
    for table in tables:
        assert table.splitlines()[0].startswith("virtual.x  active  500k  load ")
        assert "123 tx" in table
        assert table.endswith("DE AD")
    assert "\x1b" not in printed.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["virtual.x"], "no terminal: use --plain"),
        (["-n", "1", "virtual.x"], "-n needs --plain"),
        (["--plain", "--dbc", "/no/car.dbc", "virtual.x"], "does not exist"),
    ],
)
def test_wrong_command_lines(runtime: Runtime, arguments: list[str], complaint: str) -> None:
    printed = run("top", *arguments)
    assert printed.returncode == 2
    assert complaint in printed.stderr


def test_without_a_channel_it_is_the_only_one(other: Bus) -> None:
    printed = run("top", "--plain", "-n", "1")
    assert printed.stdout.startswith("virtual.x  ")
    with Bus("y", "virtual"):
        printed = run("top", "--plain", "-n", "1")
    assert printed.returncode == 1
    assert "virtual.x, virtual.y" in printed.stderr


def test_without_a_channel_or_a_broker(runtime: Runtime) -> None:
    printed = run("top", "--plain", "-n", "1")
    assert printed.returncode == 1
    assert "no channels" in printed.stderr


def test_names_come_from_the_channels_own_database(runtime: Runtime, tmp_path: Path) -> None:
    pytest.importorskip("cantools", reason="needs the extra signals")
    (tmp_path / "car.dbc").write_text(DATABASE)
    config = '[channels.can0]\ninterface = "virtual"\ndatabase = ["car.dbc"]\n'
    with serving(runtime, tmp_path, config), Bus("can0") as sender:
        task = sender.send_periodic(message(0x100, bytes(8)), 0.05)
        printed = run("top", "--plain", "-n", "1")
        task.stop()
    assert printed.returncode == 0
    assert printed.stdout.splitlines()[3].endswith("00 00 00 00 00 00 00 00  Engine")
