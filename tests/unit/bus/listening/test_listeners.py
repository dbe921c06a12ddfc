"""Listeners by themselves; with a Notifier they are in tests/contract/test_notifier.py."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path

import can
import pytest

from canbroker import AsyncBufferedReader, BufferedReader, Listener, Message, Printer


def message(number: int = 0x123) -> Message:
    return Message(timestamp=1.5, arbitration_id=number, data=[1, 2], is_extended_id=False)


def numbers(messages: list[Message]) -> list[int]:
    return [each.arbitration_id for each in messages]


# -------------------------------------------------------------------------------------- Listener


def test_a_listener_is_called_with_messages() -> None:
    class Keeper(Listener):
        def __init__(self) -> None:
            self.kept: list[Message] = []

        def on_message_received(self, msg: Message) -> None:
            self.kept.append(msg)

    keeper = Keeper()
    given = message()
    keeper(given)
    assert keeper.kept == [given]
    keeper.stop()
    with pytest.raises(NotImplementedError):
        keeper.on_error(ValueError("nobody takes it"))


def test_a_listener_must_take_messages() -> None:
    with pytest.raises(TypeError, match="on_message_received"):
        Listener()  # type: ignore[abstract]


# -------------------------------------------------------------------------------- BufferedReader


def test_a_buffered_reader_gives_the_oldest_first() -> None:
    reader = BufferedReader()
    for number in range(3):
        reader(message(number))
    got = [reader.get_message(0), reader.get_message(10), reader.get_message(None)]
    assert numbers([each for each in got if each]) == [0, 1, 2]
    assert reader.get_message(0) is None
    assert reader.get_message(0.01) is None
    assert reader.get_message(-1) is None


def test_a_stopped_buffered_reader_gives_what_it_has_without_waiting() -> None:
    reader = BufferedReader()
    reader(message(7))
    reader.stop()
    assert reader.is_stopped
    with pytest.raises(BufferError, match="stopped"):
        reader(message(8))
    last = reader.get_message(None)
    assert last is not None
    assert last.arbitration_id == 7
    assert reader.get_message(None) is None, "which waits for ever otherwise"
    reader.start()
    reader(message(9))
    assert reader.get_message(0) is not None


# --------------------------------------------------------------------------- AsyncBufferedReader


def test_an_async_buffered_reader_gives_the_oldest_first() -> None:
    async def run() -> None:
        reader = AsyncBufferedReader()
        first = asyncio.create_task(reader.get_message())
        await asyncio.sleep(0)
        for number in range(3):
            reader(message(number))
        assert (await first).arbitration_id == 0
        assert (await reader.get_message()).arbitration_id == 1
        assert (await anext(reader)).arbitration_id == 2

    asyncio.run(run())


def test_iterating_an_async_buffered_reader_ends_when_it_is_stopped() -> None:
    async def run() -> None:
        reader = AsyncBufferedReader()
        got: list[Message] = []

        async def iterate() -> None:
            async for each in reader:
                got.append(each)  # noqa: PERF401 - it is looked at on the way

        tasks = [asyncio.create_task(iterate()) for _ in range(2)]
        await asyncio.sleep(0)
        reader(message(1))
        reader(message(2))
        for _ in range(10):  # both wait again
            await asyncio.sleep(0)
        assert numbers(got) == [1, 2]
        reader.stop()
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
        with pytest.raises(BufferError, match="no more messages"):
            await reader.get_message()
        with pytest.raises(BufferError, match="stopped"):
            reader(message(3))
        reader.start()
        reader(message(4))
        reader.stop()
        assert numbers([each async for each in reader]) == [4], "what it has is still given"
        reader.start()
        reader(message(4))
        assert (await reader.get_message()).arbitration_id == 4

    asyncio.run(run())


def test_a_cancelled_wait_takes_no_message_with_it() -> None:
    async def run() -> None:
        reader = AsyncBufferedReader()
        waiting = asyncio.create_task(reader.get_message())
        await asyncio.sleep(0)
        reader(message(1))  # it is about to run
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await reader.get_message()).arbitration_id == 1

    asyncio.run(run())


def test_an_async_buffered_reader_belongs_in_a_loop() -> None:
    with pytest.raises(RuntimeError, match="loop"):
        AsyncBufferedReader()(message())


def test_the_loop_of_old_scripts_is_taken_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="loop"):
        AsyncBufferedReader(loop=object())


# --------------------------------------------------------------------------------------- Printer


def test_a_printer_prints(capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer()
    given = message()
    printer(given)
    assert capsys.readouterr().out == f"{given}\n"
    assert not printer.write_to_file
    assert printer.file_size() == 0
    printer.stop()
    assert not sys.stdout.closed


def test_a_printer_writes_what_python_cans_does(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with Printer(ours) as printer, can.Printer(theirs) as other:
        assert printer.write_to_file
        for number in range(3):
            printer(message(number))
            other(can.Message(1.5, arbitration_id=number, data=[1, 2], is_extended_id=False))
        printer.file.flush()
        assert printer.file_size() == ours.stat().st_size > 0
    assert ours.read_text() == theirs.read_text()
    with Printer(str(ours), append=True) as printer:
        printer(message(3))
    assert len(ours.read_text().splitlines()) == 4
    with Printer(ours):
        pass
    assert ours.read_text() == "", "without append it begins anew"


def test_a_file_that_is_given_stays_open(tmp_path: Path) -> None:
    memory = io.StringIO()
    printer = Printer(memory)
    printer(message())
    printer.stop()
    assert memory.getvalue() == f"{message()}\n"
    with (tmp_path / "log").open("w") as file:
        printer = Printer(file)
        printer(message())
        printer.stop()
        assert (tmp_path / "log").read_text() == f"{message()}\n"
    printer.stop()
