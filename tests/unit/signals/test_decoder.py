"""Decoded frames: the same as cantools', from databases of all formats."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.errors import CanInitializationError
from canbroker.model.frame import ERROR, EXTENDED, FD, REMOTE, Frame
from canbroker.signals import load_databases
from canbroker.signals.values import SignalValue
from tests.support.arxml import car_arxml
from tests.support.databases import CAR_DBC

cantools: Any = pytest.importorskip("cantools", reason="needs the extra signals; make ecosystem")
format_message: Any = pytest.importorskip(
    "cantools.subparsers.__utils__"
).format_message_by_frame_id
Decoder: Any = pytest.importorskip("canbroker.signals.decoder").Decoder

_CAR: Final = Decoder.parse(CAR_DBC.encode(), "car.dbc")
_DATABASE: Final = cantools.database.load_string(CAR_DBC, "dbc")


def frame(identifier: int, data: bytes | int, flags: int = 0) -> Frame:
    return Frame(0, identifier, flags, data)


def _bytes_for(message: tuple[int, int]) -> st.SearchStrategy[tuple[int, bytes]]:
    """Data of any length up to that of a message; often with the headers of contained ones."""
    identifier, length = message
    part = st.sampled_from([b"\x00\x00\x10\x01", b"\x00\x00\x20\x02", b"\x01", b"\x00\x07"])
    data = st.one_of(
        st.binary(max_size=length),
        st.binary(min_size=length, max_size=length),
        st.lists(part, max_size=8).map(b"".join),
    )
    return data.map(lambda content: (identifier, content[:length]))


def values(decoded: Any) -> dict[str, str]:
    return {each.name: str(each) for each in decoded.signals}


@given(
    st.sampled_from([0x123, 0x1F4, 0x258, 0x259, 0x2BC, 0x18FEF1FE, 0x7FF]),
    st.one_of(st.binary(max_size=8), st.binary(min_size=20, max_size=20)),
)
def test_the_text_is_that_of_cantools(identifier: int, data: bytes) -> None:
    sent = frame(identifier, data, EXTENDED if identifier > 0x7FF else 0)
    theirs = format_message(
        _DATABASE, identifier, data, True, True, True, allow_truncated=False, allow_excess=False
    )
    decoded = _CAR.decode(sent)
    if decoded is None:
        assert theirs.startswith(" Unknown frame id")
    else:
        assert f" {decoded}" == theirs


def test_signals_have_numbers_labels_and_units() -> None:
    decoded = _CAR.decode(frame(0x123, struct.pack("<HBb4x", 875, 4, -3)))
    assert decoded.signals == (
        SignalValue("Speed", 87.5, None, "km/h"),
        SignalValue("Gear", 4, "Drive", ""),
        SignalValue("Slope", -1.5, None, "%"),
    )
    assert [str(each) for each in decoded.signals] == ["87.5 km/h", "Drive", "-1.5 %"]


def test_a_multiplexed_message_has_the_signals_that_were_sent() -> None:
    assert values(_CAR.decode(frame(500, b"\x00\x0c\x00"))) == {"Which": "0", "Voltage": "12 V"}
    assert values(_CAR.decode(frame(500, b"\x01\x0a\x00"))) == {"Which": "1", "Current": "5.0 A"}
    unknown = _CAR.decode(frame(500, b"\x07\x00\x00"))
    assert (unknown.message, unknown.signals) == ("Probe", ())
    assert unknown.problem == "expected multiplexer id 0 or 1, but got 7"


def test_data_of_another_length_is_a_problem() -> None:
    assert _CAR.decode(frame(0x123, b"\x01")).problem == "Wrong data size: 1 instead of 8 bytes"
    assert _CAR.decode(frame(700, bytes(8))).problem == "Wrong data size: 8 instead of 2 bytes"


def test_fd_data_may_be_filled_up_to_a_length_that_a_frame_can_have() -> None:
    assert values(_CAR.decode(frame(601, bytes(9) + b"\x07\xcc\xcc", FD))) == {"Tail": "7"}
    assert _CAR.decode(frame(601, bytes(16), FD)).problem
    assert _CAR.decode(frame(601, bytes(9), FD)).problem


def test_numbers_of_64_bits_are_exact() -> None:
    decoded = _CAR.decode(frame(600, bytes([255] * 20), FD))
    assert values(decoded) == {"Last": "-1", "Counter": str(2**64 - 1)}


def test_j1939_messages_are_found_by_their_pgn() -> None:
    data = struct.pack("<3xH3x", 8000)
    for identifier in (0x0CF00427, 0x18F00403):  # other senders, another priority
        assert values(_CAR.decode(frame(identifier, data, EXTENDED))) == {
            "EngineSpeed": "1000.0 rpm"
        }
    asked = _CAR.decode(frame(0x18EA21F9, b"\x01\x00\x00", EXTENDED))  # to one destination
    assert values(asked) == {"Number": "1"}
    assert _CAR.decode(frame(0x18EB21F9, b"\x01\x00\x00", EXTENDED)) is None


@pytest.mark.parametrize(
    "sent",
    [
        frame(0x123, 8, REMOTE),
        frame(0x123, bytes(8), ERROR),
        frame(0x123, bytes(8), EXTENDED),
        frame(0x124, bytes(8)),
    ],
)
def test_frames_without_a_message_are_not_decoded(sent: Frame) -> None:
    assert _CAR.decode(sent) is None
    assert _CAR.name_of(sent) is None


def test_the_name_of_a_message_is_known_without_its_data() -> None:
    assert _CAR.name_of(frame(0x123, b"")) == "Motion"


@pytest.mark.parametrize("form", ["kcd", "sym"])
def test_other_formats_say_the_same(form: str, tmp_path: Path) -> None:
    plain = cantools.database.load_string(CAR_DBC.partition("BO_ 600")[0], "dbc", strict=False)
    path = tmp_path / f"car.{form}"
    cantools.database.dump_file(plain, path)
    decoder = load_databases([path])
    sent = frame(0x123, struct.pack("<HBb4x", 875, 3, -3))
    assert values(decoder.decode(sent)) == values(_CAR.decode(sent))


_AUTOSAR: Final = Decoder.parse(car_arxml().encode(), "car.arxml")
_THEIR_AUTOSAR: Final = cantools.database.load_string(car_arxml(), "arxml")


def test_a_description_of_autosar_decodes() -> None:
    data = struct.pack("<HBb", 875, 4, -3) + struct.pack(">HH", 2400, 0)
    decoded = _AUTOSAR.decode(frame(0x123, data))
    assert str(decoded) == "Motion(Speed: 87.5 km/h, Gear: Drive, Slope: -1.5 %, Torque: 475.0 Nm)"
    cold = struct.pack("<f", -7.5)
    assert values(_AUTOSAR.decode(frame(6, cold, EXTENDED))) == {"Outside": "-7.5 degC"}
    assert _AUTOSAR.decode(frame(6, cold)) is None


def test_messages_in_a_container_have_their_signals() -> None:
    front, rear = b"\x00\x00\x10\x01\x01", b"\x00\x00\x20\x02\x2c\x01"
    decoded = _AUTOSAR.decode(frame(0x300, front + rear + b"\x00", FD))
    assert values(decoded) == {"Front.Door": "open", "Rear.Weight": "300 kg"}
    assert decoded.problems == ""
    short, unknown = b"\x00\x00\x20\x01\x2c", b"\x00\x00\x30\x01\x07"
    broken = _AUTOSAR.decode(frame(0x300, front + short + unknown, FD))
    assert values(broken) == {"Front.Door": "open"}
    assert broken.problems.startswith("Rear: Undecodable data: 2c; (Unknown contained message: ")
    assert [each.name for each in _AUTOSAR.signals()][-2:] == ["Front.Door", "Rear.Weight"]


@given(st.sampled_from([(0x123, 8), (0x300, 32)]).flatmap(_bytes_for))
def test_the_text_of_autosar_is_that_of_cantools(sent: tuple[int, bytes]) -> None:
    identifier, data = sent
    theirs = format_message(
        _THEIR_AUTOSAR,
        identifier,
        data,
        True,
        True,
        True,
        allow_truncated=False,
        allow_excess=False,
    )
    assert f" {_AUTOSAR.decode(frame(identifier, data, FD))}" == theirs


def test_of_two_databases_the_first_one_counts(tmp_path: Path) -> None:
    other = CAR_DBC.replace("Motion", "Movement").replace("BO_ 500 Probe", "BO_ 501 Other")
    (tmp_path / "a.dbc").write_text(CAR_DBC)
    (tmp_path / "b.dbc").write_text(other)
    decoder = load_databases([tmp_path / "a.dbc", str(tmp_path / "b.dbc")])
    assert decoder.name == "a.dbc, b.dbc"
    assert decoder.name_of(frame(0x123, b"")) == "Motion"
    assert decoder.name_of(frame(501, b"")) == "Other"


def test_texts_of_a_database_keep_their_letters() -> None:
    named = CAR_DBC.replace('"degC"', '"\N{DEGREE SIGN}C"').encode("cp1252")
    decoded = Decoder.parse(named, "car.dbc").decode(frame(0x18FEF1FE, b"\0\0\0", EXTENDED))
    assert decoded.signals[0].unit == "\N{DEGREE SIGN}C"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("car.dbc", b"nonsense", r"car\.dbc is not a database: DBC: .*line 1"),
        ("car.kcd", b"<a><b></a>", r"car\.kcd is not a database: KCD: .*line 1"),
        ("car.arxml", b"", r"car\.arxml is not a database: ARXML"),
        ("car.sym", b"\xff\x00", r"car\.sym is not a database: SYM"),
        ("car.txt", b"?", r"car\.txt is not a database"),
    ],
)
def test_a_file_that_is_not_a_database_is_refused(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CanInitializationError, match=said):
        load_databases([tmp_path / name])


def test_a_file_that_is_not_there_or_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CanInitializationError, match=r"cannot read .*car\.dbc: No such file"):
        load_databases([tmp_path / "car.dbc"])
    monkeypatch.setattr("canbroker.signals.decoder.MAX_DATABASE_BYTES", 100)
    (tmp_path / "car.dbc").write_text(CAR_DBC)
    with pytest.raises(CanInitializationError, match=r"car\.dbc: a database has"):
        load_databases([tmp_path / "car.dbc"])


def test_without_cantools_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(CanInitializationError, match=r"pip install 'canbroker\[signals\]'"):
        load_databases(["car.dbc"])


def test_a_container_has_the_signals_of_its_messages() -> None:
    signal = cantools.database.Signal("Level", 0, 8, unit="%")
    inner = cantools.database.Message(1, "Tank", 1, [signal], header_id=0x0A0B0C)
    container = cantools.database.Message(
        0x300, "Many", 64, [], contained_messages=[inner], is_fd=True
    )
    database = cantools.database.Database([container])
    decoder = Decoder("car", [container])
    for data in (
        b"\x0a\x0b\x0c\x01\x2a",
        b"\x0a\x0b\x0c\x01\x2a\x01\x02\x03\x02\xff\xee",
        b"\x0a\x0b\x0c\x02\x2a\x2b",
        b"\x0a\x0b\x0c\x09\x2a",
        b"",
    ):
        theirs = format_message(
            database, 0x300, data, True, True, True, allow_truncated=False, allow_excess=False
        )
        assert f" {decoder.decode(frame(0x300, data, FD))}" == theirs
    decoded = decoder.decode(frame(0x300, b"\x0a\x0b\x0c\x01\x2a", FD))
    assert values(decoded) == {"Tank.Level": "42 %"}


@given(st.data())
def test_a_damaged_database_is_refused_or_decodes(data: st.DataObject) -> None:
    content = bytearray(CAR_DBC.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        end = at + data.draw(st.integers(0, 20))
        content[at:end] = data.draw(st.binary(max_size=8) | st.sampled_from([b"0", b"-9", b'"']))
    try:
        decoder = Decoder.parse(bytes(content), "car.dbc")
    except CanInitializationError:
        return
    assert all(info.name for info in decoder.signals())
    for message in decoder.messages:
        flags = EXTENDED if message.is_extended_frame else 0
        sent = frame(message.frame_id, data.draw(st.binary(max_size=8)), flags)
        decoded = decoder.decode(sent)
        assert decoded is None or isinstance(str(decoded), str)
