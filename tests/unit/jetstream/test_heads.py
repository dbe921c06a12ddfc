"""Headers: written and read again, and refused if they are not ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.jetstream import heads
from canbroker.jetstream.heads import Gap, Head
from canbroker.wire import WireError

FRAMES = Head(17, "can 0", 40, 3, 1_000, bench=("lab", "b.1"))
LOST = Head(
    17, "can 0", 43, 0, 2_000, Gap("lost", 5, "the ring: 60 s, größer"), bench=("lab", "b.1")
)

numbers = st.integers(0, 2**62)
gaps = st.builds(
    Gap,
    st.sampled_from(["lost", "interrupted", "restarted"]),
    st.none() | numbers,
    st.text(max_size=100).filter(str.isprintable),
)


def test_headers_are_spelled_as_documented() -> None:
    assert FRAMES.headers() == {
        "Nats-Msg-Id": "17:lab.b%2E1.can%200:40",
        "Can-Count": "3",
        "Can-Time": "1000",
    }
    assert LOST.headers() == {
        "Nats-Msg-Id": "17:lab.b%2E1.can%200:43:lost",
        "Can-Count": "0",
        "Can-Time": "2000",
        "Can-Gap": "lost",
        "Can-Lost": "5",
        "Can-Reason": "the ring: 60 s, gr%C3%B6%C3%9Fer",
    }


def test_numbers_go_on_behind_frames_and_losses() -> None:
    assert (FRAMES.next_seq, LOST.next_seq) == (43, 48)
    assert LOST._replace(gap=Gap("lost", None, "")).next_seq == 43


@given(numbers, numbers, st.integers(1, 1024), numbers, st.integers(-(2**62), 2**62))
def test_frames_come_back(epoch: int, first: int, count: int, time: int, offset: int) -> None:
    for bench in (None, ("a b", "c.d")):
        head = Head(epoch, "can0", first, count, time, None, offset, bench)
        assert heads.parse(head.headers()) == head


@given(gaps)
def test_gaps_come_back(gap: Gap) -> None:
    head = Head(1, "a.b", 2, 0, 3, gap)
    assert heads.parse(head.headers()) == head


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("Nats-Msg-Id", ""),
        ("Nats-Msg-Id", "17:can0"),
        ("Nats-Msg-Id", "-1:can0:40"),
        ("Nats-Msg-Id", "17:can.0:40"),
        ("Nats-Msg-Id", "17:a.b.c.d:40"),
        ("Nats-Msg-Id", "17:lab..can0:40"),
        ("Nats-Msg-Id", f"{2**63}:can0:40"),
        ("Nats-Msg-Id", "17:can0:40:lost"),
        ("Can-Count", "0"),
        ("Can-Count", "1025"),
        ("Can-Count", "x"),
        ("Can-Time", "-1"),
        ("Can-Gap", "lost"),
        ("Can-Gap", "other"),
        ("Can-Offset", "1.5"),
    ],
)
def test_headers_of_somebody_else_are_refused(header: str, text: str) -> None:
    with pytest.raises(WireError, match=r"Nats-Msg-Id|Can-"):
        heads.parse({**FRAMES.headers(), header: text})


def test_a_message_without_headers_is_refused() -> None:
    with pytest.raises(WireError, match="Nats-Msg-Id"):
        heads.parse(None)
