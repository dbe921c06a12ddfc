"""What each simulated firmware does, by the source that its module names."""

from __future__ import annotations

import pytest

from canbroker.backends.slcan import commands
from canbroker.model.bus_time import bus_time_ns
from canbroker.model.frame import BITRATE_SWITCH, EXTENDED, FD, REMOTE, Frame
from canbroker.simulator.firmware import FIRMWARES, Firmware, State, create
from canbroker.simulator.options import SimulatorOptions
from canbroker.system.clock import MILLISECOND, SECOND

FULL = Frame(0, 0x123, 0, bytes(range(8)))


def adapter(firmware: str, **options: float) -> Firmware:
    return create(SimulatorOptions(firmware=firmware, **options))  # type: ignore[arg-type]


def say(device: Firmware, *lines: bytes, now_ns: int = 0) -> bytes:
    """What it answers, once the lines have arrived."""
    answers = [device.receive(line + b"\r", now_ns) for line in lines]
    return b"".join(answers) + device.poll(max(now_ns, device.arrived_ns))


def later(device: Firmware, now_ns: int) -> list[str]:
    """The frames that have left by then."""
    device.poll(now_ns)
    return list(device.ledger.accepted)


def test_an_unknown_firmware_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"lawicel, canable.*'tesla'"):
        adapter("tesla")


@pytest.mark.parametrize("name", FIRMWARES)
def test_every_module_names_its_source(name: str) -> None:
    module = __import__(FIRMWARES[name].__module__, fromlist=["__doc__"])
    assert "Source: " in (module.__doc__ or "")


@pytest.mark.parametrize("name", FIRMWARES)
@pytest.mark.parametrize("size", [1, 3, 64])
def test_it_does_not_matter_how_a_host_cuts_its_lines(name: str, size: int) -> None:
    whole, cut = adapter(name), adapter(name)
    stream = b"C\rS6\rO\rt1232AABB\rr1230\rV\r\rx000001231CC\rM1\rt12\rt4560\r"
    answers = whole.receive(stream, 0) + whole.poll(SECOND)
    pieces = [cut.receive(stream[at : at + size], 0) for at in range(0, len(stream), size)]
    assert b"".join(pieces) + cut.poll(SECOND) == answers
    assert list(cut.ledger.accepted) == list(whole.ledger.accepted)


# ----------------------------------------------------------------------------------------- lawicel


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        ([b"M00000000", b"mFFFFFFFF", b"W0", b"U1"], b"\r\r\r\r"),
        ([b"M0000", b"W2", b"U7", b"Q1"], b"\a\a\a\a"),
        ([b"O", b"Q1", b"M00000000", b"X1"], b"\r\r\a\a"),
        ([b"v", b"x000001230", b"E"], b"\a\a\a"),
        ([b"X0", b"O", b"t1230", b"P", b"A"], b"\r\r\r\rA\r"),
        ([b"O", b"P", b"A"], b"\r\a\a"),
    ],
)
def test_lawicel_commands(lines: list[bytes], answers: bytes) -> None:
    assert say(adapter("lawicel"), *lines) == answers


def test_lawicel_without_auto_poll_keeps_frames_until_it_is_asked() -> None:
    device = adapter("lawicel")
    say(device, b"X0", b"O")
    assert [device.line(Frame(0, number, 0, b""), 0) for number in range(3)] == [b"", b"", b""]
    assert say(device, b"P", b"A", b"P") == b"t0000\r" + b"t0010\rt0020\rA\r" + b"\r"


def test_lawicel_has_no_fd_and_its_remote_frames_carry_no_data() -> None:
    device = adapter("lawicel")
    assert not device.carries(Frame(0, 1, FD, b""))
    assert device.line(Frame(0, 0x123, REMOTE, 4), 0) == b"r1234\r"


