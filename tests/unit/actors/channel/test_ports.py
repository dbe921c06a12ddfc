"""Requests that arrive at a channel's sockets."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

from canbroker.actors.channel.ports import Ports
from canbroker.model.frame import Frame
from canbroker.system import clock
from canbroker.system.portable import PORTABLE
from canbroker.transport.address import IpcAddress
from canbroker.transport.sockets import Context
from canbroker.wire.transmit import Request, Status, decode_reply, encode_request

pytestmark = pytest.mark.skipif(PORTABLE, reason="sockets are not Unix sockets")

DIAGNOSTIC = Frame(0, 0x7DF, 0, b"\x02\x01\x0c")


def test_a_transmit_request_has_one_part(tmp_path: Path) -> None:
    """Each part alone may be a request; which one the sender meant is not known."""
    path = tmp_path / "transmit"
    request = encode_request("a", 1, 0, [DIAGNOSTIC], 0)
    accepted: list[Request] = []
    context = Context()
    ports = Ports(context, IpcAddress(path), IpcAddress(tmp_path / "control"), {})
    with zmq.Context() as peers, peers.socket(zmq.DEALER) as peer:
        peer.connect(f"ipc://{path}")
        for parts in ([request, request], [b"", request], [request]):
            peer.send_multipart(parts)
        end = clock.monotonic_ns() + 20 * clock.SECOND
        while not accepted:
            assert clock.monotonic_ns() < end
            ports.waiter.wait(clock.SECOND // 100)
            ports.receive_all(lambda _, request, __: accepted.append(request))
        assert ports.refused.counts.total() == 2
        for _ in range(2):
            assert peer.poll(20_000)
            assert decode_reply(peer.recv()).status == Status.MALFORMED
    assert len(accepted) == 1
    ports.close()
    context.close()
