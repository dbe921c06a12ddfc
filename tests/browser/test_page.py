"""What a person sees of a bus, in a real browser, equals what was on it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

pytest.importorskip("uvicorn", reason="needs the extra web")
pytest.importorskip("playwright", reason="needs playwright; make test-web has it")

from canbroker import Bus, Message
from canbroker.keys.authorized import Role
from canbroker.logs.candump import format_frame
from canbroker.logs.reader import LogReader
from tests.browser.conftest import Bench, Command
from tests.support.brokers import private_runtime, processes_of, status_of, wait_until
from tests.support.pages import CONFIG, serving, site, url_of
from tests.support.processes import Program

_WAIT_MS: Final = 15_000

_DBC: Final = """VERSION ""

BU_: Engine

BO_ 291 Engine: 8 Engine
 SG_ Speed : 0|16@1+ (0.25,0) [0|16000] "rpm" Vector__XXX
 SG_ Temperature : 16|8@1+ (1,-40) [-40|215] "degC" Vector__XXX
 SG_ Gear : 24|4@1+ (1,0) [0|6] "" Vector__XXX

VAL_ 291 Gear 0 "Neutral" 3 "Third" ;
"""

_ELEMENT: Final = "<img src=x onerror=window.hacked=1>"
_SCRIPT: Final = "<script>window.hacked=1</script>"

#: XML has to escape what the database then is called.
_KCD: Final = f"""<?xml version="1.0"?>
<NetworkDefinition xmlns="http://kayak.2codeornot2code.org/1.0"><Document/><Bus name="b">
<Message id="0x124" name="{_SCRIPT.replace("<", "&lt;")}" length="8">
<Signal name="{_ELEMENT.replace("<", "&lt;")}" offset="0" length="8">
<Value unit="{_SCRIPT.replace("<", "&lt;")}"/></Signal></Message></Bus></NetworkDefinition>
"""


@contextmanager
def opened(browser: Any, url: str, *, goes_on: bool = True, **given: Any) -> Iterator[Any]:
    """A page that is connected. Its console may have no errors at the end, if its server and what
    it asks for ``goes_on``."""
    context = browser.new_context(viewport={"width": 1100, "height": 700}, **given)
    page = context.new_page()
    page.set_default_timeout(_WAIT_MS)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.extend([said.text] if said.type == "error" else ()))
    page.goto(url)
    page.wait_for_selector("#link[data-state=open]")
    yield page
    context.close()
    assert not (wrong and goes_on)


def _url(bench: Bench, role: Role = Role.TRANSMIT) -> str:
    return f"{bench.page.url}?token={bench.page.token(role)}"


def _followed(page: Any, channel: str) -> None:
    """Looks at a channel; returns when the server follows it."""
    page.wait_for_selector(f"#channel option[value={channel}]", state="attached")
    page.select_option("#channel", channel)
    page.wait_for_selector(f"#channel[data-followed={channel}]")


_ROWS: Final = """() => Object.fromEntries([...document.querySelectorAll("#table tbody tr")].map(
    (row) => [row.cells[0].textContent, [Number(row.cells[2].textContent.replaceAll(",", "")),
        [...row.querySelectorAll(".bytes span")].map((span) => span.textContent).join(" ")]]))"""

_COUNT: Final = """[...app.views.table.rows.values()]
    .reduce((sum, row) => sum + row.told[6], 0)"""

_LINES: Final = """() => [...document.querySelectorAll("#trace .lines > div")].map((line) =>
    `${line.children[2].textContent}#${line.children[4].textContent.replaceAll(" ", "")}`)"""


def _replayed(bench: Bench, page: Any) -> None:
    """The vehicle's frames, all of which the table then has."""
    page.keyboard.press("2")
    bench.adapter.command("start")
    total = len(bench.frames)
    wait_until(lambda: page.evaluate(_COUNT) == total, "the table has all frames", 30)


def test_a_vehicle_on_the_page_equals_the_ledger(
    bench: Bench, browser: Any, tmp_path: Path
) -> None:
    with opened(browser, _url(bench)) as page:
        assert "token" not in page.url
        _followed(page, "car")
        _replayed(bench, page)
        wait_until(lambda: _rows(page) == bench.last(), "the table equals what was replayed")
        counts = {name: count for name, (count, _) in _rows(page).items()}
        assert counts == bench.adapter.stats()["frames"]
        _scrolls_back(bench, page)
        _downloads(bench, page, tmp_path)


def _rows(page: Any) -> dict[str, tuple[int, str]]:
    return {name: (count, data) for name, (count, data) in page.evaluate(_ROWS).items()}


