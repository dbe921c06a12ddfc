"""Starts what the peers need."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import remote
from benchmarks.peers import Peer, await_port, bare, free_port, ours, rivals, theirs
from canbroker import Bus
from canbroker.demo.broker import BrokerView

CHANNEL: Final = "bench"
_HOST: Final = "127.0.0.1"


class Peers(NamedTuple):
    """All there are: canbroker and how else to use it, other ways to share a bus, ZeroMQ alone."""

    broker: BrokerView
    ours: Peer  # send_batch -> for message in bus
    single: Peer  # send -> for message in bus
    batch: Peer  # send_batch -> recv_batch
    remote: Peer  # as ours, both ends behind the broker's gateway
    theirs: list[Peer]
    bare: Peer
    bare_single: Peer


@contextmanager
def running(place: Path) -> Iterator[Peers]:
    """Everything, ready to be used; stops a broker, so there must be none of others."""
    with ExitStack() as stack:
        gateway = stack.enter_context(remote.serving(place))
        stack.enter_context(Bus(CHANNEL, "virtual"))
        iterating, single, batch = ours.peers(CHANNEL, gateway.broker.channel().pid)
        theirs_ = [
            Peer("python-can virtual", CHANNEL, theirs.virtual, theirs.virtual, alone=True),
            Peer("udp_multicast", str(free_port()), theirs.udp_multicast, theirs.udp_multicast),
        ]
        if has_remote():
            theirs_.append(stack.enter_context(_remote()))
        if rivals.has_sockcan():
            theirs_.append(stack.enter_context(rivals.sockcan()))
        streams, singly = (f"ipc://{place}/{name}" for name in ("stream", "single"))
        yield Peers(
            gateway.broker,
            ours=iterating,
            single=single,
            batch=batch,
            remote=remote.peer(gateway, CHANNEL),
            theirs=theirs_,
            bare=Peer("bare pyzmq, 128 a time", streams, bare.Publisher, bare.Subscriber),
            bare_single=Peer("bare pyzmq, singly", singly, bare.SinglePublisher, bare.Subscriber),
        )


def has_remote() -> bool:
    """Whether python-can-remote, of the extra ``bench``, is installed."""
    return importlib.util.find_spec("can_remote") is not None


@contextmanager
def _remote() -> Iterator[Peer]:
    """A server of python-can-remote, whose clients are on one virtual bus."""
    port = free_port()
    command = [sys.executable, "-m", "can_remote", "-i", "virtual", "-c", CHANNEL]
    command += ["-H", _HOST, "-p", str(port), "-v", "-v"]  # says errors and warnings
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        await_port(port)
        url = f"ws://{_HOST}:{port}/"
        yield Peer("python-can-remote", url, theirs.remote, theirs.remote, server.pid)
    finally:
        server.kill()
        server.wait()
