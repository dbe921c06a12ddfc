"""What a bus tells of its channel: the load."""

from __future__ import annotations

from typing import Final

from canbroker import Bus, Message
from canbroker.transport.runtime import Runtime
from tests.support.brokers import wait_until

BITRATE: Final = 500_000


def test_the_load_is_the_share_of_the_time_that_frames_take(runtime: Runtime) -> None:
    full = Message(arbitration_id=0x123, data=bytes(8), is_extended_id=False)
    with Bus("load", "virtual", bitrate=BITRATE) as bus, Bus("load", "virtual") as other:
        assert bus.load is not None
        # 111 bits without stuff bits take 222 µs: a fifth of a period of 1.11 ms.
        task = bus.send_periodic(full, 0.00111)
        wait_until(lambda: 0.1 < (other.load or 0) < 0.3, "a fifth of the time is in use")
        task.stop()
        wait_until(lambda: other.load == 0, "the bus is idle again")
        assert bus.error_counters is None, "a virtual bus has no controller"
    assert bus.load is None, "it is closed"


def test_the_load_of_a_channel_without_a_bit_rate_is_not_known(runtime: Runtime) -> None:
    with Bus("other", "virtual") as bus:
        assert bus.load is None
