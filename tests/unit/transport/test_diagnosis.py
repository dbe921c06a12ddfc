"""Why there is no connection: what the events of a socket mean, in the order that libzmq has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest
import zmq

from canbroker.system.clock import SECOND
from canbroker.transport.diagnosis import Progress, Trouble

CONNECTED: Final = zmq.EVENT_CONNECTED
DISCONNECTED: Final = zmq.EVENT_DISCONNECTED
CLOSED: Final = zmq.EVENT_CLOSED
RETRIED: Final = zmq.EVENT_CONNECT_RETRIED
SUCCEEDED: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED
AUTH: Final = zmq.EVENT_HANDSHAKE_FAILED_AUTH
NO_DETAIL: Final = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
PROTOCOL: Final = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL

#: One attempt each, and what it means when it happens again and again.
ATTEMPTS: Final = {
    "another key": ([CONNECTED, NO_DETAIL, RETRIED], Trouble.OTHER_KEY),
    "hangs up": ([CONNECTED, DISCONNECTED, RETRIED], Trouble.NO_GATEWAY),
    "nobody listens": ([CLOSED, RETRIED], Trouble.NOBODY),
    "no such name": ([RETRIED], Trouble.UNKNOWN_NAME),
}


def after(seconds: float) -> int:
    return int(seconds * SECOND)


def attempted(progress: Progress, events: Sequence[int], seconds: Sequence[float]) -> None:
    """One attempt at each of these times."""
    for at in seconds:
        for event in events:
            progress.note(event, after(at))


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_what_happens_again_and_again_for_two_seconds_is_the_reason(attempt: str) -> None:
    events, trouble = ATTEMPTS[attempt]
    progress = Progress(0)
    attempted(progress, events, [0.1, 1.0])
    assert progress.trouble(after(1.9)) is None, "a gateway may be starting again"
    attempted(progress, events, [2.1])
    assert progress.trouble(after(2.1)) is trouble


@pytest.mark.parametrize(
    ("event", "trouble"), [(AUTH, Trouble.UNAUTHORIZED), (PROTOCOL, Trouble.UNENCRYPTED)]
)
def test_what_libzmq_does_not_try_again_is_told_at_once(event: int, trouble: Trouble) -> None:
    progress = Progress(0)
    attempted(progress, [CONNECTED, event, DISCONNECTED], [0.01])
    assert progress.trouble(after(0.01)) is trouble


def test_a_machine_that_does_not_answer() -> None:
    progress = Progress(0)
    assert progress.trouble(after(3.9)) is None
    assert progress.trouble(after(4.1)) is Trouble.SILENT


def test_something_that_accepts_and_never_says_a_word_is_no_gateway() -> None:
    progress = Progress(0)
    progress.note(CONNECTED, after(0.1))
    assert progress.trouble(after(3.9)) is None
    assert progress.trouble(after(4.1)) is Trouble.NO_GATEWAY


def test_there_is_no_trouble_with_what_is_connected() -> None:
    progress = Progress(0)
    attempted(progress, [CLOSED, RETRIED], [1.0, 2.0])
    attempted(progress, [CONNECTED, SUCCEEDED], [3.0])
    assert progress.connected
    assert progress.trouble(after(100)) is None


def test_the_patience_begins_anew_when_a_connection_is_lost() -> None:
    progress = Progress(0)
    attempted(progress, [CONNECTED, SUCCEEDED], [0.1])
    progress.note(DISCONNECTED, after(60))
    assert not progress.connected
    attempted(progress, [CLOSED, RETRIED], [60.1, 61.0])
    assert progress.trouble(after(61.5)) is None
    assert progress.trouble(after(62.5)) is Trouble.NOBODY