# ------------------------------------------------------------------------------- canable, canable2


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("canable", b"8ca5d39 https://github.com/normaldotcom/canable-fw.git\r"),
        ("canable2", b"b158aa7 github.com/normaldotcom/canable2-fw.git\r"),
    ],
)
def test_canable_answers_only_what_it_is_asked(name: str, version: bytes) -> None:
    device = adapter(name)
    assert say(device, b"C", b"S6", b"Z1", b"N", b"F", b"O", b"t1230", b"?", b"t123x") == b""
    assert say(device, b"V") == version
    assert device.receive(b"\n\a", 0) == b""


@pytest.mark.parametrize("name", ["canable", "canable2"])
def test_canable_repeats_the_last_command_at_an_empty_line(name: str) -> None:
    device = adapter(name)
    say(device, b"S6", b"O", b"t3212AABB", b"", b"")
    assert later(device, SECOND) == ["321#AABB"] * 3


@pytest.mark.parametrize("name", ["canable", "canable2"])
def test_canable_fills_a_short_line_from_the_one_before(name: str) -> None:
    device = adapter(name)
    say(device, b"O", b"t3214AABBCCDD")
    device.receive(b"t4561", SECOND)  # its host is killed in the middle of a line
    device.receive(b"\r", 2 * SECOND)  # the next one ends it
    assert later(device, 3 * SECOND) == ["321#AABBCCDD", "456#AA"]


@pytest.mark.parametrize(("name", "size"), [("canable", 30), ("canable2", 155)])
def test_canable_begins_anew_behind_a_full_buffer(name: str, size: int) -> None:
    device = adapter(name)
    say(device, b"O", b"t12" + b"0" * (size - 3) + b"t4560")
    assert later(device, SECOND) == ["456#"]
    # Closing by as many letters as the buffer is long: whatever half a line was there is gone.
    device.receive(b"t789", 0)
    say(device, b"C" * (size + 1))
    assert device.state is State.CLOSED
    assert later(device, 2 * SECOND) == ["456#"]


@pytest.mark.parametrize("name", ["canable", "canable2"])
def test_canable_knows_no_listen_only(name: str) -> None:
    device = adapter(name)
    say(device, b"L")
    assert not device.opened
    say(device, b"M1", b"O", b"t1230")  # can_enable() sets the normal mode whatever M1 said
    assert device.state is State.OPEN
    assert later(device, SECOND) == ["123#"]


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("canable", {b"S7": 750_000, b"S8": 1_000_000, b"S9": 125_000}),
        ("canable2", {b"S7": 1_428_571, b"S9": 83_333, b"SA": 125_000}),
    ],
)
def test_canable_rates(name: str, rates: dict[bytes, int]) -> None:
    for command, rate in rates.items():
        device = adapter(name)
        say(device, command)
        assert device.bus.bitrate == rate
        say(device, b"O", b"S6")  # too late
        assert device.bus.bitrate == rate


@pytest.mark.parametrize(("name", "room"), [("canable", 30), ("canable2", 66)])
def test_canable_drops_what_does_not_fit_its_queue_without_a_word(name: str, room: int) -> None:
    device = adapter(name)
    say(device, b"S6", b"O")
    assert say(device, *[b"t1238" + b"00" * 8] * 100) == b""
    assert device.ledger.lost_count == 100 - room
    assert len(later(device, SECOND)) == room


def test_canable_sends_later_what_came_while_it_was_closed() -> None:
    device = adapter("canable")
    say(device, b"t1230")
    assert later(device, SECOND) == []
    say(device, b"O", now_ns=SECOND)
    assert later(device, 2 * SECOND) == ["123#"]


def test_canable_keeps_its_queue_over_a_close() -> None:
    device = adapter("canable")
    say(device, b"S0", b"O", *[b"t1238" + b"00" * 8] * 5, b"C", b"O")
    assert device.ledger.lost_count == 3  # those in the mailboxes
    assert len(later(device, SECOND)) == 2


