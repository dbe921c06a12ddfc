"""A user's share of a channel's room: limited, and given back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from canbroker.actors.gateway import shares as module
from canbroker.actors.gateway.shares import NoRoomError, Shares


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)


def route(number: int) -> bytes:
    return b"can0/rx?%x;" % number


def client(number: int) -> bytes:
    return b"can0/@c%d;" % number


@pytest.mark.parametrize(("topic", "what"), [(route, "routes"), (client, "clients")])
def test_all_sockets_of_a_user_have_one_share(topic: Callable[[int], bytes], what: str) -> None:
    shares = Shares()
    first, second = shares.of("bob", "can0"), shares.of("bob", "can0")
    first.take(topic(1))
    second.take(topic(2))
    with pytest.raises(NoRoomError, match=f"'bob' has 2 {what} of the channel at 'can0'"):
        second.take(topic(3))
    assert topic(3) not in second
    first.give_back(topic(1))
    second.take(topic(3))


def test_kinds_users_and_channels_are_counted_apart() -> None:
    shares = Shares()
    for share in (shares.of("bob", "can0"), shares.of("bob", "can1"), shares.of("eve", "can0")):
        for number in range(2):
            share.take(route(number))
            share.take(client(number))


def test_the_state_and_departures_are_not_limited_here() -> None:
    share = Shares().of("bob", "can0")
    for number in range(9):
        share.take(b"can0/left/c%d;" % number)
    share.take(b"can0/state;")
    assert len(share) == 10


def test_a_socket_that_closes_gives_everything_back() -> None:
    shares = Shares()
    share = shares.of("bob", "can0")
    share.take(route(1))
    share.take(route(2))
    share.close()
    share.close()
    other = shares.of("bob", "can0")
    other.take(route(3))
    other.take(route(4))
