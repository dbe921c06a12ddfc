"""The slcan backend's parts, and the backend against a peer that answers at exact moments."""

from __future__ import annotations

import os
import select
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from canbroker.backends import AdapterGoneError, Backend, Transmit, open_backend, parse_options
from canbroker.backends.coalescing import Coalescing
from canbroker.backends.slcan.codec import encode
from canbroker.backends.slcan.commands import closing
from canbroker.backends.slcan.dialects import BITRATES, DIALECTS, UNKNOWN, Dialect
from canbroker.backends.slcan.options import AnsweringOptions
from canbroker.backends.slcan.port import Port
from canbroker.backends.slcan.timestamps import AdapterClock, Stamps
from canbroker.backends.slcan.window import ACKNOWLEDGE_NS, RETRY_FOR_NS, WINDOW, TransmitWindow
from canbroker.errors import CanInitializationError
from canbroker.model.frame import BITRATE_SWITCH, ERROR, EXTENDED, FD, HARDWARE_TIMESTAMP, Frame
from canbroker.system import terminals
from canbroker.system.clock import MILLISECOND, SECOND, monotonic_ns, wall_ns
from canbroker.system.portable import PORTABLE
from tests.support.brokers import wait_until
from tests.support.simulated import Peer, collect, opened_slcan, read_count
from tests.support.systems import open_descriptors

#: linux/asm-generic/ioctls.h
_TIOCGEXCL = 0x80045440


def frame(number: int) -> Frame:
    return Frame(0, number, 0, b"")


def transmits(*numbers: int, expires_ns: int = 0) -> list[Transmit]:
    return [Transmit(frame(number), "me", None, 0, expires_ns) for number in numbers]


def numbers(things: list[Transmit] | None) -> list[int]:
    return [item.frame.arbitration_id for item in things or []]


