from __future__ import annotations

import errno
import json
import logging
import os
import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import can
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import canbroker
from canbroker.backends.python_can import driver
from canbroker.backends.python_can.options import parse
from canbroker.configuration import sources
from canbroker.configuration.bus_settings import Settings, gather, resolve
from canbroker.configuration.sources import Precedence, Value, cast
from canbroker.errors import CanInitializationError, CanInterfaceNotImplementedError
from canbroker.model import bit_timing

#: How long an example takes says something of the machine only.
unhurried = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

VARIABLES = ("CAN_INTERFACE", "CAN_CHANNEL", "CAN_BITRATE", "CAN_CONFIG")

TIMING = can.BitTiming.from_sample_point(f_clock=8_000_000, bitrate=250_000, sample_point=80)
TIMING_FD = can.BitTimingFd.from_sample_point(
    f_clock=80_000_000,
    nom_bitrate=500_000,
    nom_sample_point=80,
    data_bitrate=2_000_000,
    data_sample_point=75,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has configured nothing, on a system where nobody has."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    # Windows' files have other names.
    monkeypatch.setattr("canbroker.configuration.sources.platform.system", lambda: "Linux")
    monkeypatch.setattr(sources, "SYSTEM_FILE", tmp_path / "system.conf")
    monkeypatch.setattr(canbroker, "rc", {})
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def broker_with(*names: str) -> Callable[[str | None], Sequence[str]]:
    return lambda _: names


def resolved(context: str | None = None, *names: str, **given: Any) -> dict[str, Any]:
    """Effective values, at a broker with channels of these names."""
    return plain(resolve(given, canbroker.rc, context, channels=broker_with(*names)))


def plain(found: Settings) -> dict[str, Any]:
    return {key: value.value for key, value in found.values.items()}


def origin(key: str, context: str | None = None, **given: Any) -> str:
    return gather(given, canbroker.rc, context).values[key].origin


# ------------------------------------------------------------------------------------ precedence


def test_each_place_wins_over_those_below(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home / ".canrc"
    file.write_text("[default]\nbitrate = 6\n[bench]\nbitrate = 5\n")
    places: list[tuple[str, Callable[[], object]]] = [
        (f"{file}:2 [default]", lambda: file.write_text("[default]\nbitrate = 6\n")),
        (f"{file}:4 [bench]", lambda: file.write_text("[default]\n\n[bench]\nbitrate = 5\n")),
        ("environment variable CAN_BITRATE", lambda: monkeypatch.setenv("CAN_BITRATE", "4")),
        (
            "environment variable CAN_BITRATE_bench",
            lambda: monkeypatch.setenv("CAN_BITRATE_bench", "3"),
        ),
        ("canbroker.rc", lambda: canbroker.rc.update(bitrate=2)),
    ]
    for number, (expected, say) in zip((6, 5, 4, 3, 2), places, strict=True):
        say()
        found = gather({}, canbroker.rc, "bench").values["bitrate"]
        assert (found.value, found.origin) == (number, expected)
    assert gather({"bitrate": 1}, canbroker.rc, "bench").values["bitrate"].origin == "argument"


def test_places_are_mixed_key_by_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".canrc").write_text("[default]\ninterface = slcan\nchannel = here\nfd = true\n")
    monkeypatch.setenv("CAN_BITRATE", "500000")
    assert resolved(channel=None, interface="virtual") == {
        "interface": "virtual",
        "channel": "here",
        "fd": True,
        "bitrate": 500_000,
    }


def test_later_files_override_earlier_ones(home: Path) -> None:
    for number, name in enumerate(("can.conf", "system.conf", ".can", ".canrc")):
        (home / name).write_text(f"[default]\nchannel = {number}\nk{number} = {number}\n")
    assert resolved(interface="virtual") == {
        "interface": "virtual",
        "channel": 3,
        **{f"k{number}": number for number in range(4)},
    }


def test_a_section_of_the_context_goes_before_the_default_of_a_later_file(home: Path) -> None:
    (home / "can.conf").write_text("[bench]\nchannel = there\n")
    (home / ".canrc").write_text("[default]\nchannel = here\n")
    assert resolved("bench", interface="virtual")["channel"] == "there"
    assert resolved(interface="virtual")["channel"] == "here"


def test_ignore_config_takes_the_arguments_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".canrc").write_text("broken")
    monkeypatch.setenv("CAN_CONFIG", "broken")
    canbroker.rc["bitrate"] = 5
    found = resolve({"channel": "x"}, canbroker.rc, ignore_config=True, channels=broker_with())
    assert plain(found) == {"channel": "x"}
    with pytest.raises(CanInterfaceNotImplementedError, match=r"ignore_config"):
        resolve({}, {}, ignore_config=True, channels=broker_with())