def _scrolls_back(bench: Bench, page: Any) -> None:
    ledger = [format_frame(frame) for frame in bench.frames]
    assert 2000 < len(ledger) < 3000
    page.keyboard.press("4")
    page.keyboard.press(" ")
    _shown(page, ledger[-1000:])
    page.keyboard.press("o")
    _shown(page, ledger[-2000:])
    page.evaluate("document.querySelector('#trace .scroll').scrollTop = 0")
    _shown(page, ledger)  # scrolling to the top asks for more
    some = ledger[0].partition("#")[0]
    page.fill("#trace input[type=search]", f"{some}:7FF")
    page.keyboard.press("Enter")
    wanted = [line for line in ledger if line.startswith(f"{some}#")][-1000:]
    _shown(page, wanted)


def _shown(page: Any, frames: list[str]) -> None:
    wait_until(lambda: page.evaluate(_LINES) == frames, f"the trace has {len(frames)} frames", 20)


def _downloads(bench: Bench, page: Any, directory: Path) -> None:
    with page.expect_download() as download:
        page.locator("#trace button", has_text="Save").click()
    assert download.value.suggested_filename.startswith("car-")
    download.value.save_as(directory / "saved.log")
    with LogReader.open(str(directory / "saved.log")) as log:
        saved = [format_frame(entry.frame) for entry in log]
    assert saved == [format_frame(frame) for frame in bench.frames]


_ENGINE: Final = """
with Bus("bench") as bus:
    say("ready")
    number = 0
    while True:
        number += 1
        data = (8000 + 40 * (number % 100)).to_bytes(2, "little") + bytes([130, 3, 0, 0, 0, 0])
        bus.send(Message(arbitration_id=291, is_extended_id=False, data=data))
        time.sleep(0.02)
"""


