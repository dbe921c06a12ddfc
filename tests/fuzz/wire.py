"""What comes over sockets. A target raises for a fault, and for nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from canbroker.model.bus_time import bus_time_ns
from canbroker.model.frame import EchoFrame, Frame, frame_fault
from canbroker.model.message import Message
from canbroker.wire import (
    DECODE_ERRORS,
    WireError,
    control,
    replay,
    stream,
    tasks,
    topics,
    transmit,
)
from canbroker.wire.status import BrokerStatus
from canbroker.wire.topics import LeftTopic, PrivateTopic, RouteTopic

METHODS: Final[Mapping[str, Mapping[str, type[control.Params]]]] = {
    "broker": control.BROKER_METHODS,
    "channel": {**control.CHANNEL_METHODS, **tasks.REPEAT_METHODS, **replay.REPLAY_METHODS},
    "scheduler": tasks.SCHEDULER_METHODS,
}

RESULTS: Final[tuple[type[msgspec.Struct], ...]] = (
    control.Attached,
    BrokerStatus,
    control.Discarded,
    control.ErrorResult,
    control.HelloResult,
    control.Leased,
    control.SchedulerAt,
    replay.Past,
    replay.Replayed,
    tasks.RepeatCounts,
    tasks.Repeating,
    tasks.TaskAdded,
    tasks.TaskList,
    tasks.TaskTrouble,
)


def batch(data: bytes) -> None:
    try:
        found = stream.decode_batch(data)
    except WireError:
        return
    if isinstance(found.payload, str):
        return
    packed = [stream.pack_frame(frame) for frame in found.payload]
    again = stream.encode_frames(found.epoch, found.first_seq, found.dropped_upstream, packed)
    assert stream.decode_batch(again).payload == found.payload
    for received, body in zip(found.payload, packed, strict=True):
        frame = msgspec.msgpack.decode(body, type=EchoFrame)
        _use(frame)
        ours, theirs = (Message.from_frame(either, "can0") for either in (received, frame))
        assert ours.equals(theirs, timestamp_delta=None)


def event(data: bytes) -> None:
    try:
        found = stream.decode_event(data)
    except WireError:
        return
    if not isinstance(found.payload, str):
        again = stream.decode_event(stream.encode_event(found.epoch, found.payload))
        # As bytes, because a rate that is not a number does not equal itself.
        assert _bytes(again.payload) == _bytes(found.payload)


def request(data: bytes) -> None:
    try:
        found = control.decode_request(data)
    except WireError:
        return
    for methods in METHODS.values():
        try:
            params = control.decode_params(found, methods)
        except WireError:
            continue
        encoded = control.encode_request(found.id, found.method, params)
        again = control.decode_params(control.decode_request(encoded), methods)
        assert _bytes(again) == _bytes(params)


def reply(data: bytes) -> None:
    try:
        found = control.decode_reply(data)
    except WireError:
        return
    for kind in RESULTS:
        try:
            result = msgspec.msgpack.decode(found.result, type=kind)
        except DECODE_ERRORS:
            continue
        if isinstance(result, replay.Past | replay.Replayed):
            _frames(result.frames)


def transmit_request(data: bytes) -> None:
    try:
        found = transmit.decode_request(data)
    except WireError:
        return
    assert not found.origins or len(found.origins) == len(found.frames)
    again = transmit.encode_request(
        found.client_id,
        found.token,
        found.expires_ns,
        found.frames,
        found.epoch,
        found.origins,
        found.due_ns,
    )
    found.flags = 0  # reserved: nobody sends others
    assert transmit.decode_request(again) == found
    for frame in found.frames:
        _use(frame)


def transmit_reply(data: bytes) -> None:
    try:
        found = transmit.decode_reply(data)
    except WireError:
        return
    if found.status not in list(transmit.Status):
        return
    status = transmit.Status(found.status)
    again = transmit.encode_reply(
        found.token, status, found.accepted, found.timestamp_ns, found.reason, found.failed
    )
    assert transmit.decode_reply(again) == found


def topic(data: bytes) -> None:
    try:
        found = topics.parse(data, "can0")
    except WireError:
        return
    if isinstance(found, RouteTopic):
        again = topics.route_topic("can0", found.filters)
    elif isinstance(found, PrivateTopic):
        again = topics.private_topic("can0", found.client_id, found.filters, found.claim)
    elif isinstance(found, LeftTopic):
        again = topics.left_topic("can0", found.client_id)
    else:
        again = topics.state_topic("can0")
    assert topics.parse(again, "can0") == found


def _frames(raw: msgspec.Raw) -> None:
    try:
        frames = replay.decode_frames(raw)
    except WireError:
        return
    again = replay.encode_frames([msgspec.Raw(stream.pack_frame(frame)) for frame in frames])
    assert replay.decode_frames(again) == frames


def _use(frame: Frame) -> None:
    """A frame that was decoded is either refused with a reason or can be worked with."""
    if frame_fault(frame.arbitration_id, frame.flags, frame.data) is None:
        assert bus_time_ns(frame, 500_000) > 0
        assert str(Message.from_frame(frame, "can0"))


def _bytes(value: object) -> bytes:
    return msgspec.msgpack.encode(value)
