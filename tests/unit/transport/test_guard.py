"""What a message says of the connection that it came by."""

from __future__ import annotations

import pytest

from canbroker.transport.guard import PeerConnection


def test_a_peer_on_this_host_is_a_process() -> None:
    assert PeerConnection(7, "localhost:1000:100:4711").process == 4711


@pytest.mark.parametrize("peer", ["10.0.0.7", "::1", "::ffff:10.0.0.7", "fe80::1:2"])
def test_a_peer_on_another_host_has_no_process(peer: str) -> None:
    assert PeerConnection(7, peer).process == 0