def test_canable2_drops_what_comes_while_it_is_closed() -> None:
    device = adapter("canable2")
    say(device, b"t1230")
    say(device, b"O")
    assert later(device, SECOND) == []
    assert device.ledger.lost_count == 1
    assert say(device, b"E") == b"CANable Error Register: 4"  # no CR


def test_canable2_transmits_fd_and_takes_x_for_a_frame() -> None:
    device = adapter("canable2")
    say(device, b"Y5", b"S8", b"O", b"d1239" + b"ab" * 12, b"B000001231CC", b"Y2")
    assert later(device, SECOND) == ["123##0" + "AB" * 12, "00000123##1CC"]
    assert device.bus.data_bitrate == 5_000_000
    say(device, b"t3210", b"X", now_ns=SECOND)
    assert later(device, 2 * SECOND)[2:] == ["321#", "321#"]


@pytest.mark.parametrize("name", ["canable", "canable2", "arduino", "esp32"])
def test_remote_frames_are_reported_with_bytes_of_an_earlier_frame(name: str) -> None:
    device = adapter(name)
    remote = Frame(0, 0x123, REMOTE, 2)
    assert device.line(remote, 0) == b"r12320000\r"
    device.line(Frame(0, 0x456, 0, b"\xa1\xb2\xc3"), 0)
    assert device.line(remote, 0) == b"r1232A1B2\r"
    assert device.line(Frame(0, 0x345, REMOTE | EXTENDED, 4), 0) == b"R000003454A1B2C300\r"
    assert device.line(Frame(0, 0x123, REMOTE, 0), 0) == b"r1230\r"


# -------------------------------------------------------------------------------- canable2-lawicel


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        ([b"V", b"N", b"I"], b"VL2K4\rN0001\rI30A0\r"),
        ([b"", b"X1", b"P", b"U1", b"W0", b"W2"], b"\r\a\a\a\a\r"),
        ([b"s001C", b"s10460908", b"y021E0908", b"s00460908"], b"\a\r\r\a"),
        ([b"Y8", b"Y3", b"S7", b"S9"], b"\r\a\r\a"),
        ([b"f", b"O"], b"\a\r"),
        ([b"L", b"t1230"], b"\r\a"),
    ],
)
def test_canable2_lawicel_commands(lines: list[bytes], answers: bytes) -> None:
    assert say(adapter("canable2-lawicel"), *lines) == answers


def test_canable2_lawicel_takes_its_rates_from_prescaler_and_segments() -> None:
    device = adapter("canable2-lawicel")
    assert device.bus.bitrate == 125_000
    say(device, b"s01470808", b"y010D0203")
    assert (device.bus.bitrate, device.bus.data_bitrate) == (2_000_000, 10_000_000)
    frame = Frame(0, 1, FD | BITRATE_SWITCH, bytes(64))
    assert device.carries(frame)
    assert device.line(frame, 0).startswith(b"b001F00")


# --------------------------------------------------------------------------------------- candapter


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        ([b"O"], b"\a"),  # S comes first
        ([b"C"], b"\a"),
        ([b"S6", b"O", b"C"], b"\x06\x06\x06"),
        ([b"s6", b"o", b"s5"], b"\x06\x06\a"),
        ([b"S6", b"O", b"O"], b"\x06\x06\a"),
        ([b"S9", b"Z1", b"L", b"N", b"F", b"M1"], b"\a\a\a\a\a\a"),
        ([b"t1230"], b"\a"),
        ([b"S6", b"O", b"t1230", b"T1231AA", b"x000001230"], b"\x06" * 5),
        ([b"S6", b"O", b"T000001230", b"r1230", b"t1232AA"], b"\x06\x06\a\a\a"),
        ([b"", b"", b"S6"], b"\x06"),
    ],
)
def test_candapter_commands(lines: list[bytes], answers: bytes) -> None:
    assert say(adapter("candapter"), *lines) == answers