def test_signals_are_decoded_and_plotted(browser: Any, tmp_path: Path) -> None:
    pytest.importorskip("cantools", reason="needs the extra signals")
    (tmp_path / "car.dbc").write_text(_DBC)
    with (
        private_runtime() as runtime,
        serving(runtime, _without_page(tmp_path, 'database = ["car.dbc"]')),
        Program(_ENGINE) as engine,
        Command() as command,
    ):
        assert engine.said() == "ready"
        with opened(browser, command.url) as page:
            page.keyboard.press("2")
            row = page.locator("#table tr", has_text="Engine: Speed 2")
            row.click()
            signals = page.locator(".details li")
            assert "90 degC" in signals.nth(1).inner_text()
            assert "Third (3)" in signals.nth(2).inner_text()
            for number in (0, 1):
                signals.nth(number).locator("input").check()
            page.locator("button[data-view=plot]").click()
            wait_until(lambda: page.evaluate("app.views.plot.data[0].length") > 20, "a plot", 20)
            times, speeds, temperatures = page.evaluate("app.views.plot.data")
            assert set(temperatures) == {90}
            assert all(2000 <= speed <= 3000 for speed in speeds)
            assert len(set(speeds)) > 5
            gaps = [late - early for early, late in itertools.pairwise(times)]
            assert 0.05 < sorted(gaps)[len(gaps) // 2] < 0.2  # ten times a second
            assert page.locator("#plot canvas").count() == 1
            page.keyboard.press(" ")
            length = page.evaluate("app.views.plot.data[0].length")
            page.wait_for_timeout(500)
            assert page.evaluate("app.views.plot.data[0].length") == length
            _traced_with_signals(page)


def test_a_keyboard_is_enough(browser: Any, tmp_path: Path) -> None:
    pytest.importorskip("cantools", reason="needs the extra signals")
    (tmp_path / "car.dbc").write_text(_DBC)
    more = 'database = ["car.dbc"]\n[channels.other]\ninterface = "virtual"'
    with (
        private_runtime() as runtime,
        serving(runtime, _without_page(tmp_path, more)),
        Program(_ENGINE) as engine,
        Command("--transmit", "200-2FF") as command,
        opened(browser, command.url) as page,
    ):
        assert engine.said() == "ready"
        press = page.keyboard.press
        page.wait_for_selector("#channel option[value=other]", state="attached")
        press("c")
        press("ArrowDown")
        page.wait_for_selector("#channel[data-followed=other]")
        press("ArrowUp")
        page.wait_for_selector("#channel[data-followed=bench]")
        press("Escape")
        press("2")
        page.locator("#table tr", has_text="Engine: Speed").wait_for()
        press("/")
        page.keyboard.type("engine")
        press("Escape")
        press("ArrowDown")
        page.locator(".details", has_text="Temperature").wait_for()
        press("Enter")
        press(" ")  # the first signal is plotted
        press("3")
        page.locator(".legend", has_text="Engine.Speed").wait_for()
        press("4")
        press(" ")
        press("o")
        page.locator("#trace button[aria-pressed=true]", has_text="Pause").wait_for()
        press("6")
        press("/")
        page.keyboard.type("2A0#01")
        press("Enter")
        page.locator("#send li.good").wait_for()
        press("Escape")
        press("?")
        page.locator("dialog[open]").wait_for()
        press("Escape")
        page.locator("dialog:not([open])").wait_for(state="attached")


def _traced_with_signals(page: Any) -> None:
    """Frames as they come, and those of the past, have their signals, until nobody wants them."""
    page.keyboard.press("4")
    lines = page.locator("#trace .lines > div:not(.gap)")
    decoded = page.locator("#trace .lines .decoded")
    lines.nth(10).wait_for()
    page.keyboard.press(" ")
    wait_until(lambda: lines.count() > 40, "the past is shown")
    texts = decoded.all_inner_texts()
    assert len(texts) == lines.count()
    for line, text in zip(page.evaluate(_LINES), texts, strict=True):
        raw = bytes.fromhex(line.partition("#")[2])
        speed = int.from_bytes(raw[:2], "little") / 4
        assert text == f"Engine: Speed {speed:g} rpm, Temperature 90 degC, Gear Third"
    page.keyboard.press("s")
    assert not decoded.first.is_visible()
    assert lines.first.is_visible()


_WIDE: Final = """VERSION ""

BU_: Engine

BO_ 768 Wide: 64 Engine
 SG_ Serial : 0|64@1+ (1,0) [0|0] "" Vector__XXX
 SG_ Torque : 64|32@1- (1,0) [0|0] "Nm" Vector__XXX

SIG_VALTYPE_ 768 Torque : 1;
BA_DEF_ BO_ "VFrameFormat" ENUM "StandardCAN","ExtendedCAN","reserved","J1939PG","StandardCAN_FD";
BA_DEF_DEF_ "VFrameFormat" "StandardCAN";
BA_ "VFrameFormat" BO_ 768 4;
"""


def test_what_a_number_of_a_browser_cannot_hold(browser: Any, tmp_path: Path) -> None:
    pytest.importorskip("cantools", reason="needs the extra signals")
    (tmp_path / "wide.dbc").write_text(_WIDE)
    fields = 'bitrate = 500000\nfd = true\ndata_bitrate = 2000000\ndatabase = ["wide.dbc"]'
    with (
        private_runtime() as runtime,
        serving(runtime, _without_page(tmp_path, fields)),
        Command() as command,
        opened(browser, command.url) as page,
        Bus("bench") as bus,
    ):
        page.keyboard.press("2")
        _followed(page, "bench")
        data = bytearray(64)
        for changed in ([], list(range(64)), [0, 31, 32, 63]):
            for at in changed:
                data[at] ^= 0xFF
            bus.send(Message(arbitration_id=768, is_extended_id=False, is_fd=True, data=data))
            _marked(page, changed)
        data[:12] = bytes.fromhex("0100000000002000 0000C07F")  # 2**53 + 1 and no number
        bus.send(Message(arbitration_id=768, is_extended_id=False, is_fd=True, data=data))
        page.locator("#table tr", has_text="Serial 9007199254740993, Torque nan Nm").click()
        signals = page.locator(".details output")
        assert signals.all_inner_texts() == ["9007199254740993", "nan Nm"]


def _marked(page: Any, changed: list[int]) -> None:
    wait_until(lambda: page.evaluate(_CHANGED) == changed, f"the bytes {changed} are marked")


_CHANGED: Final = """() => [...document.querySelectorAll("#table tbody .bytes span")]
    .flatMap((span, at) => span.className === "changed" ? [at] : [])"""


def _without_page(directory: Path, more: str = "") -> Path:
    path = directory / "plain.toml"
    path.write_text(f'[channels.bench]\ninterface = "virtual"\n{more}\n')
    return path


def test_pausing_the_table_keeps_what_it_shows(bench: Bench, browser: Any) -> None:
    with opened(browser, _url(bench)) as page, Program(_ENGINE) as engine:
        assert engine.said() == "ready"
        _followed(page, "bench")
        page.keyboard.press("2")
        page.wait_for_selector("#table tr[data-key]")
        page.keyboard.press(" ")
        before = _rows(page)
        page.wait_for_timeout(500)
        assert _rows(page) == before
        page.keyboard.press(" ")
        wait_until(lambda: _rows(page)["123"][0] > before["123"][0] + 20, "it goes on")


def test_frames_are_sent_if_that_is_permitted(bench: Bench, browser: Any) -> None:
    with opened(browser, _url(bench), goes_on=False) as page, Bus("bench") as bus:
        _followed(page, "bench")
        page.keyboard.press("6")
        page.fill("#frame", "123#DEADBEEF")
        page.keyboard.press("Enter")
        page.wait_for_selector("#send li.good")
        received = bus.recv(10)
        assert received is not None
        assert (received.arbitration_id, received.data) == (0x123, bytearray.fromhex("DEADBEEF"))
        page.fill("#frame", "200#01")
        page.keyboard.press("Enter")
        page.wait_for_selector("#send li.bad")
        assert "permits 100-1FF" in page.locator("#send li.bad").inner_text()
        assert bus.recv(0.2) is None


def test_who_may_only_look_sends_nothing(bench: Bench, browser: Any) -> None:
    with opened(browser, _url(bench, Role.OBSERVE)) as page:
        page.keyboard.press("6")
        assert page.locator("#send button").is_disabled()
        assert "for looking only" in page.locator("#send").inner_text()


def test_the_page_comes_back_with_its_broker(bench: Bench, browser: Any) -> None:
    broker = status_of(bench.runtime).pid
    with opened(browser, _url(bench), goes_on=False) as page:
        _followed(page, "bench")
        page.keyboard.press("2")
        os.kill(broker, signal.SIGKILL)
        page.wait_for_selector("#link[data-state=away]")
        wait_until(lambda: not processes_of(bench.runtime), "its actors have left")
        with serving(bench.runtime, bench.config):
            assert url_of(bench.runtime) == bench.page.url
            page.wait_for_selector("#link[data-state=open]")
            _followed(page, "bench")
            with Bus("bench", broker=str(bench.runtime.address)) as bus:
                bus.send(Message(arbitration_id=0x321, data=b"\1\2", is_extended_id=False))
                wait_until(lambda: _rows(page).get("321") == (1, "01 02"), "frames are shown again")


def test_names_are_text(browser: Any, tmp_path: Path) -> None:
    pytest.importorskip("cantools", reason="needs the extra signals")
    (tmp_path / "evil.kcd").write_text(_KCD)
    sender = """
import sys, time
from canbroker import Bus, Message
with Bus("bench") as bus:
    while True:
        bus.send(Message(arbitration_id=0x124, is_extended_id=False, data=b"\\1" + bytes(7)))
        time.sleep(0.05)
"""
    with private_runtime() as runtime, serving(runtime, _without_page(tmp_path)):
        command = [sys.executable, "-c", sender, _SCRIPT, _ELEMENT]
        client = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            with (
                Command("--dbc", str(tmp_path / "evil.kcd")) as served,
                opened(browser, served.url) as page,
            ):
                page.locator("#overview td", has_text=_SCRIPT).wait_for()
                page.keyboard.press("2")
                row = page.locator("#table tr", has_text=_SCRIPT)
                row.click()
                page.locator(".details", has_text=_ELEMENT).wait_for()
                page.locator(".details input").check()
                page.keyboard.press("3")
                page.locator(".legend", has_text=_ELEMENT).wait_for()
                assert page.evaluate("window.hacked") is None
                assert page.locator("main img, main script").count() == 0
        finally:
            client.kill()
            client.wait()


def test_on_a_phone_and_in_the_dark(bench: Bench, browser: Any) -> None:
    light = _background(browser, bench, color_scheme="light")
    with opened(browser, _url(bench), color_scheme="dark", has_touch=True) as page:
        page.set_viewport_size({"width": 360, "height": 700})
        _followed(page, "car")
        _replayed(bench, page)
        for tab in page.locator("#tabs button").all():
            tab.click()
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 360, tab.inner_text()
        assert _color(page) != light
        page.locator("#theme").click()
        assert _color(page) == light


def _background(browser: Any, bench: Bench, **given: Any) -> str:
    with opened(browser, _url(bench), **given) as page:
        return _color(page)


def _color(page: Any) -> str:
    found: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return found


def test_periodic_tasks_are_shown(tmp_path: Path, browser: Any) -> None:
    with private_runtime() as runtime, site(runtime, tmp_path, CONFIG) as page_site:
        url = f"{page_site.url}?token={page_site.token()}"
        with Bus("can0") as bus, opened(browser, url) as page:
            message = Message(arbitration_id=0x1A0, data=bytes(8), is_extended_id=False)
            task = bus.send_periodic(message, 0.05)
            page.keyboard.press("5")
            row = page.locator("#tasks tbody tr")
            row.wait_for()
            assert row.locator("td").nth(1).inner_text() == "1A0"
            assert row.locator("td").nth(2).inner_text() == "50 ms"
            task.stop()
            row.wait_for(state="detached")