def test_another_dict_may_be_put_in_the_place_of_rc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canbroker, "rc", {"channel": "x", "interface": "virtual", "n": "7"})
    assert resolved() == {"channel": "x", "interface": "virtual", "n": 7}


def test_python_cans_former_name_of_the_interface(home: Path) -> None:
    file = home / ".canrc"
    file.write_text("[default]\nbustype = slcan\n")
    assert resolved(channel="x") == {"channel": "x", "interface": "slcan"}
    file.write_text("[default]\ninterface = virtual\nbustype = slcan\n")
    assert resolved(channel="x") == {"channel": "x", "interface": "virtual"}
    assert resolved(channel="x", bustype="socketcan")["interface"] == "socketcan"


# --------------------------------------------------------------------------------------- casting


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500000", 500_000),
        ("-1", -1),
        ("+1", 1),
        ("0", 0),
        ("0.5", 0.5),
        (".5e-3", 0.0005),
        ("True", True),
        ("false", False),
        ("0014", "0014"),  # a register
        ("1e5", "1e5"),
        ("0x10", "0x10"),
        ("yes", "yes"),
        ("", ""),
        ("٣", "٣"),
        ("9" * 19, "9" * 19),
    ],
)
def test_texts_are_cast(text: str, value: Any) -> None:
    assert (cast(text), type(cast(text))) == (value, type(value))


@unhurried
@given(st.one_of(st.integers(-(10**18) + 1, 10**18 - 1).map(str), st.text(string.printable)))
@example("1.5e+3")
def test_what_is_cast_is_cast_as_by_python_can(text: str) -> None:
    value = cast(text)
    if not isinstance(value, str):
        theirs = can.util.cast_from_string(text)
        assert (value, type(value)) == (theirs, type(theirs))


def test_every_place_is_cast_and_the_channel_of_an_argument_is_not(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".canrc").write_text("[default]\na = 1\n")
    monkeypatch.setenv("CAN_CONFIG", '{"b": "1.5", "channel": "7"}')
    canbroker.rc["c"] = "true"
    assert resolved(interface="virtual", d="2") == {
        "interface": "virtual",
        "channel": 7,
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": 2,
    }
    assert resolved(interface="virtual", channel="7")["channel"] == "7"


def test_registers_in_hex_digits_stay_a_text() -> None:
    assert resolved(interface="slcan", channel="x", btr="4914")["btr"] == "4914"


