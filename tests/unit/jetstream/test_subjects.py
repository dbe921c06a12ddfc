"""Subjects: any names fit, none is confused with another one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.jetstream import subjects
from canbroker.jetstream.subjects import Subject

names = st.text(min_size=1, max_size=40).filter(str.isprintable)


def test_names_with_dots_blanks_and_wildcards_are_one_token() -> None:
    subject = Subject("Werk 2", "bench.7", "can*>", "rx")
    assert str(subject) == "can.v1.Werk%202.bench%2E7.can%2A%3E.rx"
    assert subjects.parse(str(subject)) == subject


def test_a_missing_name_stands_for_any() -> None:
    assert subjects.frames() == "can.v1.*.*.*.rx"
    assert subjects.state("a", None, "can0") == "can.v1.a.*.can0.state"
    assert subjects.commands("a", "b") == "can.v1.a.b.*.tx"
    assert subjects.signals("a", "b", "c", "Motor") == "can.v1.a.b.c.signal.Motor.*"


@given(names, names, names)
def test_every_name_comes_back(site: str, bench: str, channel: str) -> None:
    text = subjects.frames(site, bench, channel)
    assert re.fullmatch(r"can\.v1(\.[A-Za-z0-9_%-]+){3}\.rx", text)
    assert subjects.parse(text) == Subject(site, bench, channel, "rx")


@given(names, names)
def test_signals_come_back(message: str, signal: str) -> None:
    subject = Subject("s", "b", "c", "signal", message, signal)
    assert subjects.parse(str(subject)) == subject


@pytest.mark.parametrize(
    "subject",
    [
        "can.v2.a.b.c.rx",
        "can.v1.a.b.c",
        "can.v1.a.b.c.rx.d",
        "can.v1.a.b..rx",
        "can.v1.a.b.*.rx",
        "can.v1.a.b.c.signal.d",
        "can.v1.a.b.c.signal.d.e.f",
        "can.v1.a.b.%2e.rx",
        "can.v1.a.b.%41.rx",
        "can.v1.a.b.%FF.rx",
        "can.v1.a.b.%0A.rx",
        "can.v1.a.b.c.foo",
        "",
    ],
)
def test_what_is_not_ours_is_refused(subject: str) -> None:
    with pytest.raises(ValueError, match=r"subject"):
        subjects.parse(subject)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 129])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="printable characters"):
        subjects.frames(name)


@pytest.mark.parametrize(
    ("pattern", "is_covered"),
    [
        ("can.v1.lab.b.c.rx", True),
        ("can.v1.*.*.*.rx", True),
        ("can.v1.lab.>", True),
        (">", True),
        ("can.v1.lab.b.c", False),
        ("can.v1.lab.b.c.rx.>", False),
        ("can.v1.lab.*.c.state", False),
        ("can.v1.*.rx", False),
        ("can.v1.la*.b.c.rx", False),
    ],
)
def test_patterns_are_those_of_nats(pattern: str, is_covered: bool) -> None:
    assert subjects.covers(pattern, "can.v1.lab.b.c.rx") is is_covered
