"""Draws ``docs/images/web-table.png``, ``web-plot.png`` and ``top.svg``: a car's traffic on the
page of a broker, and in ``canbroker top``.

Run it again when their look has changed, and look at them. Needs Debian's chromium, and the extras
of ``make test-web``::

    .venv/bin/python tools/see_pictures.py
"""

from __future__ import annotations

import asyncio
import io
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

from playwright.sync_api import sync_playwright
from rich.console import Console
from terminal_picture import terminal_svg

from canbroker import Bus, CanError, Message

_IMAGES: Final = Path(__file__).parents[1] / "docs" / "images"
_SIZE: Final = {"width": 1060, "height": 620}
_LOOKED_S: Final = 20.0

_DATABASE: Final = """VERSION ""
BU_: Engine
BO_ 291 Engine: 8 Engine
 SG_ Speed : 0|16@1+ (0.25,0) [0|16000] "rpm" Vector__XXX
 SG_ Temperature : 16|8@1+ (1,-40) [-40|215] "degC" Vector__XXX
 SG_ Gear : 24|4@1+ (1,0) [0|6] "" Vector__XXX
BO_ 512 Wheels: 8 Engine
 SG_ Left : 0|16@1+ (0.01,0) [0|655] "km/h" Vector__XXX
 SG_ Right : 16|16@1+ (0.01,0) [0|655] "km/h" Vector__XXX
VAL_ 291 Gear 0 "Neutral" 1 "First" 2 "Second" 3 "Third" 4 "Fourth" ;
"""

_CONFIG: Final = """
[channels.car]
interface = "virtual"
bitrate = 500000
database = "car.dbc"
"""


def main() -> int:
    """Draws all three."""
    with tempfile.TemporaryDirectory(prefix="cb-", dir="/tmp") as place:  # short, for sockets
        os.environ |= {"XDG_RUNTIME_DIR": place, "CANBROKER_AUTOSTART": "0"}
        Path(place, "car.dbc").write_text(_DATABASE)
        Path(place, "bench.toml").write_text(_CONFIG)
        with _running("serve", "-c", f"{place}/bench.toml"), _traffic():
            with _running("web", "--listen", "127.0.0.1:0") as page:
                _draw_page(page.readline().strip())
            (_IMAGES / "top.svg").write_text(asyncio.run(_top()))
    return 0


@contextmanager
def _running(*arguments: str) -> Iterator[IO[str]]:
    """What a command prints while it runs."""
    command = [sys.executable, "-m", "canbroker.cli", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with cast("IO[str]", process.stdout) as printed:
        yield printed
        process.terminate()
        process.wait()


@contextmanager
def _traffic() -> Iterator[None]:
    """The frames of 35 identifiers, as a car has them."""
    ends = threading.Event()
    sending = threading.Thread(target=_send, args=(ends,))
    sending.start()
    yield
    ends.set()
    sending.join()


def _send(ends: threading.Event) -> None:
    while True:
        try:
            bus = Bus("car")
            break
        except CanError:  # the broker does not serve its channel yet
            time.sleep(0.1)
    periods = {0x123: 2, 0x200: 1, **{0x207 + 7 * at: 1 + at % 10 for at in range(33)}}
    with bus:
        step = 0
        while not ends.wait(0.01):
            step += 1
            for identifier, period in periods.items():
                if step % period == 0:
                    data = _data(identifier, step)
                    message = Message(arbitration_id=identifier, data=data, is_extended_id=False)
                    bus.send(message)


def _data(identifier: int, step: int) -> bytes:
    seconds = step / 100
    if identifier == 0x123:
        speed = 2200 + 1200 * math.sin(1.5 * seconds) + 300 * math.sin(9 * seconds)
        warm = 118 + 8 * math.cos(seconds / 5)
        return round(4 * speed).to_bytes(2, "little") + bytes([round(warm), 2, 0, 0, 0, 0])
    if identifier == 0x200:
        wheels = (round(100 * (60 + side + 8 * math.sin(seconds))) for side in (0, 0.4))
        return b"".join(wheel.to_bytes(2, "little") for wheel in wheels) + bytes(4)
    return bytes([step % 256, identifier % 256, 0x11, 0, step // 100 % 256, 0, 0, 1])


def _draw_page(url: str) -> None:
    chromium = shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=_SIZE)
        page.goto(url)
        page.keyboard.press("2")
        page.locator("#table tr", has_text="Engine: Speed").click()
        boxes = page.locator(".details input")
        boxes.nth(0).check()
        boxes.nth(1).check()
        page.wait_for_timeout(1000 * _LOOKED_S)
        page.screenshot(path=_IMAGES / "web-table.png")
        page.locator("button[data-view=plot]").click()
        page.mouse.move(800, 75)
        page.wait_for_timeout(1000)
        page.screenshot(path=_IMAGES / "web-plot.png")
        browser.close()


async def _top() -> str:
    from canbroker.cli.common import Opener  # noqa: PLC0415 - Textual asks for the terminal
    from canbroker.cli.top_app import TopApp  # noqa: PLC0415
    from canbroker.cli.top_channels import Channels  # noqa: PLC0415

    with Channels(Opener(None, {}, None)) as channels:
        app = TopApp(channels, channels.open("car"))
        async with app.run_test(size=(100, 26)) as pilot:
            await pilot.pause(_LOOKED_S)
            await pilot.press("d")
            await pilot.pause(1)
            return _drawn(app)


def _drawn(app: Any) -> str:
    width, height = app.size
    console = Console(
        record=True,
        file=io.StringIO(),
        width=width,
        height=height,
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    console.print(app.screen._compositor.render_update(full=True))
    description = (
        "A table with a row for each identifier: count, rate, period, jitter, age, data with the "
        "bytes that have just changed, and the name of the message. Above it the load of the bus "
        "over time, below it the signals of the first row."
    )
    return terminal_svg(console, "top", "canbroker top car", "canbroker top", description)


if __name__ == "__main__":
    sys.exit(main())
