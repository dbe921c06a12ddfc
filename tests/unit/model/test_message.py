"""Message against the installed python-can's, which is the documentation in executable form."""

from __future__ import annotations

import copy
import math
import pickle
import re
import weakref
from typing import Any

import can
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from canbroker.errors import CanOperationError
from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    FD_LENGTHS,
    HARDWARE_TIMESTAMP,
    LOOPBACK,
    REMOTE,
    EchoFrame,
    Frame,
    frame_fault,
)
from canbroker.model.message import Message, to_frame, to_stamped_frame

ATTRIBUTES = sorted(set(Message.__slots__) - {"__weakref__"})

identifiers = st.one_of(
    st.integers(-2, 0x20000001),
    st.sampled_from([-1, 0, 0x7FF, 0x800, 0x1FFFFFFF, 0x20000000]),
)
payloads = st.one_of(
    st.none(),
    st.binary(max_size=9),
    st.binary(min_size=60, max_size=66),
    st.text("aZ09", max_size=10).map(str.encode),
    st.lists(st.integers(0, 255), max_size=9),
    st.binary(max_size=9).map(bytearray),
    st.integers(0, 9),
)
timestamps = st.one_of(
    st.sampled_from([0.0, -0.0, -1.0, math.inf, -math.inf, math.nan, 0, 1.25]),
    st.floats(0, 4e9),
)
odd_arguments = st.fixed_dictionaries(
    {},
    optional={
        "timestamp": timestamps,
        "arbitration_id": identifiers,
        "is_extended_id": st.booleans(),
        "is_remote_frame": st.booleans(),
        "is_error_frame": st.booleans(),
        "channel": st.sampled_from([None, 0, "can0", "", (1, 2)]),
        "dlc": st.one_of(st.none(), st.integers(0, 9), st.sampled_from([64, 65])),
        "data": payloads,
        "is_fd": st.booleans(),
        "is_rx": st.booleans(),
        "bitrate_switch": st.booleans(),
        "error_state_indicator": st.booleans(),
    },
)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Frames that a controller could send."""
    flags = draw(st.sampled_from([0, EXTENDED]))
    kind = draw(st.sampled_from([0, REMOTE, ERROR, FD]))
    if kind == FD:
        kind |= draw(st.sampled_from([0, BITRATE_SWITCH])) | draw(
            st.sampled_from([0, ERROR_STATE_INDICATOR])
        )
    arbitration_id = draw(st.integers(0, 0x1FFFFFFF if flags else 0x7FF))
    length = draw(st.sampled_from(FD_LENGTHS if kind & FD else range(9)))
    data = length if kind == REMOTE else draw(st.binary(min_size=length, max_size=length))
    return Frame(draw(st.integers(0, 4 * 10**18)), arbitration_id, flags | kind, data)


def attributes(message: Any) -> dict[str, Any]:
    return {name: getattr(message, name) for name in ATTRIBUTES}


def both(**arguments: Any) -> tuple[Message, can.Message]:
    return Message(**copy.deepcopy(arguments)), can.Message(**copy.deepcopy(arguments))


@given(odd_arguments)
def test_the_same_arguments_make_the_same_message(arguments: dict[str, Any]) -> None:
    ours, theirs = both(**arguments)
    assert repr(attributes(ours)) == repr(attributes(theirs))  # as text: NaN differs from itself
    assert isinstance(ours.data, bytearray)
    assert len(ours) == len(theirs)
    assert bytes(ours) == bytes(theirs)
    assert bool(ours)


@given(odd_arguments)
def test_the_text_forms_are_the_same(arguments: dict[str, Any]) -> None:
    ours, theirs = both(**arguments)
    assert str(ours) == str(theirs)
    assert f"{ours}" == f"{theirs}"
    assert repr(ours) == repr(theirs)


@given(odd_arguments)
def test_check_refuses_the_same_arguments(arguments: dict[str, Any]) -> None:
    try:
        can.Message(**copy.deepcopy(arguments), check=True)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            Message(**copy.deepcopy(arguments), check=True)
    else:
        Message(**copy.deepcopy(arguments), check=True)


@given(odd_arguments, odd_arguments, st.sampled_from([None, 0.0, 1e-6, 1.0]), st.data())
def test_equals_says_the_same(
    first: dict[str, Any], change: dict[str, Any], delta: float | None, data: st.DataObject
) -> None:
    changed = data.draw(st.sampled_from([*change, None])) if change else None
    second = first | ({changed: change[changed]} if changed else {})
    ours, theirs = both(**first)
    our_other, their_other = both(**second)
    for options in ({}, {"check_channel": False}, {"check_direction": False}):
        expected = theirs.equals(their_other, delta, **options)
        assert ours.equals(our_other, delta, **options) == expected


def test_positional_order_is_the_documented_one() -> None:
    arguments = (1.5, 0x12, False, False, False, "c", 2, b"ab", True, False, True, True, True)
    assert repr(Message(*arguments)) == repr(can.Message(*arguments))
    assert repr(Message()) == repr(can.Message())


def test_a_bytearray_is_used_and_everything_else_is_copied() -> None:
    data = bytearray(b"ab")
    assert Message(data=data).data is data
    assert Message(data=memoryview(data)).data == data
    assert Message(data=iter([1, 2])).data == b"\x01\x02"


@pytest.mark.parametrize("data", ["text", [1.5], 2.5, object()])
def test_data_of_a_wrong_type_is_named(data: Any) -> None:
    with pytest.raises(TypeError, match="data must be bytes or integers"):
        Message(data=data)


@pytest.mark.parametrize("data", [[256], [-1], -1])
def test_data_out_of_range_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        Message(data=data)


def test_messages_are_compared_by_identity() -> None:
    one, other = Message(data=b"a"), Message(data=b"a")
    assert one == one  # noqa: PLR0124 - the thing tested
    assert one != other
    assert len({one, other}) == 2
    assert one.equals(other)


def test_messages_are_mutable_and_closed_to_new_names() -> None:
    message: Any = Message()
    message.dlc = 3
    assert len(message) == 3
    with pytest.raises(AttributeError):
        message.colour = "red"
    assert weakref.ref(message)() is message


def test_a_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 'x'"):
        format(Message(), "x")


@given(odd_arguments)
def test_copies_and_pickles_are_equal_and_independent(arguments: dict[str, Any]) -> None:
    message = Message(**arguments)
    for copied in (
        copy.copy(message),
        copy.deepcopy(message),
        pickle.loads(pickle.dumps(message)),  # noqa: S301 - made in this line
    ):
        assert repr(attributes(copied)) == repr(attributes(message))
        copied.data.append(0)
        assert len(copied.data) == len(message.data) + 1


def test_only_a_deep_copy_copies_the_channel() -> None:
    message = Message(channel=[1])
    assert copy.copy(message).channel is message.channel
    deep = copy.deepcopy(message)
    assert deep.channel == message.channel
    assert deep.channel is not message.channel


@given(frames(), st.booleans())
def test_from_frame_is_what_the_constructor_makes(frame: Frame, is_rx: bool) -> None:
    channel = object()
    message = Message.from_frame(frame, channel, is_rx)
    remote = isinstance(frame.data, int)
    expected = Message(
        timestamp=frame.timestamp_ns / 10**9,  # of integers: rounded once
        arbitration_id=frame.arbitration_id,
        is_extended_id=bool(frame.flags & EXTENDED),
        is_remote_frame=remote,
        is_error_frame=bool(frame.flags & ERROR),
        channel=channel,
        dlc=frame.data if isinstance(frame.data, int) else None,
        data=None if isinstance(frame.data, int) else frame.data,
        is_fd=bool(frame.flags & FD),
        is_rx=is_rx,
        bitrate_switch=bool(frame.flags & BITRATE_SWITCH),
        error_state_indicator=bool(frame.flags & ERROR_STATE_INDICATOR),
        check=True,
    )
    assert attributes(message) == attributes(expected)
    assert isinstance(message.data, bytearray)
    assert message.channel is channel


def test_from_frame_ignores_flags_that_messages_do_not_have() -> None:
    frame = EchoFrame(5_000_000_000, 1, EXTENDED | LOOPBACK, b"ab", "somebody")
    message = Message.from_frame(frame, 0, is_rx=False)
    assert message.equals(Message(5.0, 1, data=b"ab", channel=0, is_rx=False))


@given(frames())
def test_to_frame_undoes_from_frame(frame: Frame) -> None:
    sent = to_frame(Message.from_frame(frame, None))
    assert sent == Frame(0, frame.arbitration_id, frame.flags, frame.data)


@given(odd_arguments)
def test_to_frame_takes_python_cans_messages_and_makes_valid_frames(
    arguments: dict[str, Any],
) -> None:
    ours, theirs = both(**arguments)
    try:
        frame = to_frame(theirs)
    except CanOperationError as error:
        refusal = re.escape(str(error))
        with pytest.raises(CanOperationError, match=f"^{refusal}$"):
            to_frame(ours)
    else:
        assert to_frame(ours) == frame
        assert frame_fault(frame.arbitration_id, frame.flags, frame.data) is None


@given(st.floats(min_value=0, max_value=2**33))
@example(1639739471.5565314)
def test_a_timestamp_that_is_kept_comes_out_as_it_went_in(timestamp: float) -> None:
    frame = to_stamped_frame(Message(timestamp, 0x123))
    back = Message.from_frame(frame, None).timestamp
    # Seconds of this century have steps of more than a nanosecond, smaller ones have not.
    assert back == timestamp if timestamp >= 2**24 else abs(back - timestamp) < 1e-9
    assert frame.flags == EXTENDED | HARDWARE_TIMESTAMP


@pytest.mark.parametrize("timestamp", [-1, -1e-9, math.nan, math.inf, 2.0**64])
def test_a_timestamp_that_cannot_be_kept_is_refused(timestamp: float) -> None:
    with pytest.raises(ValueError, match=r"cannot send .* timestamp must be 0 to"):
        to_stamped_frame(Message(timestamp))


def test_short_data_is_filled_up_to_the_dlc() -> None:
    assert to_frame(Message(dlc=3, data=b"a")).data == b"a\0\0"


def test_data_that_was_put_in_later_may_be_any_bytes() -> None:
    message: Any = Message(dlc=2)
    message.data = [1, 2]
    assert to_frame(message).data == b"\x01\x02"
    message.data = None
    assert to_frame(message).data == b"\0\0"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dlc": 1, "data": b"abc"}, "dlc is 1, but there are 3 bytes"),
        ({"dlc": 9}, "9 bytes do not fit a classic CAN frame"),
        ({"dlc": 10**12}, "dlc must be 0 to 64"),
        ({"dlc": -1}, "dlc is -1"),
        ({"dlc": 9, "is_remote_frame": True}, "remote frame's length must be 0 to 8"),
        ({"is_fd": True, "is_remote_frame": True}, "neither an FD nor an error frame"),
        ({"arbitration_id": 0x800, "is_extended_id": False}, "0x800 does not fit 11 bits"),
        ({"arbitration_id": "x"}, "arbitration_id 'x'"),
        ({"arbitration_id": None}, "NoneType"),
        ({"dlc": 1.5}, "float"),
        ({"data": bytes(65), "is_fd": True}, "not a CAN FD length"),
        ({"bitrate_switch": True}, "FD frames only"),
    ],
)
def test_what_cannot_be_sent_is_named(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(CanOperationError, match=expected) as raised:
        to_frame(Message(**changes))
    assert "arbitration_id" in str(raised.value)


@pytest.mark.parametrize(("length", "on_the_bus"), [(8, 8), (9, 12), (13, 16), (22, 24), (63, 64)])
def test_fd_data_is_filled_up_to_a_length_of_the_bus(length: int, on_the_bus: int) -> None:
    data = bytes(range(1, length + 1))
    for kind in (Message, can.Message):
        message = kind(is_fd=True, data=data, check=True)
        assert to_frame(message).data == data.ljust(on_the_bus, b"\0")
        assert (bytes(message.data), message.dlc) == (data, length)


@pytest.mark.parametrize("data", ["ab", 2, [256], [None]])
def test_data_that_is_no_bytes_cannot_be_sent(data: Any) -> None:
    message: Any = Message(dlc=2)
    message.data = data
    with pytest.raises(CanOperationError, match="cannot send the message"):
        to_frame(message)


@pytest.mark.parametrize("thing", [None, 5, b"abc", {"arbitration_id": 1}, object()])
def test_what_is_no_message_is_a_type_error(thing: Any) -> None:
    with pytest.raises(TypeError, match="is not a CAN message"):
        to_frame(thing)
