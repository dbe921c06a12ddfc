"""Owners that name no process, as on another host: they are present while they are connected."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from canbroker import Bus
from canbroker.bus.lease import lease
from canbroker.system import clock
from canbroker.transport.ownership import RETURN_NS
from canbroker.transport.runtime import Runtime
from tests.integration.test_leases import leases_of, serving
from tests.integration.test_scheduler import hears, is_silent
from tests.support.brokers import status_of, tasks_of, wait_until

pytestmark = pytest.mark.long

RETURN_S = RETURN_NS / clock.SECOND

LEASE = {"lease_id": "r1", "program": "gateway", "pool": "spare"}

Ask = Callable[[str, dict[str, Any]], Any]


@contextmanager
def client(endpoint: object, identity: bytes = b"") -> Iterator[Ask]:
    """A client in another language, which names no process. Its connection has the ``identity``
    if it gives itself one."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, 20_000)
        if identity:
            socket.setsockopt(zmq.ROUTING_ID, identity)
        socket.connect(str(endpoint))

        def ask(method: str, params: dict[str, Any]) -> Any:
            socket.send(msgpack.packb([1, 7, method, params]))
            while True:
                _, number, ok, result = msgpack.unpackb(socket.recv())
                if number == 7:
                    assert ok, result
                    return result

        yield ask


@pytest.fixture
def listener(runtime: Runtime) -> Iterator[Bus]:
    with Bus("x", "virtual") as bus:
        yield bus


def test_a_lease_lasts_as_long_as_the_connection(runtime: Runtime, tmp_path: Path) -> None:
    with serving(tmp_path, runtime), client(runtime.address) as ask:
        with client(runtime.address) as other:
            assert other("lease", LEASE) == {"channel": "s1"}
            (held,) = leases_of(runtime)
            assert (held.lease_id, held.pid, held.program) == ("r1", None, "gateway")
            threading.Event().wait(RETURN_S + 3)
            assert leases_of(runtime), "it is connected"
        waiting = LEASE | {"lease_id": "r2", "timeout_ns": int((RETURN_S + 10) * clock.SECOND)}
        assert ask("lease", waiting) == {"channel": "s1"}, "the first one is gone"
        ask("release", {"lease_id": "r2"})
        with lease("spare", 0) as mine:
            assert mine.channel == "s1"


def test_a_lease_survives_a_broker_if_the_connection_returns(
    runtime: Runtime, tmp_path: Path
) -> None:
    with client(runtime.address, b"gateway-1") as ask:
        with serving(tmp_path, runtime) as server:
            assert ask("lease", LEASE) == {"channel": "s1"}
            server.send_signal(signal.SIGKILL)
            server.wait()
        with serving(tmp_path, runtime):
            threading.Event().wait(RETURN_S + 3)
            assert [one.lease_id for one in leases_of(runtime)] == ["r1"]
            ask("release", {"lease_id": "r1"})


def test_a_task_lasts_as_long_as_the_connection(runtime: Runtime, listener: Bus) -> None:
    with client(runtime.address) as broker:
        scheduler = broker("scheduler", {})["control"]
    task = {
        "client_id": "remote",
        "task": 1,
        "channel": status_of(runtime).channels[0].name,
        "messages": [[0, 0x123, 0, b"\1"]],
        "period_ns": 10 * clock.MILLISECOND,
    }
    with client(scheduler) as ask:
        ask("task_add", task)
        hears(listener, 0x123)
        threading.Event().wait(2 * RETURN_S + 3)
        hears(listener, 0x123)
    wait_until(lambda: not tasks_of(runtime), "it ends", 2 * RETURN_S)
    assert is_silent(listener)
