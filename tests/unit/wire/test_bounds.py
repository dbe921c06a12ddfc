"""What is not of the protocol is refused, saying why, and nothing but WireError escapes.

What msgspec finds wrong is told in its words, which differ from version to version: of those the
tests check the kind and the names that are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.model.frame import MAX_EXTENDED_ID, EchoFrame, ReceivedFrame
from canbroker.wire import MAX_MESSAGE_BYTES, WireError, control, stream, topics, transmit

U64 = 2**64 - 1
ROW = [1, 0x123, 0, b"\x01"]
ATTACH = {"client_id": "c1", "pid": 1, "program": "p", "channel": "can0"}


def decode_control(body: bytes) -> control.Params:
    return control.decode_params(control.decode_request(body), control.BROKER_METHODS)


def decode_topic(body: bytes) -> topics.Topic:
    return topics.parse(body, "can0")


#: decoder -> a good message of it
GOOD: dict[Callable[[bytes], object], list[Any]] = {
    stream.decode_batch: [1, 0, 5, 6, 0, [ROW]],
    stream.decode_event: [1, 4, 5, 0, 0, {"event": "state", "state": "active"}, None],
    transmit.decode_request: [1, "c1", 2, 0, 0, [ROW], 5, ["c2"], 7, None],
    transmit.decode_reply: [1, 2, 0, 1, 3, "", [], None],
    decode_control: [1, 2, "attach", ATTACH],
    control.decode_reply: [1, 2, True, {}],
}
DECODERS = list(GOOD)
each_decoder = pytest.mark.parametrize("decode", DECODERS)

json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), U64)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=80),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


def changed(message: list[Any], *path: int, to: Any) -> list[Any]:
    """``message`` with another value at ``path``."""
    copy: list[Any] = list(message)
    head, *rest = path
    copy[head] = changed(copy[head], *rest, to=to) if rest else to
    return copy


def refused(decode: Callable[[bytes], object], message: Any, match: str) -> None:
    with pytest.raises(WireError, match=match):
        decode(msgpack.packb(message))


def invalid(decode: Callable[[bytes], object], message: Any, named: str = ".") -> None:
    """Refused because a value is of another type or out of bounds, as msgspec finds."""
    with pytest.raises(WireError, match=named) as raised:
        decode(msgpack.packb(message))
    assert isinstance(raised.value.__cause__, msgspec.ValidationError)


@each_decoder
def test_good_messages_are_good(decode: Callable[[bytes], object]) -> None:
    decode(msgpack.packb(GOOD[decode]))


@each_decoder
def test_another_version_is_refused_by_its_number(decode: Callable[[bytes], object]) -> None:
    refused(decode, changed(GOOD[decode], 0, to=2), "version 2, this reader knows 1")
    refused(decode, [77, "whatever", {"comes": "then"}], "version 77")
    refused(decode, [U64], f"version {U64}")


@each_decoder
@pytest.mark.parametrize("version", [1.0, True, None, "1", [1], b"1"])
def test_a_version_is_an_integer(decode: Callable[[bytes], object], version: Any) -> None:
    invalid(decode, changed(GOOD[decode], 0, to=version))


@each_decoder
def test_elements_after_the_known_ones_are_ignored(decode: Callable[[bytes], object]) -> None:
    body = msgpack.packb(GOOD[decode])
    longer = msgpack.packb([*GOOD[decode], {"new": [1, 2]}, None])
    assert decode(longer) == decode(body)


@each_decoder
def test_every_truncation_is_refused(decode: Callable[[bytes], object]) -> None:
    body = msgpack.packb(GOOD[decode])
    for length in range(len(body)):
        with pytest.raises(WireError):
            decode(body[:length])


@each_decoder
def test_bytes_after_the_end_are_refused(decode: Callable[[bytes], object]) -> None:
    with pytest.raises(WireError):
        decode(msgpack.packb(GOOD[decode]) + b"\x01")


@each_decoder
def test_lengths_that_lie_cost_nothing(decode: Callable[[bytes], object]) -> None:
    for head in (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"):
        for prefix in (b"", b"\x96\x01\x00\x05\x06\x00", b"\x97\x01\xa2c1\x02\x00\x00"):
            with pytest.raises(WireError):
                decode(prefix + head + b"\xff\xff\xff\xff")


@each_decoder
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1k", b"\xdc\x00\x01"])
def test_nesting_ends_somewhere(decode: Callable[[bytes], object], opening: bytes) -> None:
    deep = opening * (MAX_MESSAGE_BYTES // 4)
    for body in (deep, b"\x92\x01" + deep, b"\x9f\x01\x02\xa5hello\x80" + deep):
        with pytest.raises(WireError):
            decode(body)


@each_decoder
def test_something_nested_in_place_of_each_element(decode: Callable[[bytes], object]) -> None:
    for index in range(len(GOOD[decode])):
        if decode is control.decode_reply and index == 3:
            continue  # the result stays raw here
        refused(decode, changed(GOOD[decode], index, to=[[[[]]]]), ".")


@pytest.mark.parametrize("decode", [*DECODERS, decode_topic])
@given(body=st.binary(max_size=200))
def test_random_bytes(decode: Callable[[bytes], object], body: bytes) -> None:
    try_decoding(decode, body)


@each_decoder
@given(data=st.data())
def test_random_structures(decode: Callable[[bytes], object], data: st.DataObject) -> None:
    message = GOOD[decode]
    index = data.draw(st.integers(1, len(message) - 1))
    try_decoding(decode, msgpack.packb(changed(message, index, to=data.draw(json_like))))


@each_decoder
@given(data=st.data())
def test_flipped_bytes(decode: Callable[[bytes], object], data: st.DataObject) -> None:
    body = bytearray(msgpack.packb(GOOD[decode]))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try_decoding(decode, bytes(body))


def try_decoding(decode: Callable[[bytes], object], body: bytes) -> None:
    try:
        decode(body)
    except WireError as error:
        assert str(error)  # noqa: PT017 - it need not be raised, but if it is, it says something


# ------------------------------------------------------------------------------------ streams


def test_a_batch_has_1024_frames_at_most() -> None:
    most = changed(GOOD[stream.decode_batch], 5, to=[ROW] * 1024)
    assert len(stream.decode_batch(msgpack.packb(most)).payload) == 1024
    invalid(stream.decode_batch, changed(most, 5, to=[ROW] * 1025))


@pytest.mark.parametrize(
    ("index", "value"),
    [
        *((0, -1), (0, 1.5), (0, 2.0), (0, None), (0, msgpack.Timestamp(1)), (0, "1")),
        *((1, -1), (1, MAX_EXTENDED_ID + 1), (1, 291.0), (1, U64), (1, True), (1, "123")),
        *((2, -1), (2, 256), (2, 0.0)),
        *((3, bytes(65)), (3, 9), (3, -1), (3, "text"), (3, 1.0), (3, None), (3, [1, 2])),
    ],
)
def test_a_frame_out_of_bounds(index: int, value: Any) -> None:
    batch, request = GOOD[stream.decode_batch], GOOD[transmit.decode_request]
    invalid(stream.decode_batch, changed(batch, 5, 0, index, to=value))
    invalid(transmit.decode_request, changed(request, 5, 0, index, to=value))


def test_a_frame_with_too_few_and_with_new_elements() -> None:
    batch = GOOD[stream.decode_batch]
    invalid(stream.decode_batch, changed(batch, 5, to=[ROW[:3]]))
    newer = changed(batch, 5, to=[[*ROW, "c1", {"new": 1}]])
    assert stream.decode_batch(msgpack.packb(newer)).payload == [
        ReceivedFrame(1, 0x123, 0, bytearray(b"\x01"), "c1")
    ]


@pytest.mark.parametrize("origin", ["x" * 33, 5, b"c1"])
def test_an_origin_out_of_bounds(origin: Any) -> None:
    invalid(stream.decode_batch, changed(GOOD[stream.decode_batch], 5, 0, to=[*ROW, origin]))


@pytest.mark.parametrize("index", [2, 3, 4])
@pytest.mark.parametrize("value", [-1, 1.0, None, "1"])
def test_counters_of_a_batch_are_not_negative(index: int, value: Any) -> None:
    invalid(stream.decode_batch, changed(GOOD[stream.decode_batch], index, to=value))


@pytest.mark.parametrize("kind", [-1, 2, 3, 4, 5, U64])
def test_frames_come_as_kind_0_or_1_only(kind: int) -> None:
    message = changed(GOOD[stream.decode_batch], 1, to=kind)
    refused(stream.decode_batch, message, f"kind {kind} with a payload of another kind")


@pytest.mark.parametrize("kind", [-1, 0, 1, 4, 5])
def test_a_text_is_an_end_or_an_error(kind: int) -> None:
    refused(stream.decode_batch, [1, kind, 5, 6, 0, "over"], "payload of another kind")
    for good in (stream.END, stream.ERROR):
        assert stream.decode_batch(msgpack.packb([1, good, 5, 6, 0, "over"])).payload == "over"


def test_an_event_is_known_by_its_tag_and_kind() -> None:
    event = GOOD[stream.decode_event]
    refused(stream.decode_event, changed(event, 5, to={"event": "kicked"}), "kicked")
    refused(stream.decode_event, changed(event, 5, to={"state": "active"}), "event")
    refused(stream.decode_event, changed(event, 1, to=0), "kind 0")
    refused(stream.decode_event, [1, 4, 5, 0, 0, "text"], "kind 4")
    newer = changed(event, 5, to={"event": "state", "state": "active", "colour": "red"})
    assert stream.decode_event(msgpack.packb(newer)) == stream.decode_event(msgpack.packb(event))


# ----------------------------------------------------------------------------------- transmit


@pytest.mark.parametrize("client_id", ["", "x" * 33, "a b", "c1\n", "ü", "a/b", 1, None])
def test_a_client_id_that_is_none(client_id: Any) -> None:
    refused(transmit.decode_request, changed(GOOD[transmit.decode_request], 1, to=client_id), ".")
    attach = ATTACH | {"client_id": client_id}
    invalid(decode_control, [1, 2, "attach", attach], "client_id")
    detach = {"client_id": client_id}
    invalid(decode_control, [1, 2, "detach", detach], "client_id")


def test_a_request_has_1_to_1024_frames() -> None:
    request = changed(GOOD[transmit.decode_request], 7, to=[])
    invalid(transmit.decode_request, changed(request, 5, to=[]))
    invalid(transmit.decode_request, changed(request, 5, to=[ROW] * 1025))
    most = transmit.decode_request(msgpack.packb(changed(request, 5, to=[ROW] * 1024)))
    assert len(most.frames) == 1024


def test_the_epoch_of_a_request_may_be_left_out() -> None:
    request = GOOD[transmit.decode_request][:-4]
    assert transmit.decode_request(msgpack.packb(request)).epoch == 0


def test_origins_are_one_for_each_frame_or_none() -> None:
    request = GOOD[transmit.decode_request]
    assert transmit.decode_request(msgpack.packb(request)).origins == ["c2"]
    assert transmit.decode_request(msgpack.packb(changed(request, 7, to=[]))).origins == []
    assert transmit.decode_request(msgpack.packb(request[:-3])).origins == []
    refused(transmit.decode_request, changed(request, 7, to=["a", "b"]), "2 origins for 1 frames")
    refused(transmit.decode_request, changed(request, 7, to=["no id"]), "no id")


@pytest.mark.parametrize("index", [2, 4, 6])
@pytest.mark.parametrize("value", [-1, 1.0, None, "1"])
def test_numbers_of_a_request(index: int, value: Any) -> None:
    invalid(transmit.decode_request, changed(GOOD[transmit.decode_request], index, to=value))
    largest = changed(GOOD[transmit.decode_request], index, to=U64)
    transmit.decode_request(msgpack.packb(largest))


def test_a_reply_is_bounded() -> None:
    reply = GOOD[transmit.decode_reply]
    invalid(transmit.decode_reply, changed(reply, 5, to="x" * 4097))
    invalid(transmit.decode_reply, changed(reply, 6, to=[0] * 1025))
    body = transmit.encode_reply(1, transmit.Status.REFUSED, 0, 0, "x" * 10_000)
    assert len(transmit.decode_reply(body).reason) == 4096


def test_the_largest_request_fits_a_message() -> None:
    frame = EchoFrame(U64, MAX_EXTENDED_ID, 255, bytes(64), "x" * 32)
    packed = [stream.pack_frame(frame)] * stream.MAX_BATCH
    assert len(stream.encode_frames(U64, U64, U64, packed)) < MAX_MESSAGE_BYTES


# ------------------------------------------------------------------------------------ control


LEASE = {"lease_id": "a", "pid": 1, "started": 1, "program": "", "pool": "p"}


@pytest.mark.parametrize(
    ("method", "params", "match"),
    [
        (
            "halt",
            {},
            "unknown method 'halt'; there are: hello, attach, detach, status, database, scheduler,"
            " lease, release, record_start, record_stop, shutdown",
        ),
        ("lease", LEASE | {"pid": 0}, "pid"),
        ("lease", LEASE | {"timeout_ns": -1}, "timeout_ns"),
        ("lease", LEASE | {"lease_id": "a b"}, "lease_id"),
        ("lease", LEASE | {"pool": "p" * 4097}, "pool"),
        ("release", {}, "lease_id"),
        ("set_state", {"state": "active"}, "unknown method 'set_state'"),
        ("__class__", {}, "unknown method"),
        ("", {}, "unknown method"),
        ("x" * 4097, {}, "control request"),
        ("hello", {"colour": "red"}, "colour"),
        ("hello", [], "hello"),
        ("hello", None, "hello"),
        ("attach", {}, "attach"),
        ("attach", ATTACH | {"pid": "1"}, "pid"),
        ("attach", ATTACH | {"pid": 1.0}, "pid"),
        ("attach", ATTACH | {"channel": 7}, "channel"),
        ("attach", ATTACH | {"channel": "x" * 4097}, "channel"),
        ("attach", ATTACH | {"parameters": {"a": {}}}, "parameters"),
        ("attach", ATTACH | {"parameters": {1: 1}}, "parameters"),
        ("attach", ATTACH | {"exec": "rm"}, "exec"),
        ("attach", {1: 2}, "attach"),
    ],
)
def test_a_method_that_is_wrong_is_named(method: str, params: Any, match: str) -> None:
    refused(decode_control, [1, 2, method, params], match)


@pytest.mark.parametrize(
    ("decode", "message", "named"),
    [
        (decode_control, [1, 2, "attach", ATTACH | {"program": "MARK"}], "attach"),
        (control.decode_request, [1, 2, "MARK", {}], "control request"),
        (stream.decode_batch, [1, 2, 5, 6, 0, "MARK"], "batch"),
    ],
)
def test_text_that_is_not_utf8_is_refused(
    decode: Callable[[bytes], object], message: list[Any], named: str
) -> None:
    body = msgpack.packb(message)
    decode(body)
    with pytest.raises(WireError, match=named) as raised:
        decode(body.replace(b"MARK", b"\xff\xfe\xfd\xfc"))
    assert isinstance(raised.value.__cause__, (msgspec.MsgspecError, UnicodeDecodeError))


@pytest.mark.parametrize("request_id", [-1, 1.0, "1", None, True])
def test_a_request_id_is_a_whole_number(request_id: Any) -> None:
    refused(decode_control, [1, request_id, "hello", {}], ".")
