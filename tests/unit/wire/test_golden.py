"""Golden vectors: the bytes that version 1 of the protocol stands for, in every language."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR,
    EXTENDED,
    FD,
    REMOTE,
    EchoFrame,
    Frame,
    ReceivedFrame,
)
from canbroker.model.protection import Counter, Crc8
from canbroker.wire import control, replay, stream, tasks, transmit
from canbroker.wire.forbidden import Forbidden

ROOT = Path(__file__).parents[3]
GOLDEN: dict[str, dict[str, Any]] = json.loads((ROOT / "tests/golden/v1.json").read_text())

EPOCH = 1_700_000_000_000_000_000
T = 1_700_000_001_234_567_890
RUNTIME = "ipc:///run/user/1000/canbroker"

FRAMES = [
    Frame(T, 0x451, 0, b"\x01\x02\x03\x04"),
    Frame(T + 1, 0x000A0000, EXTENDED | FD | BITRATE_SWITCH, bytes(12)),
    Frame(T + 2, 0x123, REMOTE, 8),
    Frame(T + 3, 0x20, ERROR, bytes(8)),
    EchoFrame(T + 4, 0x7FF, 0, b"", "c1"),
]
STATE = stream.StateEvent(
    state="active",
    info="virtual bus",
    bitrate=500_000,
    monotonic_ns=1000,
    wall_ns=T,
    received=2,
    transmitted=1,
    received_rate=1.5,
    transmitted_rate=0.5,
    load=0.25,
    routes=1,
    clients=[stream.ClientInfo("c1", "451:7ff")],
    exclusive=stream.Holder("c1", "process 4712: logger"),
    connected=[4712],
)
SENT = [Frame(0, 0x451, 0, b"\x11\x22"), Frame(0, 0x18DAF110, EXTENDED, b"")]
HELLO = control.HelloResult(
    version="0.1.0", pid=4711, address=f"{RUNTIME}/broker", autostarted=True
)
HELLO_CLOCKS = control.HelloResult(
    version="0.1.0",
    pid=4711,
    address=f"{RUNTIME}/broker",
    autostarted=True,
    monotonic_ns=90_000_000_000,
    wall_ns=1_700_000_001_234_567_890,
)
ATTACH = control.Attach(
    client_id="c1",
    pid=4712,
    program="logger",
    channel="/dev/ttyACM0",
    interface="slcan",
    parameters={"bitrate": 500_000},
)
ATTACHED = control.Attached(
    name="slcan./dev/ttyACM0",
    interface="slcan",
    parameters={"bitrate": 500_000},
    stream=f"{RUNTIME}/e3aeb5fcf182f475.rx",
    transmit=f"{RUNTIME}/e3aeb5fcf182f475.tx",
    control=f"{RUNTIME}/e3aeb5fcf182f475.ctl",
)
LEASE = control.TakeLease(
    lease_id="l1",
    pid=4712,
    started=2596066,
    program="pytest",
    pool="bench",
    timeout_ns=30_000_000_000,
)
TASK = tasks.AddTask(
    client_id="c1",
    task=3,
    pid=4712,
    channel="slcan./dev/ttyACM0",
    messages=[Frame(0, 0x451, 0, bytes(8))],
    period_ns=10_000_000,
    duration_ns=1_000_000_000,
    counter=Counter(byte=7, bits=4),
    checksum=Crc8(byte=0),
    expires_ns=123_456_789_000,
)
AGAIN = replay.Replay(topic="can0/rx?451:7ff;", epoch=EPOCH, first_seq=12, end_seq=20)
PACKED = [msgspec.Raw(stream.pack_frame(frame)) for frame in FRAMES[:2]]
REPLAYED = replay.Replayed(12, False, replay.encode_frames(PACKED))
PAST = replay.Past(EPOCH, 20, (3, 2), (3, 7), replay.encode_frames(PACKED))
HOLD = replay.Hold(topic="can0/rx;", holder="recording drive", seconds=60.0, epoch=EPOCH)
HELD = replay.Held(EPOCH, 20, 12, continues=True)
RECORDING = control.StartRecording(
    name="drive", options={"channels": ["can0"], "directory": "/data", "format": "blf"}
)
TROUBLE = tasks.TaskTrouble(task=3, failed=12, reason="the channel is listen-only")
FORBIDDEN = Forbidden(name="bob", role="transmit", identifier=0x223)
REFUSAL = transmit.Refusal("'bob' may not transmit 223", FORBIDDEN)
REFUSED = transmit.Request(1, "c1", 7, 0, 0, [Frame(0, 0x223, 0, b"")], EPOCH, refusal=REFUSAL)
OBSERVER = Forbidden(name="bob", role="observe")
MAY_NOT = "'bob' may not stop the broker: that needs the role admin, not observe"
UNKNOWN = control.ErrorResult("malformed", "unknown method 'halt'; there are: hello")

ENCODED: dict[str, bytes] = {
    "frames": stream.encode_frames(EPOCH, 7, 3, [stream.pack_frame(frame) for frame in FRAMES]),
    "heartbeat": stream.encode_heartbeat(EPOCH, 12, 3),
    "end": stream.encode_end(EPOCH, 12, 3, "the broker was told to stop"),
    "error": stream.encode_error(EPOCH, "topic 'can0/rx?7;' is wrong"),
    "ready": stream.encode_ready(EPOCH, 12, stream.encode_state(STATE)),
    "state": stream.encode_event(EPOCH, STATE),
    "left": stream.encode_event(EPOCH, stream.LeftEvent("c1")),
    "transmit-request": transmit.encode_request("c1", 5, 90_000_000_000, SENT, EPOCH),
    "transmit-unhurried": transmit.encode_unhurried("c1", 8, SENT[:1], EPOCH),
    "transmit-ok": transmit.encode_reply(5, transmit.Status.OK, 2, T),
    "transmit-failed": transmit.encode_reply(
        6, transmit.Status.REFUSED, 2, T, "the adapter refused it", [1]
    ),
    "transmit-refused": transmit.encode_refused(
        transmit.Request(1, "c1", 7, 0, 0, [Frame(0, 0x223, 0, b"")], EPOCH), REFUSAL
    ),
    "transmit-forbidden": transmit.encode_reply(
        7, transmit.Status.NOT_PERMITTED, 0, 0, REFUSAL.reason, [0], FORBIDDEN
    ),
    "topic-forbidden": stream.encode_error(0, "'bob' may not use channel 'can1'", OBSERVER),
    "forbidden-reply": control.encode_reply(3, control.forbidding(MAY_NOT, OBSERVER)),
    "hello-request": control.encode_request(1, "hello", control.Params()),
    "hello-reply": control.encode_reply(1, HELLO),
    "hello-reply-clocks": control.encode_reply(1, HELLO_CLOCKS),
    "attach-request": control.encode_request(2, "attach", ATTACH),
    "attach-reply": control.encode_reply(2, ATTACHED),
    "error-reply": control.encode_reply(3, UNKNOWN),
    "discard-request": control.encode_request(
        4, "discard", control.Discard(client_id="c1", token=9)
    ),
    "discard-reply": control.encode_reply(4, control.Discarded(17)),
    "transmit-for-others": transmit.encode_request(
        "scheduler", 9, 90_000_000_000, SENT, EPOCH, ["c1", "c2"], 89_000_000_000
    ),
    "task-add-request": control.encode_request(5, "task_add", TASK),
    "task-add-reply": control.encode_reply(5, tasks.TaskAdded()),
    "lease-request": control.encode_request(6, "lease", LEASE),
    "lease-reply": control.encode_reply(6, control.Leased(channel="can0")),
    "release-request": control.encode_request(7, "release", control.Release(lease_id="l1")),
    "task-trouble": control.encode_reply(0, TROUBLE),
    "replay-request": control.encode_request(8, "replay", AGAIN),
    "replay-reply": control.encode_reply(8, REPLAYED),
    "history-request": control.encode_request(
        9, "history", replay.History(topic="can0/rx;", seconds=2.5)
    ),
    "history-reply": control.encode_reply(9, PAST),
    "hold-request": control.encode_request(10, "hold", HOLD),
    "hold-reply": control.encode_reply(10, HELD),
    "record-start-request": control.encode_request(11, "record_start", RECORDING),
    "record-stop-request": control.encode_request(
        12, "record_stop", control.StopRecording(name="drive")
    ),
}


def batch(kind: int, first_seq: int, payload: list[ReceivedFrame] | str) -> stream.Batch:
    dropped = 0 if kind == stream.ERROR else 3
    return stream.Batch(1, kind, EPOCH, first_seq, dropped, payload)


def event(payload: stream.StateEvent | stream.ReadyEvent | stream.LeftEvent) -> stream.EventBody:
    return stream.EventBody(1, stream.EVENT, EPOCH, 0, 0, payload)


def params(body: bytes) -> tuple[int, control.Params]:
    request = control.decode_request(body)
    methods = {
        **control.BROKER_METHODS,
        **control.CHANNEL_METHODS,
        **tasks.SCHEDULER_METHODS,
        **replay.REPLAY_METHODS,
    }
    return request.id, control.decode_params(request, methods)


def result(kind: type[msgspec.Struct]) -> Callable[[bytes], object]:
    def decode(body: bytes) -> tuple[int, bool, msgspec.Struct]:
        reply = control.decode_reply(body)
        return reply.id, reply.ok, msgspec.msgpack.decode(reply.result, type=kind)

    return decode


def received(frame: Frame) -> ReceivedFrame:
    origin = frame.origin if isinstance(frame, EchoFrame) else None
    data = frame.data if isinstance(frame.data, int) else bytearray(frame.data)
    return ReceivedFrame(frame.timestamp_ns, frame.arbitration_id, frame.flags, data, origin)


DECODED: dict[str, tuple[Callable[[bytes], object], object]] = {
    "frames": (stream.decode_batch, batch(stream.FRAMES, 7, list(map(received, FRAMES)))),
    "heartbeat": (stream.decode_batch, batch(stream.HEARTBEAT, 12, [])),
    "end": (stream.decode_batch, batch(stream.END, 12, "the broker was told to stop")),
    "error": (stream.decode_batch, batch(stream.ERROR, 0, "topic 'can0/rx?7;' is wrong")),
    "ready": (stream.decode_event, event(stream.ReadyEvent(12, STATE))),
    "state": (stream.decode_event, event(STATE)),
    "left": (stream.decode_event, event(stream.LeftEvent("c1"))),
    "transmit-request": (
        transmit.decode_request,
        transmit.Request(1, "c1", 5, 0, 90_000_000_000, SENT, EPOCH),
    ),
    "transmit-unhurried": (
        transmit.decode_request,
        transmit.Request(1, "c1", 8, transmit.UNHURRIED, 0, SENT[:1], EPOCH),
    ),
    "transmit-ok": (transmit.decode_reply, transmit.Reply(1, 5, 0, 2, T, "", [])),
    "transmit-failed": (
        transmit.decode_reply,
        transmit.Reply(1, 6, 9, 2, T, "the adapter refused it", [1]),
    ),
    "transmit-refused": (transmit.decode_request, REFUSED),
    "transmit-forbidden": (
        transmit.decode_reply,
        transmit.Reply(1, 7, 5, 0, 0, REFUSAL.reason, [0], FORBIDDEN),
    ),
    "topic-forbidden": (
        stream.decode_event,
        stream.EventBody(1, 3, 0, 0, 0, "'bob' may not use channel 'can1'", OBSERVER),
    ),
    "forbidden-reply": (
        result(control.ErrorResult),
        (3, False, control.forbidding(MAY_NOT, OBSERVER)),
    ),
    "hello-request": (params, (1, control.Params())),
    "hello-reply": (result(control.HelloResult), (1, True, HELLO)),
    "hello-reply-clocks": (result(control.HelloResult), (1, True, HELLO_CLOCKS)),
    "attach-request": (params, (2, ATTACH)),
    "attach-reply": (result(control.Attached), (2, True, ATTACHED)),
    "error-reply": (result(control.ErrorResult), (3, False, UNKNOWN)),
    "discard-request": (params, (4, control.Discard(client_id="c1", token=9))),
    "discard-reply": (result(control.Discarded), (4, True, control.Discarded(17))),
    "transmit-for-others": (
        transmit.decode_request,
        transmit.Request(
            *(1, "scheduler", 9, 0, 90_000_000_000, SENT, EPOCH, ["c1", "c2"], 89_000_000_000)
        ),
    ),
    "task-add-request": (params, (5, TASK)),
    "task-add-reply": (result(tasks.TaskAdded), (5, True, tasks.TaskAdded())),
    "lease-request": (params, (6, LEASE)),
    "lease-reply": (result(control.Leased), (6, True, control.Leased(channel="can0"))),
    "release-request": (params, (7, control.Release(lease_id="l1"))),
    "task-trouble": (result(tasks.TaskTrouble), (0, True, TROUBLE)),
    "replay-request": (params, (8, AGAIN)),
    "replay-reply": (result(replay.Replayed), (8, True, REPLAYED)),
    "history-request": (params, (9, replay.History(topic="can0/rx;", seconds=2.5))),
    "history-reply": (result(replay.Past), (9, True, PAST)),
    "hold-request": (params, (10, HOLD)),
    "hold-reply": (result(replay.Held), (10, True, HELD)),
    "record-start-request": (params, (11, RECORDING)),
    "record-stop-request": (params, (12, control.StopRecording(name="drive"))),
}


def golden(name: str) -> bytes:
    return bytes.fromhex(GOLDEN[name]["bytes"])


def value(name: str) -> Any:
    """The structure that a vector stands for; ``{"hex": …}`` is bytes."""

    def unfold(item: Any) -> Any:
        if isinstance(item, dict):
            if set(item) == {"hex"}:
                return bytes.fromhex(item["hex"])
            return {key: unfold(inner) for key, inner in item.items()}
        return [unfold(inner) for inner in item] if isinstance(item, list) else item

    return unfold(GOLDEN[name]["value"])


def test_every_vector_is_encoded_and_decoded_here() -> None:
    assert set(GOLDEN) == set(ENCODED) == set(DECODED)


@pytest.mark.parametrize("name", GOLDEN)
def test_encoding_gives_the_golden_bytes(name: str) -> None:
    assert ENCODED[name].hex() == golden(name).hex()


@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_bytes_decode(name: str) -> None:
    decode, expected = DECODED[name]
    assert decode(golden(name)) == expected


@pytest.mark.parametrize("name", GOLDEN)
def test_the_reference_library_reads_what_we_write(name: str) -> None:
    assert msgpack.unpackb(ENCODED[name]) == value(name)


@pytest.mark.parametrize("name", GOLDEN)
def test_we_read_what_the_reference_library_writes(name: str) -> None:
    decode, expected = DECODED[name]
    assert decode(msgpack.packb(value(name))) == expected


def test_the_document_shows_the_golden_bytes() -> None:
    text = (ROOT / "docs/protocol.md").read_text()
    shown = dict(
        re.findall(r"^```hex title=\"([\w-]+)\"\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    )
    assert {name: bytes.fromhex(shown[name]).hex() for name in shown} == {
        name: vector["bytes"] for name, vector in GOLDEN.items()
    }


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 255, 256, 1023, 1024])
def test_batches_of_every_size_are_read_by_the_reference_library(count: int) -> None:
    frames = [Frame(T + i, i, 0, bytes([i & 255]) * (i % 9)) for i in range(count)]
    body = stream.encode_frames(EPOCH, 2**64 - 1, 2**32, list(map(stream.pack_frame, frames)))
    rows = [[f.timestamp_ns, f.arbitration_id, f.flags, f.data] for f in frames]
    assert msgpack.unpackb(body) == [1, 0, EPOCH, 2**64 - 1, 2**32, rows]
    assert stream.decode_batch(body).payload == list(map(received, frames))


def test_an_echo_keeps_the_frame_and_names_its_origin() -> None:
    frame = Frame(0, 0x123, FD | BITRATE_SWITCH, b"\xaa")
    assert stream.echo(frame, T, "me") == EchoFrame(T, 0x123, FD | BITRATE_SWITCH, b"\xaa", "me")
