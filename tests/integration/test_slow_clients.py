"""Clients that receive too slowly, or not at all, disturb nobody and lose nothing but frames."""

from __future__ import annotations

import time

import pytest

from canbroker import Bus, Message
from canbroker.runtime import Runtime
from tests.conftest import status_of, wait_until
from tests.processes import Program

OWNER = """
bus = Bus("x", "virtual")
task = bus.send_periodic(Message(arbitration_id=0x7, is_extended_id=False), 0.05)
say("ready")
hear()
bus.shutdown()
"""


@pytest.mark.timeout(90)
def test_who_never_receives_stays_and_keeps_its_tasks(runtime: Runtime) -> None:
    """Its queue fills, its connection stands still, and nothing may take that for its end."""
    with Bus("x", "virtual") as bus, Program(OWNER) as owner:
        assert owner.said() == "ready"
        batch = [Message(arbitration_id=0x100, data=bytes(64), is_fd=True)] * 64
        began = time.monotonic()
        # ZeroMQ's own heartbeats, which nobody answers on such a connection, would end it by then.
        while time.monotonic() - began < 21:
            bus.send_batch(batch, timeout=10)
            if time.monotonic() - began > 5:
                time.sleep(0.05)
        (channel,) = status_of(runtime).channels
        assert len(channel.clients) == 2
        bus.set_filters([{"can_id": 0x7, "can_mask": 0x7FF}])
        assert bus.recv(10) is not None
        wait_until(lambda: bus.recv(1) is not None, "the task goes on")
        owner.tell("end")
        assert owner.end() == 0
