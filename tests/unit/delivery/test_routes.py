"""The route table against asking every route's filters one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from canbroker.delivery import routes
from canbroker.delivery.routes import RouteTable
from canbroker.model import filters
from canbroker.model.filters import EVERYTHING, NOTHING, FilterSet
from canbroker.model.frame import ERROR, EXTENDED, FD, REMOTE, Frame
from canbroker.wire import topics

# Few enough values for filters and frames to meet.
IDENTIFIERS = (0, 1, 0x100, 0x101, 0x451, 0x7FF, 0x800, 0xA0000, 0x1FFFFFFF)
MASKS = (0, 1, 0x700, 0x7FF, 0x1FFFFFFF)

entries = st.builds(
    "{}{:x}:{:x}{}".format,
    st.sampled_from(["", "s", "x"]),
    st.sampled_from(IDENTIFIERS),
    st.sampled_from(MASKS),
    st.sampled_from(["", "!", "^"]),
)
filter_sets = st.lists(entries, max_size=4).map(lambda texts: filters.parse(",".join(texts)))
frames = st.builds(
    lambda identifier, flags: Frame(
        0, identifier if flags & EXTENDED else identifier & 0x7FF, flags, b""
    ),
    st.sampled_from(IDENTIFIERS),
    st.sampled_from([0, EXTENDED, ERROR, FD, REMOTE, EXTENDED | FD, EXTENDED | ERROR]),
)


def open_route(table: RouteTable, wanted: FilterSet) -> bytes:
    topic = topics.route_topic("can0", wanted)
    table.open(topic, wanted)
    return topic


class Tables(RuleBasedStateMachine):
    """Routes come and go between frames: what is remembered of identifiers must follow."""

    @initialize()
    def start(self) -> None:
        self.table = RouteTable()
        self.open: dict[bytes, FilterSet] = {}

    @rule(wanted=filter_sets)
    def subscribe(self, wanted: FilterSet) -> None:
        self.open[open_route(self.table, wanted)] = wanted

    @rule(data=st.data())
    def unsubscribe(self, data: st.DataObject) -> None:
        topic = data.draw(st.sampled_from([*self.open, b"can0/rx?7:7;"]))
        self.open.pop(topic, None)
        self.table.drop(topic)

    @rule(frame=frames)
    def frame(self, frame: Frame) -> None:
        expected = {
            topic
            for topic, wanted in self.open.items()
            if wanted.matches(frame.arbitration_id, frame.flags)
        }
        matching = [route.topic for route in self.table.matching(frame)]
        assert len(matching) == len(expected)
        assert set(matching) == expected
        assert self.table.wanted().matches(frame.arbitration_id, frame.flags) == bool(expected)

    @invariant()
    def has_the_open_routes(self) -> None:
        assert len(self.table) == len(self.open)
        assert {route.topic for route in self.table.routes()} == set(self.open)
        assert all(topic in self.table for topic in self.open)


TestTables = Tables.TestCase


@given(wanted=filter_sets)
def test_a_route_is_opened_once(wanted: FilterSet) -> None:
    table = RouteTable()
    topic = topics.route_topic("can0", wanted)
    first = table.open(topic, wanted)
    first.next_seq = 7
    assert table.open(topic, wanted) is first
    assert table.get(topic) is first
    table.drop(topic)
    assert table.get(topic) is None
    assert table.open(topic, wanted).next_seq == 0


def test_what_no_route_wants() -> None:
    table = RouteTable()
    assert table.wanted() == NOTHING
    open_route(table, filters.parse("451:7ff"))
    open_route(table, filters.parse("452:7ff!"))
    assert table.wanted() == filters.parse("451:7ff,452:7ff!")
    open_route(table, EVERYTHING)
    assert table.wanted() == EVERYTHING


def test_more_identifiers_than_are_remembered_still_match() -> None:
    table = RouteTable()
    open_route(table, filters.parse("x00000000:00000001"))
    for identifier in range(routes._CACHE_SIZE + 100):
        matched = bool(table.matching(Frame(0, identifier, EXTENDED, b"")))
        assert matched == (identifier % 2 == 0)
    assert len(table._cache) <= routes._CACHE_SIZE
    assert table.matching(Frame(0, 2, EXTENDED, b""))
    assert not table.matching(Frame(0, 1, EXTENDED, b""))
