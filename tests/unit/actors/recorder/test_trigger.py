"""Conditions of triggers, and which frames around them are written."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from canbroker.actors.recorder.capture import Capture, Stretch
from canbroker.actors.recorder.trigger import condition, needed
from canbroker.errors import CanInitializationError
from canbroker.logs.candump import parse_frame
from canbroker.model.frame import EchoFrame
from canbroker.system import clock

DATABASE = """VERSION ""
BU_: ECU
BO_ 256 Engine: 8 ECU
 SG_ Speed : 0|16@1+ (0.5,0) [0|8000] "rpm" ECU
BO_ 257 Gearbox: 8 ECU
 SG_ Speed : 0|16@1+ (1,0) [0|8000] "rpm" ECU
BO_ 500 Probe: 3 ECU
 SG_ Which M : 0|8@1+ (1,0) [0|0] "" ECU
 SG_ Voltage m0 : 8|8@1+ (1,0) [0|0] "V" ECU
 SG_ Current m1 : 8|8@1+ (1,0) [0|0] "A" ECU
"""


NEEDS_CANTOOLS = pytest.mark.skipif(
    importlib.util.find_spec("cantools") is None,
    reason="needs the extra signals; make ecosystem has it",
)


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "x.dbc"
    path.write_text(DATABASE)
    return str(path)


@pytest.mark.parametrize(
    ("text", "fires", "others"),
    [
        ("error", ["20000004#00"], ["123#00", "00000123#00"]),
        ("123#01", ["123#01"], ["123#0100", "123#02", "124#01", "00000123#01", "123#R"]),
        ("123#01*", ["123#01", "123#0122"], ["123#", "123#02", "20000123#01"]),
        ("123#01…", ["123#01"], ["123#"]),
        ("123#..02", ["123#0102", "123#FF02"], ["123#0103", "123#010200"]),
        ("18DB33F1#*", ["18DB33F1#", "18DB33F1##301"], ["0F1#"]),
        ("400:700", ["400#", "4FF#01"], ["500#"]),
        pytest.param(
            *("Engine.Speed > 3000", ["100#7217"], ["100#7017", "101#7217", "100#", "100#R"]),
            marks=NEEDS_CANTOOLS,
        ),
        pytest.param("Speed >= 6002", ["101#7217"], ["100#7217"], marks=NEEDS_CANTOOLS),
        # No signal is multiplexed by 9: cantools says so by an error of its own.
        pytest.param("Voltage > 1", ["1F4#0002"], ["1F4#0102", "1F4#0902"], marks=NEEDS_CANTOOLS),
    ],
)
def test_a_trigger_fires_for_these_frames_alone(
    database: str, text: str, fires: list[str], others: list[str]
) -> None:
    fulfils, passes = condition(text, database), needed(text)
    for each in map(parse_frame, fires):
        assert fulfils(each), each
        assert passes.matches(each.arbitration_id, each.flags)
    assert not any(fulfils(parse_frame(each)) for each in others)


@pytest.mark.parametrize("text", ["errors", "12#", "123#0", "Speed > ", "Speed", "123#01..*."])
def test_what_is_not_a_trigger_is_said_with_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected error, a frame like"):
        needed(text)


@NEEDS_CANTOOLS
def test_a_signal_needs_a_database_that_has_it(database: str, tmp_path: Path) -> None:
    for text, file, words in (
        ("Speed > 1", "", "give a database"),
        ("Pressure > 1", database, "has no signal 'Pressure'"),
        ("Brake.Speed > 1", database, r"has no signal 'Brake\.Speed'"),
        ("Speed > 1", str(tmp_path / "none.dbc"), "none.dbc"),
    ):
        with pytest.raises(CanInitializationError, match=words):
            condition(text, file)


def frame(seconds: float, identifier: int = 0) -> EchoFrame:
    return EchoFrame(int(seconds * clock.SECOND), identifier, 0, b"", None)


def test_what_is_written_begins_with_the_trigger_and_ends_some_time_after_the_last_one() -> None:
    capture = Capture(lambda each: each.arbitration_id == 1, after_s=2)
    before, first, between, again, last, after = (
        frame(1),
        frame(2, 1),
        frame(3),
        frame(3.5, 1),
        frame(5.5),
        frame(5.6),
    )
    assert list(capture.split([before])) == [Stretch([before], False)]
    assert list(capture.split([before, first, between])) == [
        Stretch([before], False),
        Stretch([first, between], True, began=True),
    ]
    assert capture.until_ns == 4 * clock.SECOND
    assert list(capture.split([again, last, after, first])) == [
        Stretch([again, last], True, ended=True),
        Stretch([after], False),
        Stretch([first], True, began=True),
    ]


def test_writing_ends_on_a_silent_bus_too() -> None:
    capture = Capture(lambda _: True, after_s=2)
    list(capture.split([frame(10)]))
    assert not capture.is_over(12 * clock.SECOND)
    assert capture.is_over(13 * clock.SECOND + 1)
    assert not capture.is_over(14 * clock.SECOND)
