"""cantools: a database's signals through our Bus, its tester, and its monitor."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import can
import cantools.database
import cantools.tester
import pytest

import canbroker
from canbroker.transport.runtime import Runtime
from tests.support.brokers import wait_until

PATIENCE_S: Final = 20.0

_DBC: Final = """VERSION ""
NS_ :
BS_:
BU_: Engine Dashboard

BO_ 291 Motion: 8 Engine
 SG_ Speed : 0|16@1+ (0.1,0) [0|6553.5] "km/h" Dashboard
 SG_ Gear : 16|4@1+ (1,0) [0|5] "" Dashboard

BO_ 2566844926 Climate: 3 Dashboard
 SG_ Outside : 7|12@0- (0.5,-10) [-1034|1013.5] "degC" Engine

VAL_ 291 Gear 0 "Park" 4 "Drive" ;
BA_DEF_ BO_ "GenMsgCycleTime" INT 0 10000;
BA_DEF_DEF_ "GenMsgCycleTime" 0;
BA_ "GenMsgCycleTime" BO_ 291 10;
"""


@pytest.fixture
def database() -> Any:
    return cantools.database.load_string(_DBC, "dbc")


def test_signals_through_our_bus(runtime: Runtime, database: Any) -> None:
    with canbroker.Bus("bench", "virtual") as bus, canbroker.Bus("bench", "virtual") as other:
        for name, signals in (
            ("Motion", {"Speed": 87.5, "Gear": "Drive"}),
            ("Climate", {"Outside": -31.5}),
        ):
            layout = database.get_message_by_name(name)
            bus.send(
                canbroker.Message(
                    arbitration_id=layout.frame_id,
                    is_extended_id=layout.is_extended_frame,
                    data=layout.encode(signals),
                )
            )
            message = other.recv(PATIENCE_S)
            assert message is not None
            assert message.is_extended_id == layout.is_extended_frame
            assert database.decode_message(message.arbitration_id, message.data) == signals


def _ours() -> Any:
    return canbroker.Bus("bench", "virtual")


def _plugin() -> Any:
    return can.Bus("bench", interface="canbroker", adapter="virtual")


@pytest.mark.parametrize("opened", [_ours, _plugin])
def test_tester(runtime: Runtime, database: Any, opened: Any) -> None:
    """It plays the Engine, with a periodic task, for a Dashboard that answers."""
    with opened() as bus, canbroker.Bus("bench", "virtual") as dashboard:
        tester = cantools.tester.Tester("Dashboard", database, bus)
        try:
            tester.messages["Motion"].update({"Speed": 10.0, "Gear": 4})
            tester.start()
            assert _speed(database, dashboard) == 10.0
            tester.messages["Motion"]["Speed"] = 20.0  # modify_data() of the task
            wait_until(lambda: _speed(database, dashboard) == 20.0, "the new speed is sent")
            climate = database.get_message_by_name("Climate")
            dashboard.send(
                canbroker.Message(
                    arbitration_id=climate.frame_id, data=climate.encode({"Outside": 4.5})
                )
            )
            assert tester.expect("Climate", timeout=PATIENCE_S) == {"Outside": 4.5}
            tester.stop()
        finally:
            for notifier in can.Notifier.find_instances(bus):  # which it never stops itself
                notifier.stop()


def _speed(database: Any, bus: canbroker.BusABC) -> Any:
    message = bus.recv(PATIENCE_S)
    assert message is not None
    return database.decode_message(message.arbitration_id, message.data)["Speed"]


# ----------------------------------------------------------------------------------------- monitor


def test_monitor(runtime: Runtime, tmp_path: Path, database: Any) -> None:
    (tmp_path / "car.dbc").write_text(_DBC)
    with canbroker.Bus("bench", "virtual") as bus:
        name = bus.channel_info.partition(": ")[0]
        arguments = ("-i", "canbroker", "-c", name, "-s", str(tmp_path / "car.dbc"))
        with _terminal("-m", "cantools", "monitor", *arguments) as (monitor, screen):
            _shown(screen, "q: Quit")
            motion = database.get_message_by_name("Motion")
            data = motion.encode({"Speed": 87.5, "Gear": "Drive"})
            bus.send(canbroker.Message(arbitration_id=291, is_extended_id=False, data=data))
            shown = _shown(screen, "Motion(Speed: 87.5 km/h, Gear: Drive)")
            assert "Climate" not in shown
            data = database.encode_message("Climate", {"Outside": -31.5})
            bus.send(canbroker.Message(arbitration_id=2566844926 - (1 << 31), data=data))
            _shown(screen, "Climate(Outside: -31.5 degC)")
            os.write(screen, b"q")
            _rest(screen)
            assert monitor.wait(PATIENCE_S) == 0


@contextmanager
def _terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A Python program in a terminal of its own, and the other end of that."""
    screen, terminal = pty.openpty()
    size = {"TERM": "xterm", "LINES": "24", "COLUMNS": "100"}
    try:
        with subprocess.Popen(
            [sys.executable, *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=os.environ | size,
        ) as program:
            os.close(terminal)
            try:
                yield program, screen
            finally:
                program.kill()
    finally:
        os.close(screen)


def _shown(screen: int, text: str) -> str:
    """Waits until ``text`` is drawn; returns all that is drawn up to then."""
    drawn = b""
    while text.encode() not in drawn:
        assert select.select([screen], [], [], PATIENCE_S)[0], drawn
        drawn += os.read(screen, 1 << 16)
    return drawn.decode()


def _rest(screen: int) -> None:
    """Reads until nobody has the terminal open any more, which Linux calls an error."""
    try:
        while os.read(screen, 1 << 16):
            continue
    except OSError:
        return
