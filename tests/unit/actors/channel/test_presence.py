"""Which clients are present, and which of them alone may transmit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from canbroker.actors.channel.presence import Clients
from canbroker.delivery.publisher import Leaving, Presence
from canbroker.delivery.replayer import Served
from canbroker.model import filters
from canbroker.wire.stream import ClientInfo, Holder


def joins(client_id: str, text: str = "", claim: str | None = None) -> Presence:
    return Presence(client_id, filters.parse(text), True, b"topic", claim)


def leaves(client_id: str, text: str = "") -> Presence:
    return Presence(client_id, filters.parse(text), False, b"topic")


def test_a_client_comes_and_goes() -> None:
    clients = Clients({})
    change = joins("a")
    assert clients.note([change]) == ([change], [])
    assert "a" in clients
    assert len(clients) == 1
    assert clients.note([leaves("a")]) == ([], ["a"])
    assert "a" not in clients
    assert clients.infos() == []


def test_a_client_that_changes_its_filters_stays() -> None:
    """It joins with the new ones before it leaves with the old ones."""
    clients = Clients({})
    clients.note([joins("a", "100:7ff")])
    _, gone = clients.note([joins("a", "200:7ff"), leaves("a", "100:7ff")])
    assert gone == []
    assert clients.infos() == [ClientInfo("a", "200:7ff")]
    assert clients.note([leaves("a", "200:7ff")]) == ([], ["a"])


def test_the_same_topic_twice_is_one_presence() -> None:
    """XPUB reports each subscription to it, but only the end of the last one."""
    clients = Clients({})
    come, _ = clients.note([joins("a"), joins("a")])
    assert len(come) == 2, "both are told where the route stands"
    assert clients.note([leaves("a")]) == ([], ["a"])


def test_a_client_may_leave_and_come_back_at_once() -> None:
    clients = Clients({})
    clients.note([joins("a")])
    come, gone = clients.note([leaves("a"), joins("a")])
    assert (len(come), gone) == (1, ["a"])
    assert "a" in clients


def test_the_first_claim_holds_until_its_client_leaves() -> None:
    clients = Clients({})
    assert clients.holder is None
    clients.note([joins("a"), joins("b", claim="bench"), joins("c", claim="rig")])
    assert clients.holder == Holder("b", "bench")
    clients.note([leaves("a")])
    assert clients.holder == Holder("b", "bench")
    clients.note([leaves("b")])
    assert clients.holder == Holder("c", "rig")
    clients.note([leaves("c")])
    assert clients.holder is None


def test_a_claim_survives_a_change_of_filters() -> None:
    clients = Clients({})
    clients.note([joins("a", "1:7ff", "first"), joins("b", "1:7ff", "second")])
    clients.note([joins("a", "2:7ff", "first"), leaves("a", "1:7ff")])
    assert clients.holder == Holder("a", "first")


def test_whoever_asks_is_told_once_that_a_client_has_left() -> None:
    clients = Clients({})
    clients.note([joins("a"), Leaving("a"), Leaving("b")])
    assert clients.left() == ["b"], "it was never there"
    assert clients.left() == []
    clients.note([leaves("a")])
    assert clients.left() == ["a"]
    assert clients.left() == []


def test_the_state_shows_what_a_client_was_given_once_more() -> None:
    served: dict[str, Served] = {}
    clients = Clients(served)
    clients.note([joins("a")])
    served["a"] = Served(replayed=3, gone=1)
    clients.describe("a")
    assert clients.infos() == [ClientInfo("a", "", 3, 1)]
    clients.note([leaves("a")])
    assert served == {}, "a client that comes back begins anew"


def test_long_filters_are_shown_in_part() -> None:
    clients = Clients({})
    clients.note([joins("a", ",".join(f"{number:x}:7ff" for number in range(0, 800, 3)))])
    [info] = clients.infos()
    assert len(info.filters) == 512


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["", "1:7ff", "2:7ff"]), st.booleans()),
        max_size=40,
    )
)
def test_a_client_is_present_while_it_has_a_topic(steps: list[tuple[str, str, bool]]) -> None:
    clients = Clients({})
    topics: set[tuple[str, str]] = set()
    for client_id, text, comes in steps:
        topic = client_id, text
        if not comes and topic not in topics:
            continue  # nobody can leave a topic that it has not joined
        was_there = any(name == client_id for name, _ in topics)
        (topics.add if comes else topics.remove)(topic)
        is_there = any(name == client_id for name, _ in topics)
        _, gone = clients.note([(joins if comes else leaves)(client_id, text)])
        assert gone == ([client_id] if was_there and not is_there else [])
        assert (client_id in clients) == is_there
        assert len(clients) == len({name for name, _ in topics}) == len(clients.infos())
