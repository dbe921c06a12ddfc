"""Filters in the kernel, as it lists them itself."""

from __future__ import annotations

from typing import Any

import can

from canbroker import Bus
from canbroker.model.filters import EVERYTHING, NOTHING, Filter, FilterSet, parse
from canbroker.model.frame import EXTENDED, Frame
from canbroker.transport.runtime import Runtime
from tests.can.conftest import Open
from tests.support.benches import collect, content, transmit
from tests.support.vcan import VCAN, Node, filters_of, listeners, needs_can

pytestmark = needs_can

EFF = 0x80000000


def frame(arbitration_id: int) -> Frame:
    return Frame(0, arbitration_id, 0, b"\x01")


def test_what_is_wanted_is_what_the_kernel_has(open_interface: Open) -> None:
    before = listeners()
    backend = open_interface()
    assert listeners() == before + 1
    assert len(filters_of(VCAN, "err")) == 1
    backend.filter(parse("100:700,s123:7ff,x000a0000:1fffffff"))
    assert listeners() == before
    wanted = [(0x100, 0x700), (0xA0000 | EFF, 0x1FFFFFFF | EFF)]
    assert sorted(filters_of(VCAN)) == wanted, "s123 is part of 100:700"
    backend.filter(NOTHING)
    assert filters_of(VCAN) == []
    assert len(filters_of(VCAN, "err")) == 1, "error frames come all the same"
    backend.filter(EVERYTHING)
    assert listeners() == before + 1


def test_too_many_for_the_kernel_are_left_to_the_routes(open_interface: Open) -> None:
    before = listeners()
    backend = open_interface()
    backend.filter(FilterSet(Filter(number, 0x7FF, False) for number in range(512)))
    assert len(filters_of(VCAN)) == 512
    backend.filter(FilterSet(Filter(number, 0x7FF, False) for number in range(513)))
    assert filters_of(VCAN) == []
    assert listeners() == before + 1


def test_unwanted_frames_do_not_reach_us(open_interface: Open, node: Node) -> None:
    backend = open_interface()
    backend.filter(parse("s123:7ff"))
    node.send([frame(0x124), frame(0x123), frame(0x122)])
    node.send([frame(0x123)])
    items = collect(backend, lambda items: len(items) >= 2)
    assert [content(item) for item in items if isinstance(item, Frame)] == [
        content(frame(0x123)), content(frame(0x123)),
    ]  # fmt: skip


def test_what_we_send_is_confirmed_whatever_is_wanted(open_interface: Open, node: Node) -> None:
    backend = open_interface()
    for wanted in (NOTHING, parse("s123:7ff"), EVERYTHING, NOTHING):
        backend.filter(wanted)
        sent = [transmit(frame(0x200)), transmit(Frame(0, 0x200, 1, b""))]
        backend.send(sent)
        assert collect(backend, lambda items: len(items) >= 2) == sent
        assert {item.failure for item in sent} == {None}


def test_a_filter_that_changes_under_way_loses_no_confirmation(
    open_interface: Open, node: Node
) -> None:
    backend = open_interface()
    backend.filter(NOTHING)
    sent = [transmit(frame(number)) for number in range(100)]
    backend.send(sent[:50])
    backend.filter(parse("s7ff:7ff"))
    backend.send(sent[50:])
    assert collect(backend, lambda items: len(items) >= 100) == sent
    backend.filter(NOTHING)
    assert filters_of(VCAN) == [], "what has come back passes no longer"


#: Filters with the flags of linux/can.h: 29-bit, 11-bit and inverted ones, and of some bits.
FLAGGED: list[list[Any]] = [
    [{"can_id": 0x80000123, "can_mask": 0x9FFFFFFF}],
    [{"can_id": 0x123, "can_mask": 0x9FFFFFFF}],
    [{"can_id": 0x20000123, "can_mask": 0x7FF}],
    [{"can_id": 0x20000123, "can_mask": 0x800007FF}],
    [{"can_id": 0xA0000123, "can_mask": 0x9FFFFFFF}],
    [{"can_id": 0x20000100, "can_mask": 0x700}, {"can_id": 0x123, "can_mask": 0x7FF}],
    [{"can_id": 0x80000123, "can_mask": 0x1FFFFFFF}],
    [{"can_id": 0x20000123, "can_mask": 0x7FF, "extended": True}],
]


def test_flags_mean_what_they_mean_to_python_cans_socketcan(runtime: Runtime, node: Node) -> None:
    numbers = (0, 0x123, 0x122, 0x124, 0x323, 0x7FE)
    frames = [Frame(0, number, flags, b"") for number in numbers for flags in (0, EXTENDED)]
    frames += [Frame(0, 0x12345, EXTENDED, b""), Frame(0, 0x800123, EXTENDED, b"")]
    end = [Frame(0, 0x7FF, 0, b""), Frame(0, 0x7FF, EXTENDED, b"")]
    ends: list[Any] = [
        {"can_id": 0x7FF, "can_mask": 0x7FF, "extended": extended} for extended in (False, True)
    ]
    with Bus(VCAN, "socketcan") as ours, can.Bus(VCAN, "socketcan") as theirs:
        for flagged in FLAGGED:
            ours.set_filters([*flagged, *ends])
            theirs.set_filters([*flagged, *ends])
            node.send(frames + end)
            assert received(ours) == received(theirs), flagged


def received(bus: Bus | can.BusABC) -> list[tuple[int, bool]]:
    """What comes until both last frames have."""
    got: list[tuple[int, bool]] = []
    while got[-2:] != [(0x7FF, False), (0x7FF, True)]:
        message = bus.recv(10)
        assert message is not None, got
        got.append((message.arbitration_id, message.is_extended_id))
    return got
