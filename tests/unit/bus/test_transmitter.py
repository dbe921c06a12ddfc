"""Credit, deadlines and the account of what was sent, over a scripted link: no process, no wait."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from canbroker.bus.channel_clock import ChannelClock
from canbroker.bus.failure import Failure
from canbroker.bus.transmitter import Transmitter
from canbroker.bus.unanswered import Unanswered
from canbroker.errors import CanOperationError, CanPermissionError, CanTimeoutError
from canbroker.model.frame import Frame
from canbroker.system.clock import MILLISECOND, SECOND
from canbroker.system.wake import Wake
from canbroker.wire.forbidden import Forbidden
from canbroker.wire.stream import Holder, StateEvent
from canbroker.wire.transmit import (
    CREDIT,
    MAX_FRAMES,
    UNHURRIED,
    Request,
    Status,
    decode_request,
    encode_reply,
)
from tests.support.scripted_links import ScriptedTransmitLink

FRAME = Frame(0, 0x123, 0, b"data")


class Watched:
    """What is known of the channel, as each test has it."""

    def __init__(self) -> None:
        self.epoch = 7
        self.state = StateEvent(state="active")
        self.clock = ChannelClock(is_ours=True)
        self.trouble: str | None = None
        self.is_silent = False

    def problem(self) -> str | None:
        return self.trouble

    def silent(self) -> bool:
        return self.is_silent


class Side:
    """A transmitter with its link and channel."""

    def __init__(self) -> None:
        self.link = ScriptedTransmitLink()
        self.channel = Watched()
        self.transmitter = Transmitter(self.link, "c1", self.channel, no_wake, self.link.now)

    def requests(self) -> list[Request]:
        return [decode_request(body) for body in self.link.sent]

    def answer(
        self,
        token: int,
        status: Status = Status.OK,
        *,
        at_ns: int = 0,
        accepted: int = 0,
        reason: str = "",
        failed: Sequence[int] = (),
        forbidden: Forbidden | None = None,
    ) -> None:
        reply = encode_reply(token, status, accepted, 0, reason, failed, forbidden)
        self.link.at(at_ns, reply)


def no_wake() -> Wake | None:
    return None


@pytest.fixture
def side() -> Side:
    return Side()


def test_a_send_waits_for_nothing_while_there_is_credit(side: Side) -> None:
    for _ in range(CREDIT):
        side.transmitter.send([FRAME], None, taken=False)
    assert side.link.time_ns == 0
    assert side.transmitter.unanswered == CREDIT
    assert [request.token for request in side.requests()] == list(range(1, CREDIT + 1))
    assert {(request.client_id, request.epoch) for request in side.requests()} == {("c1", 7)}


def test_without_credit_it_waits_for_an_answer(side: Side) -> None:
    side.transmitter.send([FRAME] * MAX_FRAMES, None, taken=False)
    side.transmitter.send([FRAME] * MAX_FRAMES, None, taken=False)
    side.answer(1, at_ns=30 * MILLISECOND)
    side.transmitter.send([FRAME], None, taken=False)
    assert side.link.time_ns == 30 * MILLISECOND
    assert side.transmitter.unanswered == MAX_FRAMES + 1
    assert side.transmitter.sent == MAX_FRAMES


def test_without_credit_at_its_deadline_nothing_was_sent(side: Side) -> None:
    for _ in range(2):
        side.transmitter.send([FRAME] * MAX_FRAMES, None, taken=False)
    with pytest.raises(CanTimeoutError, match="the transmit queue is full"):
        side.transmitter.send([FRAME], SECOND, taken=False)
    assert side.link.time_ns == SECOND
    assert len(side.link.sent) == 2


def test_a_send_with_a_deadline_gives_it_to_the_actor_and_waits_for_the_answer(side: Side) -> None:
    side.answer(1, at_ns=20 * MILLISECOND)
    side.transmitter.send([FRAME], SECOND, taken=True)
    assert side.link.time_ns == 20 * MILLISECOND
    assert [request.expires_ns for request in side.requests()] == [SECOND]
    assert side.transmitter.unanswered == 0


def test_an_answer_just_after_the_deadline_is_waited_for(side: Side) -> None:
    """The driver may have taken the frame just before it expired."""
    side.answer(1, at_ns=SECOND + 40 * MILLISECOND)
    side.transmitter.send([FRAME], SECOND, taken=True)
    assert side.transmitter.sent == 1


def test_a_frame_that_expires_raises_in_its_own_send(side: Side) -> None:
    side.answer(1, Status.EXPIRED, at_ns=SECOND, reason="too late", failed=[0])
    with pytest.raises(CanTimeoutError, match="was not sent: too late"):
        side.transmitter.send([FRAME], SECOND, taken=True)
    assert (side.transmitter.sent, side.transmitter.failed) == (0, 1)
    side.transmitter.raise_failures()  # nothing is left to be told


def test_a_frame_that_our_key_may_not_send_raises_that(side: Side) -> None:
    forbidden = Forbidden(name="bob", role="transmit", identifier=0x123)
    reason = "'bob' may not transmit 123"
    for token, failed in ((1, [0, 1]), (2, [0])):
        at_ns = token * MILLISECOND
        side.answer(
            *(token, Status.NOT_PERMITTED),
            at_ns=at_ns,
            reason=reason,
            failed=failed,
            forbidden=forbidden,
        )
    with pytest.raises(CanPermissionError, match=f"123#64617461 was not sent: {reason}") as raised:
        side.transmitter.send([FRAME, FRAME], SECOND, taken=True)
    error = raised.value
    assert (error.name, error.role, error.identifier) == ("bob", "transmit", 0x123)
    assert str(error).endswith("(and 1 more)")
    side.transmitter.send([FRAME], None, taken=False)
    with pytest.raises(CanPermissionError, match=f"{reason}$"):
        side.transmitter.flush(SECOND)
    assert (side.transmitter.sent, side.transmitter.failed) == (0, 3)


def test_no_answer_at_all_raises(side: Side) -> None:
    with pytest.raises(CanTimeoutError, match="the driver did not take it in time"):
        side.transmitter.send([FRAME], SECOND, taken=True)
    assert side.link.time_ns == SECOND + 50 * MILLISECOND
    assert side.transmitter.unanswered == 1  # it may come yet


def test_what_fails_later_is_raised_once_by_the_next_send(side: Side) -> None:
    side.transmitter.send([FRAME] * 3, None, taken=False)
    side.answer(1, Status.REFUSED, accepted=1, reason="no room", failed=[1, 2])
    side.link.time_ns = SECOND  # else it would not look for answers yet
    with pytest.raises(CanOperationError, match=r"was not sent: no room \(and 1 more\)"):
        side.transmitter.send([FRAME], None, taken=False)
    side.transmitter.send([FRAME], None, taken=False)
    assert (side.transmitter.sent, side.transmitter.failed) == (1, 2)


def test_answers_are_not_looked_for_at_every_send(side: Side) -> None:
    side.transmitter.send([FRAME], None, taken=False)
    side.answer(1)
    side.transmitter.send([FRAME], None, taken=False)
    assert side.transmitter.sent == 0
    side.link.time_ns += MILLISECOND
    side.transmitter.send([FRAME], None, taken=False)
    assert side.transmitter.sent == 1


def test_one_answer_stands_for_all_requests_up_to_it(side: Side) -> None:
    for _ in range(3):
        side.transmitter.send([FRAME], None, taken=False)
    side.answer(2)
    side.transmitter.collect()
    assert (side.transmitter.sent, side.transmitter.unanswered) == (2, 1)


def test_a_channel_with_a_problem_refuses_at_once(side: Side) -> None:
    side.channel.trouble = "bus-off"
    with pytest.raises(CanOperationError, match=r"cannot send 123#64617461: bus-off"):
        side.transmitter.send([FRAME], None, taken=False)
    assert side.link.sent == []


def test_a_full_socket_raises_and_costs_no_credit(side: Side) -> None:
    side.link.room = False
    with pytest.raises(CanTimeoutError, match="the socket's queue is full"):
        side.transmitter.send([FRAME], None, taken=False)
    assert side.transmitter.unanswered == 0


def test_a_send_on_a_channel_that_somebody_else_holds_hears_of_it(side: Side) -> None:
    side.channel.state = StateEvent(state="active", exclusive=Holder("c2", "a test"))
    side.answer(1, Status.LOCKED, at_ns=MILLISECOND, reason="exclusive", failed=[0])
    with pytest.raises(CanOperationError, match="was not sent: exclusive"):
        side.transmitter.send([FRAME], None, taken=False)


def test_what_a_replaced_actor_had_is_not_known_to_be_sent(side: Side) -> None:
    side.transmitter.send([FRAME], None, taken=False)
    side.channel.epoch = 8
    assert side.transmitter.pending() == 0
    with pytest.raises(CanOperationError, match="is not known to be sent: the channel actor was"):
        side.transmitter.raise_failures()
    side.transmitter.send([FRAME], None, taken=False)
    assert side.requests()[-1].epoch == 8


def test_a_flush_gives_up_when_the_channel_is_silent(side: Side) -> None:
    side.transmitter.send([FRAME], None, taken=False)
    side.channel.is_silent = True
    with pytest.raises(CanOperationError, match="the broker or the channel actor is gone"):
        side.transmitter.flush(10 * SECOND)
    assert side.link.time_ns == SECOND // 4  # the first look


def test_a_flush_names_what_is_left_at_its_deadline(side: Side) -> None:
    side.transmitter.send([FRAME] * 5, None, taken=False)
    with pytest.raises(CanTimeoutError, match="5 frames are not acknowledged"):
        side.transmitter.flush(SECOND)
    assert side.link.time_ns == SECOND


def test_a_flush_ends_when_the_bus_is_closed_by_another_thread(side: Side) -> None:
    side.transmitter.send([FRAME], None, taken=False)
    side.transmitter.closing = True
    with pytest.raises(CanOperationError, match="the bus was shut down"):
        side.transmitter.flush(None)


def test_the_thread_that_closes_the_bus_flushes_all_the_same(side: Side) -> None:
    side.transmitter.send([FRAME], None, taken=False)
    side.transmitter.closing = True
    side.answer(1, at_ns=2 * SECOND)
    side.transmitter.flush(10 * SECOND, closing=True)
    assert side.transmitter.sent == 1


def test_an_offer_never_waits(side: Side) -> None:
    told: list[tuple[Failure, bool]] = []
    for _ in range(2):
        side.transmitter.send([FRAME] * MAX_FRAMES, None, taken=False)
    assert side.transmitter.offer([FRAME], SECOND, lambda *failed: told.append(failed)) is None
    side.answer(1)
    request = side.transmitter.offer([FRAME], SECOND, lambda *failed: told.append(failed))
    assert isinstance(request, Unanswered)
    side.answer(3, Status.EXPIRED, at_ns=SECOND, reason="too late", failed=[0])
    side.transmitter.wait_until_answered(request, 2 * SECOND)
    assert (side.link.time_ns, request.answered) == (SECOND, True)
    assert told == [(Failure("123#64617461 was not sent: too late"), True)]
    side.transmitter.raise_failures()  # others are not told


def test_a_wait_for_a_request_ends_at_its_deadline(side: Side) -> None:
    request = side.transmitter.offer([FRAME], SECOND, lambda *_: None)
    assert request is not None
    side.transmitter.wait_until_answered(request, SECOND)
    assert (side.link.time_ns, request.answered) == (SECOND, False)


def test_an_answer_that_is_not_of_the_protocol_is_passed_over(side: Side) -> None:
    side.transmitter.send([FRAME], None, taken=False)
    side.link.at(0, b"\xc0")
    side.answer(1)
    with pytest.raises(CanOperationError, match="transmit reply"):
        side.transmitter.collect()
    side.transmitter.collect()
    assert side.transmitter.sent == 1


def test_what_was_under_way_when_the_connection_was_cut_is_given_up(side: Side) -> None:
    side.transmitter.send([FRAME], None, taken=False)
    side.link.interruptions = 1
    with pytest.raises(CanOperationError, match="is not known to be sent: the connection was lost"):
        side.transmitter.flush(20 * SECOND)
    assert 2 * SECOND < side.link.time_ns < 3 * SECOND
    assert (side.transmitter.sent, side.transmitter.failed) == (0, 1)


def test_requests_that_arrived_before_a_cut_are_waited_for_while_answers_come(side: Side) -> None:
    for _ in range(3):
        side.transmitter.send([FRAME], None, taken=False)
    side.link.interruptions = 1
    for token in (1, 2, 3):
        side.answer(token, at_ns=token * (2 * SECOND - MILLISECOND))
    side.transmitter.flush(20 * SECOND)
    assert (side.transmitter.sent, side.transmitter.failed) == (3, 0)


def test_a_request_after_the_cut_is_not_in_doubt(side: Side) -> None:
    side.transmitter.send([FRAME], None, taken=False)
    side.link.interruptions = 1
    side.answer(1, at_ns=MILLISECOND)
    side.transmitter.flush(SECOND)
    side.transmitter.send([FRAME], None, taken=False)
    side.answer(side.transmitter.token, at_ns=9 * SECOND)
    side.transmitter.flush(20 * SECOND)
    assert side.transmitter.sent == 2


def test_requests_to_a_channel_that_fell_silent_are_not_sent_later(side: Side) -> None:
    side.transmitter.send([FRAME], None, taken=False)
    side.channel.is_silent = True
    with pytest.raises(CanOperationError, match="the broker or the channel actor is gone"):
        side.transmitter.flush(SECOND)
    assert side.link.renewed == 1


def test_the_channel_keeps_frames_until_they_are_due(side: Side) -> None:
    side.transmitter.send([FRAME], None, taken=False)
    side.transmitter.send([FRAME, FRAME], None, taken=False, due_ns=5 * SECOND)
    at_once, later = side.requests()
    assert (at_once.due_ns, later.due_ns) == (0, 5 * SECOND)
    assert (later.origins, later.expires_ns) == ([], 0)


def test_it_tells_up_to_which_request_the_driver_has_taken_frames(side: Side) -> None:
    told: list[tuple[int, int]] = []
    side.transmitter.on_taken = lambda token, wall_ns: told.append((token, wall_ns))
    for _ in range(3):
        side.transmitter.send([FRAME], None, taken=False, due_ns=SECOND)
    side.answer(2)
    side.answer(3, Status.REFUSED, failed=[0], reason="no")
    assert side.transmitter.pending() == 0
    assert told == [(2, 0)], "not of what was refused"


# ----------------------------------------------------------------------- answers that come later


def test_only_what_nobody_waits_for_may_be_answered_later(side: Side) -> None:
    side.transmitter.send([FRAME], None, taken=False)
    side.transmitter.send([FRAME], None, taken=False, due_ns=SECOND)
    side.answer(3)
    side.transmitter.send([FRAME], SECOND, taken=True)
    side.transmitter.offer([FRAME], SECOND, lambda *_: None)
    side.transmitter.on_taken = lambda *_: None
    side.transmitter.send([FRAME], None, taken=False)
    assert [request.flags for request in side.requests()] == [UNHURRIED, 0, 0, 0, 0]


def test_a_flush_asks_for_answers_with_a_frame_that_has_expired(side: Side) -> None:
    side.transmitter.send([FRAME], None, taken=False)
    side.answer(1, at_ns=MILLISECOND)
    side.answer(2, Status.EXPIRED, at_ns=MILLISECOND, failed=[0])
    side.transmitter.flush(SECOND)
    _, ask = side.requests()
    assert (ask.flags, ask.expires_ns) == (0, 1)
    assert side.transmitter.pending() == 0
    assert (side.transmitter.sent, side.transmitter.failed) == (1, 0)
    side.transmitter.raise_failures()


def test_a_flush_does_not_ask_twice_nor_without_reason(side: Side) -> None:
    side.transmitter.flush(SECOND)
    side.transmitter.send([FRAME], SECOND // 2, taken=False)
    for _ in range(2):
        with pytest.raises(CanTimeoutError):
            side.transmitter.flush(side.link.time_ns + MILLISECOND)
    assert len(side.link.sent) == 2


def test_who_asks_uses_credit_but_has_sent_nothing(side: Side) -> None:
    for _ in range(2):
        side.transmitter.send([FRAME] * (MAX_FRAMES // 2), None, taken=False)
    with pytest.raises(CanTimeoutError):
        side.transmitter.flush(MILLISECOND)
    assert side.transmitter.unanswered == MAX_FRAMES
    with pytest.raises(CanTimeoutError, match="the transmit queue is full"):
        side.transmitter.send([FRAME] * MAX_FRAMES, 2 * MILLISECOND, taken=False)
    side.transmitter.send([FRAME] * (MAX_FRAMES - 1), 2 * MILLISECOND, taken=False)


def test_what_was_asked_of_an_actor_that_is_gone_is_no_failure(side: Side) -> None:
    side.transmitter.send([FRAME], None, taken=False)
    with pytest.raises(CanTimeoutError):
        side.transmitter.flush(MILLISECOND)
    side.channel.epoch = 8
    assert side.transmitter.pending() == 0
    assert side.transmitter.failed == 1


@pytest.mark.parametrize("met_ns", [300 * MILLISECOND, 5 * SECOND])
def test_a_flush_that_a_new_actor_answers_waits_for_its_state(side: Side, met_ns: int) -> None:
    """Or else the frame that is sent next would be for the old one, and refused."""

    class Replaced(Watched):
        @property
        def epoch(self) -> int:
            return 8 if side.link.time_ns >= met_ns else 7

        @epoch.setter
        def epoch(self, _: int) -> None: ...

    transmitter = Transmitter(side.link, "c1", Replaced(), no_wake, side.link.now)
    transmitter.send([FRAME], None, taken=False)
    for token in (1, 2):  # the second one asked for answers
        side.answer(token, Status.STALE, at_ns=10 * MILLISECOND, reason="it was restarted")
    with pytest.raises(CanOperationError, match="not known to be sent: it was restarted"):
        transmitter.flush(None)
    assert transmitter.failed == 1
    if met_ns < 2 * SECOND:
        assert met_ns <= side.link.time_ns < SECOND
    else:
        assert side.link.time_ns == 2 * SECOND + 10 * MILLISECOND
    transmitter.send([FRAME], None, taken=False)
    assert side.requests()[-1].epoch == (8 if met_ns < 2 * SECOND else 7)


def test_a_flush_whose_connection_alone_was_lost_does_not_wait(side: Side) -> None:
    side.transmitter.send([FRAME], None, taken=False)
    side.answer(1, Status.STALE, at_ns=10 * MILLISECOND, reason="the connection was lost")
    side.answer(2, Status.EXPIRED, at_ns=10 * MILLISECOND, failed=[0])
    with pytest.raises(CanOperationError, match="the connection was lost"):
        side.transmitter.flush(None)
    assert side.link.time_ns == 10 * MILLISECOND
