"""What a client knows of its channel, when it has not looked for long."""

from __future__ import annotations

import threading
from pathlib import Path

from canbroker.bus.channel_clock import ChannelClock
from canbroker.bus.channel_watch import ChannelWatch
from canbroker.system import clock
from canbroker.transport.address import parse_ipc
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import Waiter
from canbroker.wire import topics
from canbroker.wire.stream import StateEvent, encode_event


def test_a_state_of_long_ago_is_not_taken_for_that_of_now(tmp_path: Path) -> None:
    """The channel tells it anew, as it tells whoever subscribes."""
    context = Context()
    endpoint = f"ipc://{tmp_path}/rx"
    channel = context.publisher(parse_ipc(endpoint))
    waiter = Waiter()
    waiter.add(channel)
    topic = topics.state_topic("can0")

    def say(state: str, age_ns: int) -> None:
        event = StateEvent(state=state, monotonic_ns=clock.monotonic_ns() - age_ns)
        channel.send_multipart([topic, encode_event(1, event)])

    def asked() -> bytes:
        assert waiter.wait(20 * clock.SECOND)
        return channel.recv()

    def answer() -> None:
        while asked() != b"\1" + topic:
            pass
        say("error", 0)

    watch = ChannelWatch(context, parse_ipc(endpoint), "can0", ChannelClock(is_ours=True))
    try:
        assert asked() == b"\1" + topic
        for _ in range(500):  # more than wait for a client, and more than a connection holds
            say("active", 10 * clock.SECOND)
        answering = threading.Thread(target=answer)
        answering.start()
        deadline = clock.deadline_after(20)
        while watch.state.state == "active":
            assert clock.remaining_ns(deadline)
            watch.holder()
        answering.join()
        assert watch.state.state == "error"
        assert watch.problem() == "down"
    finally:
        watch.close()
        channel.close()
        context.close()