def test_fd_and_receive_own_messages_are_truth_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAN_CONFIG", '{"fd": 1, "receive_own_messages": "0"}')
    found = resolved(interface="virtual", channel="x")
    assert found["fd"] is True
    assert found["receive_own_messages"] is False
    assert resolved(interface="virtual", channel="x", fd=None)["fd"] is None


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("fd", "no", "fd must be true or false, got 'no'"),
        ("receive_own_messages", "yes", "receive_own_messages must be true or false"),
        ("can_filters", "100:7ff", "can_filters must be a list"),
        ("broker", 5, "broker must be a text"),
        ("timing", "fast", "timing must be a BitTiming"),
    ],
)
def test_a_value_that_cannot_be_meant_names_its_origin(
    key: str, value: Any, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAN_CONFIG", json.dumps({key: value}))
    with pytest.raises(CanInitializationError, match=expected) as raised:
        resolved(interface="virtual", channel="x")
    assert "environment variable CAN_CONFIG" in str(raised.value)


def test_filters_may_be_configured_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    filters = [{"can_id": 1, "can_mask": 7}]
    monkeypatch.setenv("CAN_CONFIG", json.dumps({"can_filters": filters}))
    found = resolve({"channel": "x"}, {}, channels=broker_with())
    assert found.get("can_filters") == filters
    assert found.parameters() == {}


# --------------------------------------------------------------------------------- broken sources


@pytest.mark.parametrize(
    ("text", "line", "fault"),
    [
        (b"interface = x\n", 1, "a section must come first"),
        (b"[default]\na = 1\n\nnonsense\n", 4, "neither"),
        (b"[default]\na = 1\nb = 2\na = 3\n", 4, "a is in section"),
        (b"[default]\n[x]\n[default]\n", 3, r"section \[default\] is there already"),
        (b"[default]\na = 1\nb = %(c)s\n", 3, "c"),
        (b"[DEFAULT]\na = 100%\n[default]\n", 2, "%"),
        (b"[default]\na = \xff\n", 2, "not UTF-8"),
    ],
)
def test_a_broken_file_names_file_and_line(text: bytes, line: int, fault: str, home: Path) -> None:
    file = home / ".can"
    file.write_bytes(text)
    with pytest.raises(
        CanInitializationError, match=f"^{re.escape(str(file))}, line {line}: .*{fault}"
    ):
        gather({"interface": "virtual", "channel": "x"}, canbroker.rc)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_file_of_another_systems_editor(mark: bytes, end: bytes, home: Path) -> None:
    file = home / ".can"
    lines = [b"[default]", b"interface = virtual", b"channel = K\xc3\xb6rper"]
    file.write_bytes(mark + end.join(lines) + end)
    found = resolved()
    assert (found["interface"], found["channel"]) == ("virtual", "Körper")
    for wrong, said in ((b"\xff", "not UTF-8"), (b"nonsense", "neither")):
        file.write_bytes(mark + end.join([*lines, wrong]) + end)
        with pytest.raises(CanInitializationError, match=rf"\.can, line 4: {said}"):
            resolved()


@pytest.mark.parametrize("text", ["{", "5", "[]", "null", '{"a": 1} x', "[" * 5000, "\udcff"])
@pytest.mark.parametrize("context", [None, "bench"])
def test_broken_json_names_the_variable(
    text: str, context: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "CAN_CONFIG_bench" if context else "CAN_CONFIG"
    monkeypatch.setenv(name, text)
    with pytest.raises(
        CanInitializationError, match=f"^environment variable {name} must be a JSON object: "
    ):
        gather({}, canbroker.rc, context)


def test_a_file_that_cannot_be_read_is_named(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / ".can").mkdir()
    with pytest.raises(CanInterfaceNotImplementedError) as raised:
        resolved()
    fault = os.strerror(errno.EISDIR)
    assert f"{home}/.can (cannot be read: {fault})" in str(raised.value)
    [record] = caplog.records
    assert (record.name, record.levelname) == ("canbroker.bus", "WARNING")
    assert record.getMessage() == f"configuration {home}/.can cannot be read: {fault}"


ini_words = st.text(string.ascii_letters + "[]=:%#; \t\\\x00é", max_size=8)


@unhurried
@given(st.lists(ini_words, max_size=8).map("\n".join))
@example("[default]\na=1\n  b=2\n\n c\n")
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        file = Path("f.ini")
        patch.setattr(sources, "config_files", lambda: [file])
        patch.setattr(sources, "_text", lambda _: f"[default]\n{text}")
        try:
            values, _ = sources.from_files(None)
        except CanInitializationError as error:
            refusal = str(error)
        else:
            refusal = ""
    if refusal:
        assert re.match(r"f\.ini, line \d+: ", refusal)
        return
    lines = ["", "[default]", *text.split("\n")]
    for key, value in values.items():
        number = re.fullmatch(r"f\.ini:(\d+) \[.*\]", value.origin)
        assert number
        if key not in {"interface"}:  # it may have been spelt bustype
            assert lines[int(number[1])].strip().startswith(key)


def test_lines_of_values_that_go_on(home: Path) -> None:
    (home / ".canrc").write_text(
        "# made by hand\n[default]\r\nfirst = 1\n   second = 3\n\nsecond : 2\n[DEFAULT]\nthird=%%\n"
    )
    assert origin("second") == f"{home}/.canrc:6 [default]"
    assert origin("third") == f"{home}/.canrc:8 [DEFAULT]"
    assert gather({}, canbroker.rc).get("third") == "%"
    assert gather({}, canbroker.rc).get("first") == "1\nsecond = 3"


# ------------------------------------------------------------------------------ names of channels


def test_nothing_says_what_was_looked_at_and_what_the_broker_has(home: Path) -> None:
    with pytest.raises(CanInterfaceNotImplementedError) as raised:
        resolved("bench", "body", "rest")
    text = str(raised.value)
    assert text.startswith("no interface and no channel given")
    assert "channels of the broker: 'body', 'rest'" in text
    for name in VARIABLES:
        assert f"{name}_bench" in text
    for place in ("canbroker.rc", f"{home}/.canrc (not there)", f"{home}/system.conf (not there)"):
        assert place in text


def test_an_interface_needs_a_channel() -> None:
    with pytest.raises(CanInterfaceNotImplementedError, match=r"^no channel given: .*: none$"):
        resolved(interface="slcan")


def test_virtual_has_a_channel_of_its_own() -> None:
    assert resolved(interface="virtual") == {"interface": "virtual", "channel": "channel-0"}
    with pytest.raises(
        CanInterfaceNotImplementedError, match=r"^no interface and no channel given"
    ):
        resolved()


@pytest.fixture
def socketcan_by_file(home: Path) -> None:
    (home / ".canrc").write_text(
        "[default]\ninterface = socketcan\nchannel = can0\nbitrate = 5\nreceive_own_messages = 1\n"
    )


@pytest.mark.usefixtures("socketcan_by_file")
def test_a_name_of_the_brokers_goes_before_the_interface_of_a_file() -> None:
    of_the_broker = {"channel": "body", "receive_own_messages": True}
    assert resolved(None, "body", channel="body") == of_the_broker
    assert resolved(None, "body", channel="body", fd=True) == of_the_broker | {"fd": True}


@pytest.mark.usefixtures("socketcan_by_file")
def test_a_name_that_the_broker_does_not_have_is_the_interfaces() -> None:
    expected = {"interface": "socketcan", "channel": "can7", "bitrate": 5}
    assert resolved(None, "body", channel="can7").items() >= expected.items()


@pytest.mark.usefixtures("socketcan_by_file")
def test_an_interface_beside_or_above_the_channel_is_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert resolved(None, "can0")["interface"] == "socketcan"
    assert resolved(None, "can0", channel="can0", interface="slcan")["interface"] == "slcan"
    monkeypatch.setenv("CAN_INTERFACE", "virtual")
    assert resolved(None, "can0")["interface"] == "virtual"
    monkeypatch.setenv("CAN_CHANNEL", "can0")
    assert resolved(None, "can0")["interface"] == "virtual"


@pytest.mark.usefixtures("socketcan_by_file")
def test_the_broker_is_asked_only_if_that_decides() -> None:
    def unexpected(_: str | None) -> Sequence[str]:
        pytest.fail("the broker was asked")

    resolve({"channel": "x", "interface": "virtual"}, {}, channels=unexpected)
    resolve({}, {}, channels=unexpected)
    resolve({"channel": "x"}, {}, ignore_config=True, channels=unexpected)


@pytest.mark.usefixtures("socketcan_by_file")
def test_it_is_the_broker_that_is_given() -> None:
    asked: list[str | None] = []

    def names(broker: str | None) -> Sequence[str]:
        asked.append(broker)
        return ["body"]

    resolve({"channel": "body", "broker": "ipc:///b/broker"}, {}, channels=names)
    assert asked == ["ipc:///b/broker"]


def test_without_any_interface_the_bitrate_of_the_environment_is_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CAN_BITRATE", "250000")
    assert resolved(channel="body") == {"channel": "body"}
    monkeypatch.setenv("CAN_CHANNEL", "body")
    assert resolved() == {"channel": "body", "bitrate": 250_000}


@pytest.mark.usefixtures("socketcan_by_file")
def test_our_own_name_as_interface_means_a_channel_of_the_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CAN_INTERFACE", "canbroker")
    assert "interface" not in resolved(channel="body")
    assert resolved(channel="body", interface="canbroker") == resolved(channel="body")


# ---------------------------------------------------------------------------------------- logging


def test_what_files_have_said_is_logged(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (home / ".canrc").write_text("[default]\nbitrate = 5\nfd = true\n")
    resolved(interface="virtual", channel="x", fd=False)
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "canbroker.bus",
            "INFO",
            f"from configuration files: bitrate=5 ({home}/.canrc:2 [default])",
        )
    ]


def test_what_nobody_has_injected_is_not_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("CAN_BITRATE", "5")
    resolved(interface="virtual", channel="x")
    assert not caplog.records


def test_an_error_is_explained_with_the_origins_of_what_it_names() -> None:
    values = {
        "bitrate": Value("x", Precedence.VARIABLE, "environment variable CAN_BITRATE"),
        "fd": Value(True, Precedence.ARGUMENT, "argument"),
        "channel": Value("c", Precedence.RC, "canbroker.rc"),
    }
    found = Settings(values, [])
    assert found.explain("bad bitrate for fd") == (
        "bad bitrate for fd (bitrate is from environment variable CAN_BITRATE)"
    )
    assert found.explain("data_bitrate is bad") == "data_bitrate is bad"


# ----------------------------------------------------------------------------------------- timing


@pytest.mark.parametrize("interface", ["socketcan", "virtual", None])
def test_our_own_interfaces_are_told_rates(interface: str | None) -> None:
    for timing in (TIMING, dict(TIMING)):
        assert resolved(interface=interface, channel="x", timing=timing)["bitrate"] == 250_000
    found = resolve(
        {"interface": interface, "channel": "x", "timing": TIMING_FD}, {}, channels=broker_with()
    )
    assert found.parameters() == {"bitrate": 500_000, "data_bitrate": 2_000_000, "fd": True}
    assert found.values["data_bitrate"].origin == "argument"


@unhurried
@given(
    f_clock=st.integers(1_000_000, 160_000_000),
    brp=st.integers(1, 64),
    tseg1=st.integers(8, 16),
    tseg2=st.integers(1, 8),
)
def test_rates_are_those_of_python_can(f_clock: int, brp: int, tseg1: int, tseg2: int) -> None:
    theirs = can.BitTiming(f_clock, brp, tseg1, tseg2, sjw=1)
    assert bit_timing.rates(bit_timing.registers(theirs)) == {"bitrate": theirs.bitrate}
    fd = can.BitTimingFd(f_clock, brp, tseg1, tseg2, 1, brp, tseg1, tseg2, 1)
    assert bit_timing.rates(bit_timing.registers(fd)) == {
        "bitrate": fd.nom_bitrate,
        "data_bitrate": fd.data_bitrate,
        "fd": True,
    }


def test_a_serial_adapter_is_told_registers_as_its_protocol_writes_them(home: Path) -> None:
    (home / ".canrc").write_text("[default]\nbitrate = 125000\nbtr = 001C\n")
    for timing in (TIMING, dict(TIMING)):
        found = resolved(interface="slcan", channel="x", timing=timing)
        btr = f"{TIMING.btr0:02X}{TIMING.btr1:02X}"
        assert found == {"interface": "slcan", "channel": "x", "btr": btr}
    found = resolved(interface="slcan", channel="x", timing=TIMING_FD)
    assert (found["bitrate"], found["data_bitrate"]) == (500_000, 2_000_000)
    assert "btr" not in found


def test_a_btr_of_a_stronger_place_goes_before_a_timing(home: Path) -> None:
    lines = "".join(f"{name} = {value}\n" for name, value in TIMING.items())
    (home / ".canrc").write_text(f"[default]\n{lines}")
    found = resolved(interface="slcan", channel="x", btr="001C")
    assert found == {"interface": "slcan", "channel": "x", "btr": "001C"}


@unhurried
@given(
    faster=st.integers(1, 8),
    brp=st.integers(1, 64),
    tseg1=st.integers(8, 16),
    tseg2=st.integers(1, 8),
    sjw=st.integers(1, 4),
    nof_samples=st.sampled_from([1, 3]),
)
def test_registers_of_any_clock_are_written_for_that_of_the_protocol(
    faster: int, brp: int, tseg1: int, tseg2: int, sjw: int, nof_samples: int
) -> None:
    rest = (tseg1, tseg2, min(sjw, tseg2), nof_samples)
    theirs = can.BitTiming(8_000_000, brp, *rest, strict=False)
    given = bit_timing.registers(theirs) | {"f_clock": 8_000_000 * faster, "brp": brp * faster}
    btr = bit_timing.btr(given)
    assert btr == f"{theirs.btr0:02X}{theirs.btr1:02X}"
    assert bit_timing.rate_of_btr(btr) == theirs.bitrate


@pytest.mark.parametrize(
    "other", [{"f_clock": 20_000_000}, {"brp": 65}, {"tseg1": 17}, {"tseg2": 9}, {"sjw": 5}]
)
def test_registers_that_its_protocol_has_no_room_for_are_told_as_rates(
    other: dict[str, int],
) -> None:
    timing = dict(TIMING) | other
    assert bit_timing.btr(timing) is None
    found = resolved(interface="slcan", channel="x", timing=timing)
    assert found["bitrate"] == bit_timing.rates(timing)["bitrate"]


@pytest.mark.parametrize("timing", [TIMING, TIMING_FD])
def test_python_cans_drivers_are_given_the_registers(
    timing: can.BitTiming | can.BitTimingFd,
) -> None:
    found = resolved(interface="pcan", channel="PCAN_USBBUS1", timing=timing)
    assert found == {"interface": "pcan", "channel": "PCAN_USBBUS1", **timing}
    options = parse("pcan", {key: found[key] for key in found if key != "interface"})
    assert driver._with_timing({**options.parameters, "serial": 5}) == {
        "serial": 5,
        "timing": timing,
    }


def test_registers_may_be_configured_one_by_one(home: Path) -> None:
    lines = "".join(f"{name} = {value}\n" for name, value in TIMING.items())
    (home / ".canrc").write_text(f"[default]\n{lines}")
    assert resolved(interface="virtual", channel="x")["bitrate"] == 250_000
    assert resolved(interface="pcan", channel="x").items() >= dict(TIMING).items()
    stronger = resolved(interface="pcan", channel="x", bitrate=5)
    assert stronger == {"interface": "pcan", "channel": "x", "bitrate": 5}


def test_some_registers_are_left_to_the_backend() -> None:
    given = {"interface": "virtual", "channel": "x", "brp": 1}
    assert plain(resolve(given, {}, channels=broker_with())) == given


def test_a_timing_goes_before_a_bitrate_of_a_weaker_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAN_BITRATE", "5")
    assert resolved(interface="virtual", channel="x", timing=TIMING)["bitrate"] == 250_000


@pytest.mark.parametrize(
    ("timing", "expected"),
    [
        ({"f_clock": 1}, "timing must be a BitTiming"),
        ([1], "timing must be a BitTiming"),
        (dict(TIMING) | {"brp": 0}, "brp must be a whole number above 0, got 0"),
        (dict(TIMING) | {"tseg1": 1.5}, "tseg1 must be a whole number above 0, got 1.5"),
        (dict(TIMING) | {"sjw": True}, "sjw must be a whole number above 0, got True"),
    ],
)
def test_a_timing_that_is_none(timing: Any, expected: str) -> None:
    with pytest.raises(CanInitializationError, match=expected):
        resolved(interface="virtual", channel="x", timing=timing)


# ------------------------------------------------------------------------------------------ files


def test_without_a_home_only_the_systems_file_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    assert sources.config_files() == [sources.SYSTEM_FILE]


def test_windows_has_files_of_its_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canbroker.configuration.sources.platform.system", lambda: "Windows")
    monkeypatch.setenv("APPDATA", "data")
    expected = [home / "can.conf", Path("can.ini"), Path("data", "can.ini")]
    assert sources.config_files() == expected


def test_the_keys_of_the_bus_are_arguments_of_the_class() -> None:
    arguments = canbroker.Bus.__init__.__annotations__
    assert arguments.keys() >= sources.OWN