def test_candapter_frames() -> None:
    device = adapter("candapter")
    device.receive(b"S6\nO\nT1232AABB\nX000001231CC\n", 0)
    assert list(device.ledger.accepted) == ["123#AABB", "00000123#CC"]
    assert device.line(Frame(0, 0x123, EXTENDED, b"\xaa"), 0) == b"x000001231AA\r"
    assert device.line(Frame(0, 0x123, 0, b"\xaa"), 0) == b"t1231AA\r"
    assert not device.carries(Frame(0, 0x123, REMOTE, 0))


def test_candapter_refuses_a_frame_for_which_it_has_no_room() -> None:
    device = adapter("candapter", queue=2)
    assert say(device, b"S6", b"O", b"t1230", b"t1230", b"t1230") == b"\x06\x06\x06\x06\a"


# ------------------------------------------------------------------------------------ the sketches


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        ([b"V", b"N", b"F"], b"V1234\rN1234\rF12\r"),
        ([b"C", b"O", b"O", b"C"], b"\r\r\r\r"),
        ([b"S0", b"S3", b"S7", b"S8", b"S9"], b"\a\r\a\r\a"),
        ([b"Z0", b"Z1", b"Z2"], b"\r\r\a\r"),
        ([b"M00000000", b"m", b"s001C", b"L", b"", b"?"], b"\r\r\a\a\a\a"),
    ],
)
def test_arduino_commands(lines: list[bytes], answers: bytes) -> None:
    assert say(adapter("arduino"), *lines) == answers


def test_arduino_acknowledges_what_it_does_not_send() -> None:
    device = adapter("arduino")
    for line in (b"t1232AA", b"t12", b"r1232", b"T00000123"):
        assert say(device, line) == b"\r"
    assert later(device, SECOND) == []
    assert say(device, b"r12320000", b"R000001230") == b"\r\r"
    assert later(device, 2 * SECOND) == ["123#R2", "00000123#R"]


def test_arduino_receives_and_transmits_whether_or_not_it_is_open() -> None:
    device = adapter("arduino")
    assert device.receives
    say(device, b"C", b"t1230")
    assert later(device, SECOND) == ["123#"]


def test_arduino_counts_frames_for_a_time_stamp() -> None:
    device = adapter("arduino")
    say(device, b"Z1")
    lines = [device.line(Frame(0, 1, 0, b""), number * SECOND) for number in range(3)]
    assert lines == [b"t00100000\r", b"t00100001\r", b"t00100002\r"]


def test_arduino_waits_for_a_buffer_and_sends_the_highest_first() -> None:
    device = adapter("arduino")
    say(device, b"S3", b"O")
    lines = [b"t%03d8" % number + b"00" * 8 for number in range(5)]
    assert say(device, *lines[:3]) == b"\r\r\r"
    assert say(device, lines[3]) == b""  # until a buffer is free
    assert device.poll(bus_time_ns(FULL, 100_000) * 2) == b"\r"
    accepted = later(device, SECOND)
    assert [frame[:3] for frame in accepted] == ["000", "002", "001", "003"]


def test_arduino_loses_bytes_while_it_waits() -> None:
    device = adapter("arduino")
    say(device, b"S3", b"O")
    say(device, *[b"t1238" + b"00" * 8] * 20)
    assert 4 <= len(later(device, SECOND)) < 12


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        ([b"V", b"N", b"F"], b"V1234\rN2208\rF00\r"),
        ([b"C", b"O", b"O", b"S6", b"C"], b"\r\r\r\r\r"),
        ([b"S2", b"S3", b"S7", b"S8", b"S9"], b"\a\r\r\r\a"),
        ([b"Z0", b"Z1", b"Z2"], b"\r\r"),
        ([b"M00000000", b"m", b"s001C", b"L", b"", b"?"], b"\r\r\a\a\a\a"),
        ([b"t1230", b"r1230"], b"\r\r"),  # closed: sent is nothing
    ],
)
def test_esp32_commands(lines: list[bytes], answers: bytes) -> None:
    device = adapter("esp32")
    assert say(device, *lines) == answers
    assert not device.ledger.accepted