# ----------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"bitrate": 12_345}, ["bitrate", "500000", "12345"]),
        ({"btr": "01c"}, ["btr", "4 hexadecimal digits", "'01c'"]),
        ({"btr": "0_1c"}, ["btr"]),
        ({"bitrate": 500_000, "btr": "001c"}, ["bitrate", "btr"]),
        ({"data_bitrate": 2_000_000}, ["data_bitrate", "fd=True"]),
        ({"data_bitrate": 4_000_000, "fd": True}, ["data_bitrate", "2000000, 5000000"]),
        ({"tty_baudrate": 0}, ["tty_baudrate"]),
        ({"channel": ""}, ["channel"]),
        ({"bitrate": "fast"}, ["bitrate"]),
        ({"speed": 1}, ["'speed'"]),
    ],
)
def test_a_bad_parameter_is_named(parameters: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(CanInitializationError) as caught:
        parse_options("slcan", {"channel": "/dev/x"} | parameters)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("dialect", [*DIALECTS.values(), UNKNOWN], ids=lambda found: found.name)
def test_each_rate_is_had_or_its_lack_is_explained(dialect: Dialect) -> None:
    assert {*dialect.bitrates} | {*dialect.without} == {*BITRATES}
    assert not {*dialect.bitrates} & {*dialect.without}
    assert dialect is UNKNOWN or dialect.source


def test_identity_is_the_device_behind_links_without_its_baud_rate(tmp_path: Path) -> None:
    device, link = tmp_path / "device", tmp_path / "link"
    link.symlink_to(device)
    for channel in (device, link, f"{link}@57600"):
        assert parse_options("slcan", {"channel": str(channel)}).identity == str(device)
    url = "socket://localhost:1234"
    assert parse_options("slcan", {"channel": url}).identity == url


# -------------------------------------------------------------------------------------- timestamps


def test_adapter_time_has_the_least_latency_seen() -> None:
    adapter, start = AdapterClock(), 1_000 * SECOND
    adapter.host_ns(0, start + 9 * MILLISECOND)  # 9 ms under way
    assert adapter.host_ns(100, start + 101 * MILLISECOND) == start + 101 * MILLISECOND
    # From now on the offset is 1 ms, whatever the latency (drift in 100 ms: below 100 µs).
    late = adapter.host_ns(200, start + 250 * MILLISECOND)
    assert abs(late - (start + 201 * MILLISECOND)) < MILLISECOND // 10


def test_adapter_time_goes_on_across_the_wrap_and_long_silence() -> None:
    adapter, start = AdapterClock(), 1_000 * SECOND
    for after_ms in (0, 59_999, 60_000, 60_001, 200_000, 3_600_000, 3_600_001):
        now = start + after_ms * MILLISECOND
        assert adapter.host_ns((5_000 + after_ms) % 60_000, now) == now


def test_adapter_time_never_goes_backwards_nor_ahead_of_now() -> None:
    adapter, now, last = AdapterClock(), 1_000 * SECOND, 0
    for step in range(2_000):
        now += 3 * MILLISECOND
        latency = (step * 7919 % 13) * MILLISECOND
        stamp = adapter.host_ns((now - latency) // MILLISECOND % 60_000, now)
        assert last <= stamp <= now
        last = stamp


def test_adapter_time_follows_a_slow_adapter() -> None:
    adapter, start = AdapterClock(), 1_000 * SECOND
    for second in range(7_200):
        true = start + second * SECOND
        counter = int(second * 1000 * (1 - 100e-6))  # loses 720 ms in these two hours
        stamp = adapter.host_ns(counter % 60_000, true)
    assert abs(stamp - true) < 5 * MILLISECOND


def test_adapter_time_follows_a_wall_clock_that_was_set() -> None:
    adapter = AdapterClock()
    adapter.host_ns(0, 10_000 * SECOND)
    assert adapter.host_ns(1_000, 5_000 * SECOND) == 5_000 * SECOND
    assert adapter.host_ns(2_000, 90_000 * SECOND) == 90_000 * SECOND


# ------------------------------------------------------------------------------------------ window


def test_window_matches_answers_in_order() -> None:
    window = TransmitWindow(encode)
    assert window.room() == WINDOW
    assert window.add(transmits(1, 2, 3), 0) == b"t0010\rt0020\rt0030\r"
    assert window.room() == WINDOW - 3
    assert [numbers(window.taken()) for _ in range(3)] == [[1], [2], [3]]
    assert window.taken() is None
    assert window.refused(0) is False
    assert window.room() == WINDOW


def test_refused_transmits_are_sent_again_alone_and_in_order() -> None:
    window = TransmitWindow(encode)
    window.add(transmits(1, 2, 3), 0)
    assert numbers(window.taken()) == [1]
    assert window.refused(0)
    assert window.room() == 0
    assert window.retry(SECOND // 2) == b""  # 3 is under way still
    assert window.refused(0)
    assert window.retry(0) == b""  # too early
    due = window.due_ns()
    assert due is not None
    assert window.retry(due) == b"t0020\r"
    assert window.retry(SECOND // 2) == b""
    assert window.room() == 0
    assert window.refused(due)
    assert window.retry(SECOND // 2) == b"t0020\r"
    assert numbers(window.taken()) == [2]
    assert window.retry(SECOND // 2) == b"t0030\r"
    assert window.room() == 0  # nothing passes a frame that is being sent again
    assert numbers(window.taken()) == [3]
    assert window.room() == 1  # halved three times


def test_a_refused_transmit_fails_when_a_later_one_was_taken() -> None:
    window = TransmitWindow(encode)
    sent = transmits(1, 2, 3, 4)
    window.add(sent, 0)
    window.refused(0)
    window.refused(0)
    assert numbers(window.taken()) == [1, 2, 3]
    assert [bool(item.failure) for item in sent] == [True, True, False, False]
    assert "BEL" in str(sent[0].failure)
    window.refused(0)
    assert window.retry(SECOND // 2) == b"t0040\r"


def test_what_comes_too_late_for_the_room_waits_behind_the_refused() -> None:
    window = TransmitWindow(encode)
    window.add(transmits(1, 2), 0)
    window.refused(0)
    assert window.add(transmits(3), 0) == b""
    window.refused(0)
    order = []
    while line := window.retry(SECOND // 2):
        order.append(line)
        window.taken()
    assert order == [b"t0010\r", b"t0020\r", b"t0030\r"]


def test_the_window_opens_again_slowly() -> None:
    window = TransmitWindow(encode)
    window.add(transmits(1), 0)
    window.refused(0)
    window.retry(SECOND // 2)
    window.taken()
    assert window.room() == WINDOW // 2
    for number in range(1_000):
        window.add(transmits(number), 0)
        window.taken()
    assert window.room() == WINDOW


def test_retries_end_after_a_while_or_when_the_transmit_expires() -> None:
    window = TransmitWindow(encode)
    window.add([*transmits(1), *transmits(2, expires_ns=SECOND // 2)], 0)
    window.refused(7)
    window.refused(7)
    assert window.give_up(SECOND // 2 - 1) == []
    ended = window.give_up(SECOND // 2)
    assert numbers(ended) == [2]
    assert "refused" in str(ended[0].failure)
    assert window.give_up(7 + RETRY_FOR_NS - 1) == []
    assert numbers(window.give_up(7 + RETRY_FOR_NS)) == [1]
    assert window.due_ns() is None
    assert window.room() > 0


def test_a_missing_answer_is_overdue() -> None:
    window = TransmitWindow(encode)
    assert window.overdue(10**18) is None
    (sent,) = transmits(1)
    window.add([sent], 5)
    assert window.due_ns() == 5 + ACKNOWLEDGE_NS
    assert window.overdue(5 + ACKNOWLEDGE_NS - 1) is None
    assert window.overdue(5 + ACKNOWLEDGE_NS) is sent


def test_abandon_returns_everything_in_order() -> None:
    window = TransmitWindow(encode)
    window.add(transmits(1, 2, 3), 0)
    window.refused(0)
    window.add(transmits(4), 0)
    assert numbers(window.abandon()) == [1, 2, 3, 4]
    assert window.abandon() == []
    assert window.due_ns() is None


# ----------------------------------------------------------------------------------------- opening


@contextmanager
def opening(peer: Peer, **parameters: Any) -> Iterator[list[Backend | BaseException]]:
    """Opens in a thread while the test plays the adapter; the result is in the list afterwards."""
    result: list[Backend | BaseException] = []

    def work() -> None:
        try:
            options = parse_options("slcan", {"channel": peer.path} | parameters)
            result.append(open_backend("slcan", options))
        except CanInitializationError as error:
            result.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield result
    finally:
        thread.join()


GREETING = closing() + b"V\r"


def greet(peer: Peer) -> None:
    peer.hear(GREETING)
    peer.say(b"\a\aV1013\r")
    peer.hear(b"N\r")
    peer.say(b"NA123\r")


def opened(peer: Peer, early: bytes = b"") -> Backend:
    with opening(peer) as result:
        greet(peer)
        peer.hear(b"Z1\r")
        peer.say(b"\a")
        peer.hear(b"O\r")
        peer.say(b"\r")
        peer.hear(b"F\r")
        peer.say(b"F00\r" + early)
    backend = result[0]
    assert isinstance(backend, Backend), backend
    return backend


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as peer:
        yield peer


@pytest.fixture
def backend(peer: Peer) -> Iterator[Backend]:
    backend = opened(peer)
    yield backend
    backend.close()


def test_open_configures_in_order_and_ignores_traffic(peer: Peer) -> None:
    parameters = {"bitrate": 500_000, "fd": True, "data_bitrate": 2_000_000}
    with opening(peer, **parameters) as result:
        peer.hear(GREETING)
        peer.say(b"3AABB\rt1230\r\rt1230\r\rV2\rt1230\r")
        peer.hear(b"N\r")
        peer.say(b"\a")
        for command in (b"S6", b"Y2", b"Z1", b"O"):
            peer.hear(command + b"\r")
            peer.say(b"t1230\r\r")
        peer.hear(b"F\r")
        peer.say(b"F00\r")
    (backend,) = result
    assert isinstance(backend, Backend)
    assert backend.info == f"slcan {peer.path} version V2"
    assert (backend.bitrate, backend.data_bitrate, backend.fd) == (500_000, 2_000_000, True)
    assert backend.read() == []
    backend.close()
    peer.hear(b"C\r")
    backend.close()
    assert peer.silent()


@pytest.mark.parametrize(
    ("parameters", "command", "meaning"),
    [
        ({"bitrate": 500_000}, b"S6", "bitrate 500000"),
        ({"btr": "001C"}, b"s001C", "001C"),
        ({"fd": True, "data_bitrate": 5_000_000}, b"Y5", "data bitrate 5000000"),
        ({}, b"O", "open"),
        ({"listen_only": True}, b"L", "listen-only"),
    ],
)
def test_a_configuration_that_is_refused_fails_the_open(
    peer: Peer, parameters: dict[str, Any], command: bytes, meaning: str
) -> None:
    before = open_descriptors()
    with opening(peer, **parameters) as result:
        greet(peer)
        if command in b"OL":
            peer.hear(b"Z1\r")
            peer.say(b"\r")
        peer.hear(command + b"\r")
        peer.say(b"\a")
    (error,) = result
    assert isinstance(error, CanInitializationError)
    for word in (peer.path, "refused", f"'{command.decode()}'", meaning):
        assert word in str(error)
    peer.hear(b"C\r")
    assert open_descriptors() == before


def test_whether_it_listens_only_has_to_be_known(peer: Peer) -> None:
    with opening(peer, listen_only=True) as result:
        greet(peer)
        peer.hear(b"Z1\r")
        peer.say(b"\r")
        peer.hear(b"L\r")
    (error,) = result
    assert isinstance(error, CanInitializationError)
    assert "did not answer 'L'" in str(error)
    assert "dialect=" in str(error)


def test_what_was_not_answered_is_named(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    with opening(peer, bitrate=500_000) as result:
        greet(peer)
        peer.hear(b"S6\r")
        peer.hear(b"Z1\r")
        peer.say(b"\r")
        peer.hear(b"O\r")
        peer.say(b"\r")
        peer.hear(b"F\r")
        peer.say(b"F00\r")
    (backend,) = result
    assert isinstance(backend, Backend)
    assert f"{peer.path} did not answer S6:" in caplog.text
    backend.close()


def test_an_adapter_that_never_answers(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    """It opens: some sketches report frames and answer nothing. A transmit tells whether it
    acknowledges those."""
    with opening(peer, bitrate=500_000) as result:
        pass
    (backend,) = result
    assert isinstance(backend, Backend)
    assert "did not answer S6, Z1, O:" in caplog.text
    peer.heard = b""
    peer.say(b"t1230\r")
    read_count(backend, 1)
    sent = transmits(1)
    assert backend.room("me") == 1
    backend.send(sent)
    peer.hear(b"t0010\r")
    assert backend.room("me") == 0
    assert read_count(backend, 1) == sent
    assert sent[0].failure is None
    assert 'acknowledges nothing, so "sent" means written' in backend.info
    more = transmits(2, 3)
    backend.send(more)
    peer.hear(b"t0020\rt0030\r")
    assert read_count(backend, 2) == more
    backend.close()


def test_an_adapter_that_acknowledges_some_commands(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    """NickTaormina/ESP32-SLCAN: C, O, S and t; of others it says nothing, V among them."""
    with opening(peer, bitrate=500_000) as result:
        for _ in range(3):
            peer.hear(b"C\rV\r")
            peer.say(b"\r\r")
        for command, answer in ((b"N", b""), (b"S6", b"\r"), (b"Z1", b""), (b"O", b"\r")):
            peer.hear(command + b"\r")
            peer.say(answer)
    (backend,) = result
    assert isinstance(backend, Backend)
    assert "did not answer Z1:" in caplog.text
    sent = transmits(1)
    assert backend.room("me") == 1, "the first one tells whether they are acknowledged"
    backend.send(sent)
    peer.hear(b"t0010\r")
    peer.say(b"\r")
    assert read_count(backend, 1) == sent
    assert backend.room("me") > 1
    backend.close()


@pytest.mark.parametrize("answered_before", [True, False])
def test_no_answer_at_all_of_one_that_is_known_to_answer(peer: Peer, answered_before: bool) -> None:
    before = open_descriptors()
    options = parse_options("slcan", {"channel": peer.path, "dialect": "lawicel"})
    if answered_before:
        options = AnsweringOptions(channel=peer.path)
    with pytest.raises(CanInitializationError, match=f"no answer from {peer.path}"):
        open_backend("slcan", options)
    assert open_descriptors() == before


def test_an_adapter_that_has_answered_is_to_answer_when_it_is_opened_again(
    backend: Backend,
) -> None:
    assert isinstance(backend.reopening, AnsweringOptions)


def test_an_adapter_without_version_and_serial_number(peer: Peer) -> None:
    with opening(peer) as result:
        for _ in range(3):
            peer.hear(b"C\rV\r")
            peer.say(b"\a\a")
        peer.hear(b"N\r")
        peer.say(b"\a")
        peer.hear(b"Z1\r")
        peer.say(b"\a")
        peer.hear(b"O\r")
        peer.say(b"\r")
        peer.hear(b"F\r")
        peer.say(b"\a")
    (backend,) = result
    assert isinstance(backend, Backend)
    assert backend.info == f"slcan {peer.path}"
    backend.close()


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        ("/dev/no-such-adapter", ["no such device"]),
        ("/dev/no-such-adapter@57600", ["/dev/no-such-adapter:", "no such device"]),
        (__file__, ["not a serial device"]),
        ("bogus://x", ["bogus"]),
        ("socket://127.0.0.1:1", ["refused"]),
    ],
)
def test_what_cannot_be_opened_says_why(channel: str, words: list[str]) -> None:
    with pytest.raises(CanInitializationError) as caught:
        open_backend("slcan", parse_options("slcan", {"channel": channel}))
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_device_in_use_says_so(peer: Peer, backend: Backend) -> None:
    before = open_descriptors()
    with pytest.raises(CanInitializationError, match=f"{peer.path}: in use"):
        open_backend("slcan", parse_options("slcan", {"channel": peer.path}))
    assert open_descriptors() == before


@pytest.mark.parametrize("is_pseudo", [True, False])
def test_other_programs_are_kept_out_by_the_system(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, is_pseudo: bool
) -> None:
    """The flag of a pseudo-terminal would outlive us: its other end keeps it open."""
    if not is_pseudo:
        monkeypatch.setattr(terminals, "_PSEUDO_TERMINALS", range(0))
    port = Port(peer.path, 115_200, rtscts=False)
    flag = array("i", [0])
    import fcntl  # noqa: PLC0415 - POSIX only

    fcntl.ioctl(port.fileno(), _TIOCGEXCL, flag)
    port.close(b"")
    assert flag[0] == (not is_pseudo)


def test_a_line_without_a_descriptor_gets_one_from_a_thread_of_its_own() -> None:
    threads = threading.active_count()
    port = Port("loop://", 115_200, rtscts=False)
    port.start(wakes=False)
    assert not select.select([port.fileno()], [], [], 0)[0]
    port.write(b"t1230\r")
    data = b""
    while data != b"t1230\r":
        assert select.select([port.fileno()], [], [], 20)[0]
        data += port.read()
    wait_until(lambda: port.drained, "nothing more comes", timeout=20)
    assert not select.select([port.fileno()], [], [], 0)[0]
    port.wake()
    assert select.select([port.fileno()], [], [], 0)[0]
    port.close(b"C\r")
    port.close(b"C\r")
    assert threading.active_count() == threads


# --------------------------------------------------------------------------------------- receiving


def test_a_line_that_can_be_woken(peer: Peer) -> None:
    """As it is with an adapter that acknowledges nothing: its frames end when they are written."""

    def is_readable(seconds: float = 0) -> bool:
        return bool(select.select([port.fileno()], [], [], seconds)[0])

    port = Port(peer.path, 115_200, rtscts=False)
    try:
        port.start(wakes=True)
        assert not is_readable()
        port.wake()
        assert is_readable()
        assert port.read() == b""
        assert not is_readable()
        peer.say(b"t1230")
        assert is_readable(20)
        assert port.read() == b"t1230"
        assert not is_readable()
        threads = [thread.name for thread in threading.enumerate()]
        assert (f"slcan {peer.path}" in threads) == PORTABLE
    finally:
        port.close(b"")


def test_frames_right_behind_the_last_answer_are_not_lost(peer: Peer) -> None:
    backend = opened(peer, early=b"t1230\rt4560\r")
    assert [item.arbitration_id for item in read_count(backend, 2) if isinstance(item, Frame)] == [
        0x123,
        0x456,
    ]
    backend.close()


def test_several_lines_in_a_read_and_a_line_in_several(peer: Peer, backend: Backend) -> None:
    before = wall_ns()
    peer.say(b"t1230\rT000004561FF\rb7890\rt32")
    got = read_count(backend, 3)
    assert [(item.arbitration_id, item.flags) for item in got if isinstance(item, Frame)] == [
        (0x123, 0),
        (0x456, EXTENDED),
        (0x789, FD | BITRATE_SWITCH),
    ]
    assert all(isinstance(item, Frame) and before <= item.timestamp_ns for item in got)
    peer.say(b"12AA")
    assert list(backend.read()) == []
    peer.say(b"BB\r")
    (item,) = read_count(backend, 1)
    assert isinstance(item, Frame)
    assert (item.arbitration_id, item.data) == (0x321, b"\xaa\xbb")


def test_bad_lines_are_counted_and_poison_nothing(
    peer: Peer, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(50):
        peer.say(b"t12\rq\rt1\xff30\r" + b"0" * 300 + b"\rt1230\r")
        read_count(backend, 1)
    assert backend.counters() == {
        "truncated": 50,
        "malformed": 50,
        "non_ascii": 50,
        "overlong": 50,
    }
    assert 4 <= len(caplog.records) < 100  # at most one of a kind in a second


def test_adapter_timestamps(peer: Peer, backend: Backend) -> None:
    peer.say(b"t1230EA5F\rt12300003\r")
    first, second = read_count(backend, 2)
    assert isinstance(first, Frame)
    assert isinstance(second, Frame)
    assert first.flags == second.flags == HARDWARE_TIMESTAMP
    assert second.timestamp_ns - first.timestamp_ns in range(5 * MILLISECOND)
    assert abs(second.timestamp_ns - wall_ns()) < 10 * SECOND


def left_unread(backend: Backend, ns: int = 0) -> None:
    """Makes the backend believe that its bus is full, and that it was last read ``ns`` ago."""
    backend.bitrate = 500_000
    now = monotonic_ns() - ns
    backend.coalescing = Coalescing(MILLISECOND)
    pauses = [backend.coalescing.pause_ns(20, now, urgent=False) for _ in range(50)]
    assert pauses[-1]


def test_frames_that_were_left_unread_have_the_latest_time_they_can_have(
    peer: Peer, backend: Backend
) -> None:
    """The bus was free for each of them, one after the other."""
    left_unread(backend, MILLISECOND)
    peer.say(b"t1230\rt12381122334455667788\rt1230\r")
    frames = [item for item in read_count(backend, 3) if isinstance(item, Frame)]
    first, second, last = (frame.timestamp_ns for frame in frames)
    assert last - second == 47 * 2_000
    assert second - first == (47 + 64) * 2_000
    assert last <= wall_ns()


def test_no_frame_was_there_before_the_adapter_was_left_unread(
    peer: Peer, backend: Backend
) -> None:
    before = wall_ns()
    left_unread(backend)
    peer.say(b"t1230\r" * 500)  # at least 47 ms of a bus
    stamps = [item.timestamp_ns for item in read_count(backend, 500)]
    assert stamps == sorted(stamps)
    assert before <= stamps[0]


def test_frames_that_were_not_left_unread_have_the_time_of_their_arrival(
    peer: Peer, backend: Backend
) -> None:
    peer.say(b"t1230\rt1230\r")
    first, second = read_count(backend, 2)
    assert first.timestamp_ns == second.timestamp_ns


# ------------------------------------------------------------------------------------ transmitting


@pytest.mark.parametrize("answer", [b"\r", b"z\r", b"Z\r"])
def test_transmits_end_in_order_with_received_frames(
    peer: Peer, backend: Backend, answer: bytes
) -> None:
    sent = transmits(1, 2)
    backend.send(sent)
    peer.hear(b"t0010\rt0020\r")
    assert list(backend.read()) == []
    peer.say(answer + b"t1230\r" + answer + b"t4560\r")
    first, received, second, last = read_count(backend, 4)
    assert (first, second) == tuple(sent)
    assert isinstance(received, Frame)
    assert isinstance(last, Frame)
    assert all(item.failure is None and item.timestamp_ns for item in sent)
    assert backend.abandon() == []


def test_a_full_queue_is_tried_again(peer: Peer, backend: Backend) -> None:
    sent = transmits(1, 2)
    backend.send(sent)
    peer.hear(b"t0020\r")
    peer.say(b"z\r\a")
    happened: list[Frame | Transmit] = []
    collect(backend, lambda got: len(got) == 1, happened)
    assert backend.room("me") == 0
    for answer in (b"\a", b"\a", b"z\r"):
        collect(backend, lambda _: not peer.silent(0.01), happened)
        peer.hear(b"t0020\r")
        peer.say(answer)
    collect(backend, lambda got: len(got) == 2, happened)
    assert happened == sent
    assert sent[1].failure is None
    assert backend.room("me") > 0
    assert backend.counters()["refused"] == 3


def test_a_transmit_that_is_refused_for_too_long_fails(peer: Peer, backend: Backend) -> None:
    (sent,) = transmits(1, expires_ns=monotonic_ns() + 50 * MILLISECOND)
    backend.send([sent])

    def refuse(got: list[Frame | Transmit]) -> bool:
        if not peer.silent(0):
            peer.hear(b"t0010\r")
            peer.say(b"\a")
        return bool(got)

    happened: list[Frame | Transmit] = []
    collect(backend, refuse, happened)
    assert happened == [sent]
    assert "refused" in str(sent.failure)
    assert "BEL" in str(sent.failure)


def test_no_acknowledgement_means_that_the_adapter_is_gone(peer: Peer, backend: Backend) -> None:
    sent = transmits(0x123)
    backend.send(sent)
    peer.hear(b"t1230\r")
    with pytest.raises(AdapterGoneError, match="did not acknowledge 123#"):
        collect(backend, lambda _: False, [])
    assert backend.abandon() == sent


def test_what_was_read_comes_before_the_end(peer: Peer, backend: Backend) -> None:
    peer.say(b"t1230\r")
    collect(backend, lambda got: len(got) == 1, [])
    peer.unplug()
    with pytest.raises(AdapterGoneError, match="gone"):
        collect(backend, lambda _: False, [])
    with pytest.raises(AdapterGoneError):
        backend.send(transmits(1))
    assert len(backend.abandon()) == 1
    backend.close()
    backend.close()


def test_answers_to_nothing_are_counted(peer: Peer, backend: Backend) -> None:
    peer.say(b"\r\az\rt1230\r")
    read_count(backend, 1)
    assert backend.counters() == {"unexpected_answer": 3}


def test_use_after_close_raises(backend: Backend) -> None:
    backend.close()
    with pytest.raises(AdapterGoneError, match="closed"):
        backend.read()
    with pytest.raises(AdapterGoneError, match="closed"):
        backend.send(transmits(1))
    assert "closed" in repr(backend)


def test_error_frames_and_fd_frames_are_refused_by_name(backend: Backend) -> None:
    assert "error frames" in str(backend.fault(Frame(0, 4, ERROR, bytes(8))))
    assert "fd=True" in str(backend.fault(Frame(0, 4, FD, b"")))
    assert backend.fault(frame(1)) is None


# ------------------------------------------------------------------------------- odd adapters


class Odd:
    """An adapter that answers each line by a function, from a thread. A context manager."""

    def __init__(self, answer: Callable[[bytes], bytes], greeting: bytes = b"") -> None:
        self.lines: list[bytes] = []
        self._answer = answer
        self._peer = Peer()
        self.path = self._peer.path
        self._end = threading.Event()
        self._peer.say(greeting)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> Odd:
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._peer.unplug()

    def _run(self) -> None:
        rest = b""
        while not self._end.is_set():
            if not select.select([self._peer.master], [], [], 0.02)[0]:
                continue
            *lines, rest = (rest + os.read(self._peer.master, 4096)).split(b"\r")
            for line in lines:
                self.lines.append(line)
                self._peer.say(self._answer(line))


def by_the_manual(line: bytes) -> bytes:
    known = {b"V": b"V1013\r", b"N": b"NA123\r", b"F": b"F00\r"}
    if line[:1] in (b"t", b"T"):
        return b"z\r" if line[:1] == b"t" else b"Z\r"
    return b"\a" if line.startswith(b"CC") else known.get(line, b"\r")


def test_what_is_said_while_booting_is_no_version() -> None:
    boots_until = monotonic_ns() + SECOND // 2

    def answer(line: bytes) -> bytes:
        return b"" if monotonic_ns() < boots_until else by_the_manual(line)

    boot = b"Version 1.2 starts\r\nwaiting\r\nwaiting\r\n"
    with Odd(answer, boot) as adapter, opened_slcan(adapter.path) as backend:
        assert "version V1013" in backend.info
        assert b"S6" in adapter.lines


def test_a_refusal_that_comes_late_is_fatal() -> None:
    def answer(line: bytes) -> bytes:
        if line == b"S6":
            threading.Event().wait(0.7)  # longer than it took for anything before
            return b"\a"
        return by_the_manual(line)

    with (
        Odd(answer) as adapter,
        pytest.raises(CanInitializationError, match="refused 'S6'"),
        opened_slcan(adapter.path),
    ):
        pass


def test_an_opening_that_takes_longer_is_not_the_answer_to_something_else() -> None:
    def answer(line: bytes) -> bytes:
        if line == b"O":
            threading.Event().wait(0.7)
        return by_the_manual(line)

    with Odd(answer) as adapter, opened_slcan(adapter.path) as backend:
        assert backend._adapter.status == "status"  # type: ignore[attr-defined]


def test_noise_makes_no_candapter() -> None:
    with Odd(by_the_manual, b"\x06\x06") as adapter, opened_slcan(adapter.path) as backend:
        long = [Transmit(Frame(0, 0x123, EXTENDED, b""), "me", None, 0)]
        backend.send(long)
        assert read_count(backend, 1) == long
        assert adapter.lines[-1] == b"T000001230"


def test_an_echo_is_no_adapter() -> None:
    with (
        Odd(lambda line: line + b"\r") as adapter,
        pytest.raises(CanInitializationError, match="echoes everything that is written"),
        opened_slcan(adapter.path),
    ):
        pass


def test_a_fork_that_acknowledges_is_asked_for_its_version_alone() -> None:
    def answer(line: bytes) -> bytes:
        if line == b"V":
            return b"0123456 github.com/somebody/canable-fw\r"
        return b"" if line in (b"F", b"N") else b"\r"

    with Odd(answer) as adapter, opened_slcan(adapter.path) as backend:
        adapter.lines.clear()
        happened: list[Frame | Transmit] = []
        collect(backend, lambda _: b"V" in adapter.lines, happened)
        assert adapter.lines == [b"V"]
        assert happened == []


def test_a_clock_of_ceramic_is_followed() -> None:
    stamps = Stamps("auto")
    start = monotonic_ns()
    for step in range(3_000):  # ten frames a second
        now = start + step * SECOND // 10
        frame = Frame(0, 1, 0, b"")
        stamps.stamp(frame, int(step * 100 * 0.995) % 60_000, now, now)
    assert not stamps.problem
    assert abs(frame.timestamp_ns - now) < 100 * MILLISECOND


def test_a_wall_clock_that_is_set_sets_the_stamps_at_once() -> None:
    stamps = Stamps("auto")
    for step in range(100):
        now = step * SECOND // 10
        wall = now + (10_000 if step < 50 else 10_003) * SECOND
        frame = Frame(0, 1, 0, b"")
        stamps.stamp(frame, step * 100 % 60_000, wall, now)
        assert abs(frame.timestamp_ns - wall) < 2 * MILLISECOND
