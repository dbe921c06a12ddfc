"""What adapters, the kernel, and a predecessor's memory hold.

A target raises for a fault, and for nothing else.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import msgspec

from canbroker.backends.base import BusCondition
from canbroker.backends.slcan.codec import MAX_LINE, LineBuffer, LineError, decode, encode
from canbroker.backends.socketcan import codec, error_frames, netlink
from canbroker.delivery.replayer import Replayer
from canbroker.delivery.ring import MIN_BYTES, SLOT_BYTES, Ring, anonymous
from canbroker.delivery.routes import Route
from canbroker.model.filters import EVERYTHING
from canbroker.model.frame import ERROR, FD, REMOTE, Frame, frame_fault
from canbroker.simulator.firmware import FIRMWARES, create
from canbroker.simulator.options import SimulatorOptions
from canbroker.wire.control import ErrorResult
from canbroker.wire.replay import History, Past, Replay, Replayed, decode_frames


def slcan(data: bytes) -> None:
    """Lines do not depend on how they are cut into reads; what is decoded is encoded again."""
    whole, cut = LineBuffer(), LineBuffer()
    lines = list(whole.feed(data))
    bytewise = [line for at in range(len(data)) for line in cut.feed(data[at : at + 1])]
    assert bytewise == lines
    for line, _ in lines:
        assert len(line) <= MAX_LINE + 1
        try:
            frame, stamp = decode(line)
        except LineError:
            continue
        assert frame_fault(frame.arbitration_id, frame.flags, frame.data) is None
        if not frame.flags & REMOTE:  # whose bytes are not kept
            assert encode(frame, stamp).upper() == line.upper().replace(b"X", b"T") + b"\r"


def simulator(data: bytes) -> None:
    for firmware in FIRMWARES:
        device = create(SimulatorOptions(firmware=firmware, queue=4))
        for at in range(0, len(data), 64):
            answers = device.receive(data[at : at + 64], at * 10_000)
            # One answer a line, but for the page of help that an ESP32 has.
            assert answers.count(b"\r") + answers.count(b"\a") <= len(data) + 4 * data.count(b"h")


def raw_can(data: bytes) -> None:
    """The kernel gives 16 bytes or 72."""
    for size in (codec.CAN_MTU, codec.CANFD_MTU):
        wire = data[:size].ljust(size, b"\0")
        frame = codec.decode(wire, 1)
        if frame.flags & ERROR:
            _errors(frame)
        elif frame_fault(frame.arbitration_id, frame.flags, frame.data) is None:
            again = codec.decode(codec.encode(frame), 1)
            assert again == frame
        assert isinstance(frame.data, int) or len(frame.data) <= (64 if frame.flags & FD else 8)


def _errors(frame: Frame) -> None:
    assert error_frames.describe_error(frame)
    assert all(kind and words for kind, words in error_frames.error_causes(frame))
    condition = error_frames.condition_after(frame, BusCondition())
    assert condition.reason or not condition.off
    error_frames.is_overrun(frame)


def rtnetlink(data: bytes) -> None:
    with suppress(OSError):
        payloads = [payload for _, payload in netlink._messages(data)]
        list(netlink._links(payloads))
    with suppress(ValueError):
        netlink.parse_link(data)


_SLOTS: Final = MIN_BYTES // SLOT_BYTES
_HEADER: Final = 36
_MARKS: Final = 40  # bytes, of two
_TOPIC: Final = "can0/rx;"


def ring(data: bytes) -> None:
    """Whatever a predecessor left, its successor serves, and goes on."""
    memory = anonymous()
    share = -(-len(data) // _SLOTS)  # rounded up
    for slot in range(_SLOTS):
        part = data[slot * share : (slot + 1) * share]
        start, marks = slot * SLOT_BYTES, part[_HEADER : _HEADER + _MARKS]
        content = part[:_HEADER] + part[_HEADER + _MARKS :]
        memory[start : start + len(content)] = content
        end = start + SLOT_BYTES
        memory[end - len(marks) : end] = marks
    taken_over = Ring(memory, 9, 60)
    route = Route(_TOPIC.encode(), EVERYTHING)
    route.next_seq = 7
    replayer = Replayer(taken_over, "can0", 9, {route.topic: route}.get)
    _replay(replayer, {segment.epoch for segment in taken_over.segments} | {9})
    packed = msgspec.msgpack.encode(Frame(1, 2, 0, b"new"))
    for _ in range(3):
        taken_over.append([packed], [route])
        taken_over.forget(route)
    _replay(replayer, {9})
    taken_over.close()


def _replay(replayer: Replayer, epochs: set[int]) -> None:
    for epoch in epochs:
        for end in (None, 8, 2**63 - 1):
            _answered(replayer.replay(Replay(topic=_TOPIC, epoch=epoch, first_seq=0, end_seq=end)))
    after = None
    for _ in range(3):
        past = replayer.history(History(topic=_TOPIC, seconds=60.0, after=after))
        _answered(past)
        after = past.after if isinstance(past, Past) else None


def _answered(answer: msgspec.Struct | None) -> None:
    """A client understands the answer, if there is one yet."""
    if answer is None:
        return
    assert isinstance(answer, ErrorResult | Past | Replayed)
    msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=type(answer))
    if not isinstance(answer, ErrorResult):
        decode_frames(answer.frames)