def test_esp32_loses_a_frame_that_comes_while_one_is_on_the_bus() -> None:
    device = adapter("esp32")
    say(device, b"S3", b"O")
    line = b"t1238" + b"00" * 8
    assert say(device, line, line, line) == b"\r\r\r"
    assert (device.ledger.accepted_count, device.ledger.lost_count) == (1, 2)
    say(device, line, now_ns=SECOND)
    assert device.ledger.accepted_count == 2


def test_esp32_has_a_clock_and_adds_a_line_end_on_request() -> None:
    device = adapter("esp32", boot=0.0)
    device.port_opened(SECOND)
    assert device.poll(SECOND).endswith(b"BT Switch OFF\r\n")
    assert say(device, b"O", b"Z1", b"l", now_ns=SECOND) == b"\r\r\a"
    assert device.line(Frame(0, 1, 0, b""), 62 * SECOND) == b"t001003E8\r\r\n"


@pytest.mark.parametrize(("name", "size"), [("arduino", 33), ("esp32", 32)])
def test_a_sketch_refuses_a_line_that_is_longer_than_its_buffer(name: str, size: int) -> None:
    device = adapter(name)
    assert device.receive(b"C" * size, 0) == b""
    assert device.poll(device.arrived_ns) == b"\a"
    assert say(device, b"V") == b"V1234\r"


def test_arduino_boots_deaf_when_its_port_is_opened() -> None:
    device = adapter("arduino")
    say(device, b"Z1", b"O")
    device.port_opened(SECOND)
    assert device.state is State.CLOSED
    assert not device.receives
    assert device.due_ns() == 3 * SECOND
    assert say(device, b"V", now_ns=2 * SECOND) == b""
    assert device.poll(3 * SECOND) == b""
    assert say(device, b"V", now_ns=3 * SECOND) == b"V1234\r"
    assert device.line(Frame(0, 1, 0, b""), 4 * SECOND) == b"t0010\r"  # Z1 is forgotten


def test_esp32_boots_with_text_and_answers_what_it_was_asked_meanwhile() -> None:
    device = adapter("esp32")
    device.port_opened(0)
    text = device.poll(0)
    assert text.startswith(b"ets Jun  8 2016")
    assert b"\r\n\r\nrst:0x1" in text
    assert say(device, b"V", now_ns=100 * MILLISECOND) == b""  # nothing listens yet
    assert say(device, b"V", b"V", now_ns=SECOND) == b""
    assert device.due_ns() == 2_400 * MILLISECOND
    assert device.poll(2_400 * MILLISECOND) == b"BT Switch OFF\r\nV1234\rV1234\r"


@pytest.mark.parametrize("name", FIRMWARES)
def test_losing_power_closes_every_adapter(name: str) -> None:
    device = adapter(name)
    say(device, b"S6", b"O")
    assert device.opened == 1
    device.power_off()
    assert device.state is State.CLOSED


@pytest.mark.parametrize("name", FIRMWARES)
@pytest.mark.parametrize("closing", [commands.closing(), b"C\r", b"\rC\r"])
def test_what_a_broker_writes_first_transmits_nothing(name: str, closing: bytes) -> None:
    """Whatever a program that was killed has left in the line buffer, cut anywhere; the last two
    closings are what others write, and transmit on some."""
    transmitted = 0
    for line in (b"t1238" + b"00" * 8, b"T000001238" + b"A5" * 8, b"r1232", b"t7FF0"):
        for end in range(len(line) + 1):
            device = adapter(name)
            say(device, b"C", b"S8", b"O", b"t0FF2AABB")
            before = later(device, SECOND)
            device.receive(line[:end] + closing, SECOND)
            say(device, b"V", b"C", b"O", now_ns=2 * SECOND)
            transmitted += len(later(device, 3 * SECOND)) - len(before)
    if closing == commands.closing():
        assert transmitted == 0
    elif name in ("canable", "esp32"):
        assert transmitted > 0
