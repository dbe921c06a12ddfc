"""Topics: what a subscription asks for, spelled out."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.model import filters
from canbroker.model.filters import EVERYTHING, NOTHING, FilterSet
from canbroker.wire import WireError, topics

DOCUMENT = (Path(__file__).parents[3] / "docs/protocol.md").read_text()
SOME = filters.parse("451:7ff,x000a0000:1fffffff")

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
client_ids = st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True)
entries = st.from_regex(r"[sx]?[0-9a-f]{1,8}:[0-9a-f]{1,8}[!^]?", fullmatch=True)
filter_sets = st.just(NOTHING) | st.lists(entries, max_size=8).map(
    lambda texts: filters.parse(",".join(texts))
)


def test_topics_are_spelled_as_documented() -> None:
    assert topics.route_topic("can0", EVERYTHING) == b"can0/rx;"
    assert topics.route_topic("can0", NOTHING) == b"can0/rx?-;"
    assert topics.route_topic("can0", SOME) == b"can0/rx?451:7ff,x000a0000:1fffffff;"
    assert topics.state_topic("can0") == b"can0/state;"
    assert topics.private_topic("can0", "me-1", EVERYTHING) == b"can0/@me-1;"
    assert topics.private_topic("can0", "me-1", SOME) == (b"can0/@me-1?451:7ff,x000a0000:1fffffff;")
    assert topics.left_topic("can 0", "me-1") == b"can%200/left/me-1;"
    claimed = topics.private_topic("can0", "me-1", filters.parse("451:7ff"), "process 7: a?b;")
    assert claimed == b"can0/@me-1!process%207%3A%20a%3Fb%3B?451:7ff;"


def test_the_document_spells_a_device_as_we_do() -> None:
    (spelled,) = re.findall(r"with capital digits: `(.*?)`", DOCUMENT)
    assert topics.encode_channel("slcan./dev/ttyACM0") == spelled


def test_every_topic_in_the_document_parses() -> None:
    examples = re.findall(r"`(rx\?[^`<]*;)`", DOCUMENT)
    assert len(examples) >= 4
    for example in examples:
        topic = f"can0/{example}".encode()
        parsed = topics.parse(topic, "can0")
        assert isinstance(parsed, topics.RouteTopic)
        assert topics.route_topic("can0", parsed.filters) == topic  # and is canonical


@given(name=names)
def test_a_channel_name_comes_back(name: str) -> None:
    encoded = topics.encode_channel(name)
    assert re.fullmatch(r"([A-Za-z0-9_.-]|%[0-9A-F]{2})*", encoded)
    assert unquote(encoded, errors="strict") == name


@given(one=names, other=names)
def test_different_channels_have_different_topics(one: str, other: str) -> None:
    a, b = topics.route_topic(one, EVERYTHING), topics.route_topic(other, EVERYTHING)
    assert (a == b) == (one == other)
    assert one == other or not a.startswith(b)


@given(name=names, wanted=filter_sets, client_id=client_ids, who=names)
def test_every_topic_comes_back(name: str, wanted: FilterSet, client_id: str, who: str) -> None:
    route = topics.route_topic(name, wanted)
    private = topics.private_topic(name, client_id, wanted)
    claimed = topics.private_topic(name, client_id, wanted, who)
    assert topics.parse(route, name) == topics.RouteTopic(wanted)
    assert topics.parse(private, name) == topics.PrivateTopic(client_id, wanted)
    assert topics.parse(claimed, name) == topics.PrivateTopic(client_id, wanted, who)
    assert topics.parse(topics.state_topic(name), name) == topics.StateTopic()
    left = topics.left_topic(name, client_id)
    assert topics.parse(left, name) == topics.LeftTopic(client_id)


@pytest.mark.parametrize(
    ("topic", "match"),
    [
        (b"", "does not start with 'can0/'"),
        (b"can0", "does not start with"),
        (b"can1/rx;", "does not start with"),
        (b"can0/", "does not end in ';'"),
        (b"can0/rx", "does not end in ';'"),
        (b"can0/rx?451:7ff", "does not end in ';'"),
        (b"can0/;", "neither rx, state, @"),
        (b"can0/tx;", "neither rx, state, @"),
        (b"can0/rx/;", "neither rx, state, @"),
        (b"can0/RX;", "neither rx, state, @"),
        (b"can0/state?;", "neither rx, state, @"),
        (b"can0/state?451:7ff;", "neither rx, state, @"),
        (b"can0/@;", "neither rx, state, @"),
        (b"can0/@a b;", "neither rx, state, @"),
        (b"can0/@" + b"x" * 33 + b";", "neither rx, state, @"),
        (b"can0/@me\n;", "neither rx, state, @"),
        (b"can0/left;", "neither rx, state, @"),
        (b"can0/left/;", "neither rx, state, @"),
        (b"can0/left/a/b;", "neither rx, state, @"),
        (b"can0/left/me?-;", "neither rx, state, @"),
        (b"can0/rx?451;", "filter '451' is not"),
        (b"can0/rx?451:7FF;", "filter '451:7FF' is not"),
        (b"can0/rx?451:7ff,;", "filter '' is not"),
        (b"can0/rx?451:7ff, 452:7ff;", "filter ' 452:7ff' is not"),
        (b"can0/rx?-,451:7ff;", "filter '-' is not"),
        (b"can0/rx?y451:7ff;", "filter 'y451:7ff' is not"),
        (b"can0/rx?123456789:7ff;", "is not"),
        (b"can0/rx?451:7ff;can0/rx;", "is not"),
        (b"can0/rx?\xff;", "not ASCII"),
        ("can0/rx?٣:7ff;".encode(), "not ASCII"),
        (b"can0/rx?" + b"," * 40000 + b";", "may have 32768 bytes, this one has 40009"),
    ],
)
def test_a_topic_that_is_wrong(topic: bytes, match: str) -> None:
    with pytest.raises(WireError, match=match):
        topics.parse(topic, "can0")
