from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

from canbroker.backends import parse_options
from canbroker.bus import discovery
from canbroker.errors import CanError, CanInitializationError, CanInterfaceNotImplementedError
from canbroker.model.wording import printable, validation_fault
from canbroker.system.service import _OneLine


class Asked(msgspec.Struct):
    rate: int | None = None
    ratio: float = 0.0
    on: bool = False
    name: str = ""
    either: int | str = 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rate": "fast"}, "rate must be a whole number, got 'fast'"),
        ({"rate": 0.5}, "rate must be a whole number, got 0.5"),
        ({"ratio": [1]}, "ratio must be a number, got [1]"),
        ({"on": 3}, "on must be true or false, got 3"),
        ({"name": None}, "name must be a text, got None"),
        ({"either": 0.5}, "either must be a whole number or a text, got 0.5"),
    ],
)
def test_a_wrong_type_is_named_with_the_value(given: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.convert(given, Asked)
    assert validation_fault(raised.value, given) == said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("straße 日本", "straße 日本"),
        ("\x1b]0;owned\x07\x1b[2J", r"\x1b]0;owned\x07\x1b[2J"),
        ("two\nlines\tand\r", r"two\nlines\tand\r"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("\udcff", r"\udcff"),
    ],
)
def test_a_text_stays_in_its_line_and_does_nothing(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_a_log_line_is_one_line_and_a_traceback_follows() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "from %s", ("\x1b[2J\nme",), None)
    assert _OneLine("%(message)s").format(record) == r"from \x1b[2J\nme"
    record.exc_text = "Traceback\n  line"
    assert _OneLine("%(message)s").format(record).endswith("me\nTraceback\n  line")


@pytest.mark.parametrize(
    ("parameter", "hint"),
    [
        ("databitrate", "it is data_bitrate"),
        ("timeout", "recv and send take one with each call"),
        ("rx_queue_size", "a bus keeps what it has not received yet"),
        ("protocol", "fd=True asks for CAN FD"),
        ("colour", "python-can may ignore what an interface does not have"),
    ],
)
@pytest.mark.parametrize("interface", ["virtual", "socketcan"])
def test_a_parameter_that_python_can_takes_is_refused_with_ours(
    interface: str, parameter: str, hint: str
) -> None:
    with pytest.raises(CanInitializationError, match=rf"no parameter '{parameter}' \({hint}"):
        parse_options(interface, {"channel": "can0", parameter: 1})


def test_an_interface_has_hints_of_its_own() -> None:
    with pytest.raises(CanInitializationError, match=r"other programs .* receive what is sent"):
        parse_options("socketcan", {"channel": "can0", "local_loopback": False})


@pytest.mark.parametrize("name", ["Virtual", "VIRTUAL", " virtual "])
def test_another_spelling_of_an_interface_is_known_at_once(name: str) -> None:
    with pytest.raises(CanInterfaceNotImplementedError, match=r"did you mean 'virtual'\?"):
        parse_options(name, {"channel": "x"})


@pytest.mark.parametrize(
    ("channel", "parameters", "said"),
    [
        ("x", {"bitrate": 10**30}, "bitrate is 1000"),
        ("x" * 5000, {}, "'xxxx.* has 5,000 characters; 4,096 are the most"),
        ("x", {"serial": "1" * 5000}, "'1111.* has 5,000 characters"),
    ],
)
def test_what_does_not_travel_is_named_by_the_client(
    channel: str, parameters: dict[str, Any], said: str
) -> None:
    with pytest.raises(CanError, match=said):
        discovery.request("0" * 16, channel, "virtual", parameters)
