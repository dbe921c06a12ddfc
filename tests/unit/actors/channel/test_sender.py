"""The send thread's work, step by step: no sockets, no waiting, and the time is passed in."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.actors.channel.messages import (
    Answer,
    Ask,
    CatchUp,
    ChangeState,
    Down,
    Expect,
    Finished,
    Gone,
    LetGo,
    Lost,
    SenderMessage,
    Stop,
    Up,
)
from canbroker.actors.channel.repeats import LEASE_NS
from canbroker.actors.channel.sender import Sender
from canbroker.actors.channel.wiring import Wiring
from canbroker.backends import BusCondition, Transmit
from canbroker.backends.coalescing import Coalescing
from canbroker.model.frame import Frame
from canbroker.system.clock import MILLISECOND, SECOND
from canbroker.transport.replier import Caller
from canbroker.wire import control
from canbroker.wire.forbidden import Forbidden
from canbroker.wire.replay import History
from canbroker.wire.stream import Holder
from canbroker.wire.tasks import Repeat, TaskKey
from canbroker.wire.transmit import CREDIT, UNHURRIED, Refusal, Reply, Request, Status
from tests.support.channel_edges import RecordingRealTime, ScriptedPorts
from tests.support.scripted_backend import ScriptedBackend

EPOCH = 77
CALLER = Caller(b"controller", 5)


class Bench:
    """A sender, its edges, and a time that only the test moves."""

    def __init__(self, capacity: int = 1 << 16, *, up: bool = True) -> None:
        self.now = 1_000 * SECOND
        self.wiring = Wiring("can0", EPOCH)
        self.ports = ScriptedPorts()
        self.real_time = RecordingRealTime()
        self.backend = ScriptedBackend(capacity)
        self.sender = Sender(self.wiring, self.ports.open, self.real_time)
        if up:
            self.step(Up(self.backend))

    def close(self) -> None:
        self.wiring.close()
        self.backend.close()

    def step(self, *messages: SenderMessage, after_ns: int = 0) -> bool:
        self.now += after_ns
        return self.sender.step(self.now, messages, self.ports.ready)

    def request(  # each is a field of a request
        self,
        client: str,
        token: int,
        ids: Sequence[int],
        *,
        identity: bytes = b"",
        expires_ns: int = 0,
        due_ns: int = 0,
        epoch: int = EPOCH,
        origins: Sequence[str] = (),
        refusal: Refusal | None = None,
        flags: int = 0,
    ) -> None:
        """A request arrives, one frame for each of the identifiers."""
        frames = [Frame(0, number, 0, b"") for number in ids]
        request = Request(
            *(1, client, token, flags, expires_ns, frames, epoch, list(origins), due_ns, refusal)
        )
        self.ports.requests.append((identity or client.encode(), request, self.now))

    def wakes(self) -> bool:
        """Whether the send thread was woken since the last call."""
        inbox = self.wiring.sender
        is_awake = bool(select.select([inbox], [], [], 0)[0])
        inbox.take()
        return is_awake

    def call(self, method: str, params: control.Params) -> None:
        self.ports.controls.append((CALLER, method, params))
        self.step()

    def finish(self, count: int | None = None, failure: str | None = None) -> list[Transmit]:
        """The first transmits in flight end, and the recv thread tells of them."""
        ended = self.backend.end(count, failure)
        self.step(Finished(ended))
        return ended

    @property
    def replies(self) -> list[tuple[str, int, Status]]:
        """(connection, token, status) of every reply so far."""
        return [
            (identity.decode(), reply.token, Status(reply.status))
            for identity, reply in self.ports.replies
        ]

    @property
    def last(self) -> Reply:
        return self.ports.replies[-1][1]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture
def small() -> Iterator[Bench]:
    """Its adapter takes eight frames."""
    bench = Bench(8)
    yield bench
    bench.close()


# ----------------------------------------------------------------------------------------- turns


def test_clients_take_turns_of_eight_frames(bench: Bench) -> None:
    bench.request("a", 1, range(20))
    bench.request("b", 1, range(100, 120))
    bench.step()
    first, second, third = slice(0, 8), slice(8, 16), slice(16, 20)
    a, b = list(range(20)), list(range(100, 120))
    assert bench.backend.sent_ids == [
        *a[first],
        *b[first],
        *a[second],
        *b[second],
        *a[third],
        *b[third],
    ]


def test_a_client_alone_is_not_held_up(bench: Bench) -> None:
    bench.request("a", 1, range(1000))
    bench.step()
    assert bench.backend.sent_ids == list(range(1000))


def test_whoever_had_room_goes_to_the_end_of_the_line(small: Bench) -> None:
    small.request("a", 1, range(16))
    small.request("b", 1, range(100, 116))
    small.step()
    small.finish()
    small.finish()
    small.finish()
    assert small.backend.sent_ids == [
        *range(8),
        *range(100, 108),
        *range(8, 16),
        *range(108, 116),
    ]


def test_frames_that_wait_are_counted(small: Bench) -> None:
    small.request("a", 1, range(20))
    small.step()
    assert (small.sender.queued, small.sender.refused) == (12, 0)
    small.finish()
    assert (small.sender.queued, small.sender.refused) == (4, 0)


@given(
    requests=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 30)), min_size=1, max_size=20
    ),
    ends=st.lists(st.integers(1, 16), max_size=40),
)
def test_each_clients_frames_keep_their_order_and_all_are_answered(
    requests: list[tuple[str, int]], ends: list[int]
) -> None:
    bench = Bench(16)
    try:
        wanted: dict[str, list[int]] = {}
        tokens: dict[str, int] = {}
        number = 0
        for (client, count), end in zip(requests, [*ends, *[0] * len(requests)], strict=False):
            tokens[client] = tokens.get(client, 0) + 1
            ids = range(number, number + count)
            number += count
            wanted.setdefault(client, []).extend(ids)
            bench.request(client, tokens[client], ids)
            bench.step()
            bench.finish(end)
        while bench.finish():
            pass
        for client, expected in wanted.items():
            sent = [t.frame.arbitration_id for t in bench.backend.sent if t.sender == client]
            assert sent == expected
            replied = [reply for reply in bench.replies if reply[0] == client]
            assert replied[-1] == (client, tokens[client], Status.OK)
        assert (bench.sender.queued, bench.sender.refused) == (0, 0)
    finally:
        bench.close()


# --------------------------------------------------------------------------------------- answers


def test_a_request_is_answered_when_all_its_frames_have_ended(bench: Bench) -> None:
    bench.request("a", 1, range(3))
    bench.step()
    bench.finish(2)
    assert bench.replies == []
    bench.finish()
    assert bench.replies == [("a", 1, Status.OK)]
    assert bench.last.accepted == 3


def test_one_reply_answers_a_run_of_good_requests(bench: Bench) -> None:
    for token in (1, 2, 3):
        bench.request("a", token, [token])
    bench.step()
    bench.finish()
    assert bench.replies == [("a", 3, Status.OK)]


def test_a_request_that_failed_is_answered_between_the_others(bench: Bench) -> None:
    for token in (1, 2, 3):
        bench.request("a", token, [token])
    bench.step()
    good, bad, later = bench.backend.end()
    bad.failure = "no acknowledgement"
    bench.step(Finished([good, bad, later]))
    assert bench.replies == [("a", 1, Status.OK), ("a", 2, Status.REFUSED), ("a", 3, Status.OK)]
    assert bench.ports.replies[1][1].reason == "no acknowledgement"


def test_an_answer_waits_for_those_before_it(bench: Bench) -> None:
    bench.request("a", 1, [1])
    bench.step()
    bench.request("a", 2, [2], epoch=EPOCH - 1)  # is refused at once
    bench.step()
    assert bench.replies == []
    bench.finish()
    assert bench.replies == [("a", 1, Status.OK), ("a", 2, Status.STALE)]


def test_what_nobody_knows_is_answered_so(bench: Bench) -> None:
    bench.request("a", 1, [1])
    bench.step()
    [transmit] = bench.backend.end(failure="the driver does not say")
    transmit.unknown = True
    bench.step(Finished([transmit]))
    assert bench.replies == [("a", 1, Status.UNKNOWN)]


def test_more_than_the_credit_is_refused_at_once(bench: Bench) -> None:
    bench.request("a", 1, range(CREDIT // 2))
    bench.request("a", 2, range(CREDIT // 2))
    bench.request("a", 3, [1, 2])
    bench.step()
    assert bench.replies == [("a", 3, Status.QUEUE_FULL)]
    assert bench.last.failed == [0, 1]
    bench.finish(CREDIT // 2)
    bench.request("a", 4, [1, 2])
    bench.step()
    bench.finish()
    assert bench.replies[1:] == [("a", 1, Status.OK), ("a", 4, Status.OK)]


# ----------------------------------------------------------------------------- what is not sent


def test_a_frame_is_sent_until_it_expires(small: Bench) -> None:
    deadline = small.now + 10 * MILLISECOND
    small.request("a", 1, range(8))
    small.request("a", 2, [100], expires_ns=deadline)
    small.request("a", 3, [101], expires_ns=deadline + 1)
    small.step()
    small.step(Finished(small.backend.end()), after_ns=10 * MILLISECOND)
    assert small.backend.sent_ids == [*range(8), 101]
    assert small.replies == [("a", 1, Status.OK), ("a", 2, Status.EXPIRED)]
    assert "expired" in small.last.reason


def test_a_frame_that_expired_in_the_driver_has_that_status(bench: Bench) -> None:
    bench.request("a", 1, [1], expires_ns=bench.now + 5)
    bench.step()
    bench.step(Finished(bench.backend.end(failure="too late")), after_ns=5)
    assert bench.replies == [("a", 1, Status.EXPIRED)]


def test_a_frame_that_failed_before_it_expired_was_refused(bench: Bench) -> None:
    bench.request("a", 1, [1], expires_ns=bench.now + 5)
    bench.step()
    bench.step(Finished(bench.backend.end(failure="nobody acknowledges")), after_ns=4)
    assert bench.replies == [("a", 1, Status.REFUSED)]


def test_another_epochs_request_is_stale(bench: Bench) -> None:
    bench.request("a", 1, [1], epoch=EPOCH - 1)
    bench.request("b", 1, [2], epoch=0)  # any
    bench.step()
    assert bench.replies == [("a", 1, Status.STALE)]
    assert "'can0' was restarted" in bench.last.reason
    assert bench.backend.sent_ids == [2]


def test_only_the_exclusive_holder_may_transmit(small: Bench) -> None:
    small.request("b", 1, range(8))
    small.request("b", 2, [100])  # has to wait
    small.step()
    small.sender.lock(Holder("a", "bench"))
    small.step()
    small.request("a", 1, [200])
    small.finish()
    assert small.backend.sent_ids == [*range(8), 200], "what is in the driver's hands stays there"
    assert ("b", 2, Status.LOCKED) in small.replies
    assert "exclusive to client a (bench)" in small.last.reason
    small.sender.lock(None)
    small.step()
    small.request("b", 3, [101])
    small.step()
    assert small.backend.sent_ids[-1] == 101


def test_the_scheduler_sends_for_the_holder_alone(bench: Bench) -> None:
    bench.sender.lock(Holder("a", "bench"))
    bench.step()
    bench.request("scheduler", 1, [1, 2, 3], origins=["a", "b", "a"])
    bench.step()
    assert bench.backend.sent_ids == [1, 3]
    bench.finish()
    assert bench.replies == [("scheduler", 1, Status.LOCKED)]
    assert (bench.last.accepted, bench.last.failed) == (2, [1])


def test_a_listen_only_adapter_sends_nothing(bench: Bench) -> None:
    bench.backend.listen_only = True
    bench.request("a", 1, [1])
    bench.step()
    assert bench.replies == [("a", 1, Status.NOT_PERMITTED)]


def test_a_bus_that_is_off_has_its_reason(bench: Bench) -> None:
    bench.backend.condition = BusCondition(off=True, reason="bus off")
    bench.request("a", 1, [1])
    bench.step()
    assert bench.replies == [("a", 1, Status.BUS_OFF)]
    assert bench.last.reason == "bus off"


def test_one_frame_that_is_invalid_refuses_its_request(bench: Bench) -> None:
    bench.request("a", 1, [1, 0x800, 2])
    bench.step()
    assert bench.replies == [("a", 1, Status.INVALID_FRAME)]
    assert bench.last.failed == [0, 1, 2]
    assert bench.backend.sent == []


# ----------------------------------------------------------------------------------- scheduling


REFUSAL = Refusal(
    "'bob' may not transmit 001", Forbidden(name="bob", role="transmit", identifier=1)
)


def test_what_a_gateway_has_refused_is_answered_in_its_turn(bench: Bench) -> None:
    bench.request("a", 1, [5])
    bench.request("a", 2, [1, 2], refusal=REFUSAL)
    bench.request("a", 3, [6])
    bench.step()
    assert bench.replies == []
    bench.finish()
    assert bench.backend.sent_ids == [5, 6]
    assert bench.replies == [
        ("a", 1, Status.OK),
        ("a", 2, Status.NOT_PERMITTED),
        ("a", 3, Status.OK),
    ]
    refused = bench.ports.replies[1][1]
    assert (refused.reason, refused.failed) == (REFUSAL.reason, [0, 1])
    assert refused.forbidden == REFUSAL.forbidden
    assert bench.last.forbidden is None


def test_a_discard_finds_what_a_gateway_has_refused(small: Bench) -> None:
    small.request("a", 1, [1], refusal=REFUSAL)
    small.step()
    small.call("discard", control.Discard(client_id="a", token=1))
    assert small.ports.answers == [(CALLER, control.Discarded(0))]


def test_frames_are_kept_until_they_are_due(bench: Bench) -> None:
    due_ns = bench.now + 30 * MILLISECOND
    bench.request("a", 1, [1], due_ns=due_ns)
    bench.step()
    assert bench.sender.due_ns() == due_ns
    assert bench.real_time.is_wanted
    bench.step(after_ns=30 * MILLISECOND - 1)
    assert bench.backend.sent_ids == []
    bench.step(after_ns=1)
    assert bench.backend.sent_ids == [1]
    assert bench.sender.due_ns() is None
    assert not bench.real_time.is_wanted


def test_frames_are_sent_in_the_order_in_which_they_are_due(bench: Bench) -> None:
    for token, due_ns in ((1, 30), (2, 10), (3, 20), (4, 10)):
        bench.request("a", token, [token], due_ns=bench.now + due_ns)
    bench.step()
    assert bench.sender.due_ns() == bench.now + 10
    bench.step(after_ns=30)
    assert bench.backend.sent_ids == [2, 4, 3, 1]


def test_a_frame_that_was_due_goes_before_one_that_comes_later(bench: Bench) -> None:
    bench.request("a", 1, [1], due_ns=bench.now + 10)
    bench.step()
    bench.now += 10
    bench.request("a", 2, [2])
    bench.step()
    assert bench.backend.sent_ids == [1, 2]


def test_a_frame_that_becomes_due_does_not_wait_for_all_requests_that_arrive(bench: Bench) -> None:
    bench.request("a", 1, [1], due_ns=bench.now + 10)
    bench.step()
    begin_ns = bench.now
    for token in range(2, 6):
        bench.now += 5  # which each request takes
        bench.request("a", token, [token], due_ns=begin_ns + 1000)
    bench.now = begin_ns
    bench.step()
    assert bench.backend.sent_ids == [1]
    assert len(bench.ports.requests) == 2
    bench.step(after_ns=1000)
    assert bench.backend.sent_ids == [1, 2, 3, 4, 5]


# ------------------------------------------------------------------------------- loss of adapter


def test_there_is_no_adapter_at_first() -> None:
    bench = Bench(up=False)
    try:
        bench.request("a", 1, [1])
        bench.step()
        assert bench.replies == [("a", 1, Status.DEVICE_GONE)]
        assert bench.last.reason == "the adapter is not open"
    finally:
        bench.close()


def test_an_adapter_that_is_lost_while_sending(bench: Bench) -> None:
    bench.backend.lose("unplugged")
    bench.request("a", 1, [1, 2])
    bench.step()
    assert bench.wiring.keeper.take() == [Lost(bench.backend, "unplugged")]
    assert bench.replies == [], "the keeper asks the backend what became of them"
    bench.request("a", 2, [3])
    bench.step()
    bench.step(Down("unplugged"))
    assert bench.wiring.keeper.take() == [LetGo("send")]
    for transmit in (abandoned := bench.backend.abandon()):
        transmit.failure = "unplugged"
    bench.step(Finished(abandoned))
    assert bench.replies == [("a", 1, Status.DEVICE_GONE), ("a", 2, Status.DEVICE_GONE)]


def test_what_waits_fails_with_the_adapter(small: Bench) -> None:
    small.request("a", 1, range(8))
    small.request("a", 2, [100], due_ns=small.now + SECOND)
    small.request("b", 1, [101])
    small.step()
    small.step(Down("unplugged"))
    assert small.replies == [("b", 1, Status.DEVICE_GONE)]
    small.finish(failure="unplugged")
    assert small.replies[1:] == [("a", 1, Status.DEVICE_GONE), ("a", 2, Status.DEVICE_GONE)]
    assert (small.sender.queued, small.sender.refused) == (0, 0)
    assert small.sender.due_ns() is None


def test_the_next_adapter_is_used(bench: Bench) -> None:
    bench.step(Down("unplugged"))
    other = ScriptedBackend()
    bench.step(Up(other))
    bench.request("a", 1, [1])
    bench.step()
    assert other.sent_ids == [1]
    other.close()


def test_a_channel_that_ends_says_so(bench: Bench) -> None:
    bench.step(Down("the broker ends", Status.SHUTTING_DOWN))
    bench.request("a", 1, [1])
    bench.step()
    assert bench.replies == [("a", 1, Status.SHUTTING_DOWN)]
    assert bench.last.reason == "the broker ends"
    assert not bench.step(Stop("the broker ends"))
    bench.sender.close()
    assert bench.ports.is_closed


# ------------------------------------------------------------------------- clients that disappear


def test_what_a_client_had_queued_when_it_left_is_not_sent(small: Bench) -> None:
    small.request("a", 1, range(8))
    small.request("a", 2, [100])
    small.step()
    small.request("a", 3, [101])  # arrives together with the news
    small.step(Gone(["a"]))
    small.finish()
    assert small.backend.sent_ids == [*range(8)]
    assert (small.sender.queued, small.sender.refused) == (0, 0)


def test_a_client_on_a_new_connection_is_told_what_it_lost(small: Bench) -> None:
    small.request("a", 1, range(8), identity=b"old")
    small.request("a", 2, [100], identity=b"old")
    small.step()
    small.request("a", 3, [101], identity=b"new")
    small.step()
    assert small.replies == [("new", 2, Status.STALE)]
    small.finish()
    assert small.backend.sent_ids == [*range(8), 101]
    small.finish()
    assert small.replies[-1] == ("new", 3, Status.OK)


# -------------------------------------------------------------------------------------- discards


def test_discarding_drops_what_waits(small: Bench) -> None:
    small.request("a", 1, range(8))
    small.request("a", 2, [100, 101])
    small.request("b", 1, [200])
    small.step()
    small.call("discard", control.Discard(client_id="a", token=2))
    assert small.ports.answers == [(CALLER, control.Discarded(2))]
    small.finish()
    assert small.backend.sent_ids == [*range(8), 200]
    assert small.replies == [("a", 1, Status.OK), ("a", 2, Status.DISCARDED)]


def test_a_discard_waits_for_the_request_that_it_names(small: Bench) -> None:
    """Requests travel on another connection."""
    small.call("discard", control.Discard(client_id="a", token=1))
    assert small.ports.answers == []
    small.request("a", 1, [1])
    small.step()
    assert small.ports.answers == [(CALLER, control.Discarded(1))]
    assert small.backend.sent_ids == []


def test_a_discard_may_wait_for_what_the_driver_has(small: Bench) -> None:
    small.request("a", 1, range(10))
    small.step()
    small.call("discard", control.Discard(client_id="a", token=1, through=True))
    assert small.ports.answers == []
    small.finish(7)
    assert small.ports.answers == []
    small.finish()
    assert small.ports.answers == [(CALLER, control.Discarded(2))]


def test_a_discard_that_waits_at_the_end_is_answered(bench: Bench) -> None:
    bench.call("discard", control.Discard(client_id="a", token=1))
    assert not bench.step(Stop("the broker ends"))
    [(_, answer)] = bench.ports.answers
    assert answer == control.ErrorResult("shutting-down", "the broker ends")


# --------------------------------------------------------------------------------------- control


def test_others_do_what_is_not_the_senders_work(bench: Bench) -> None:
    bench.call("set_state", control.SetState(state="passive"))
    assert bench.wiring.keeper.take() == [ChangeState(CALLER, listen_only=True)]
    params = History(topic="can0/rx;", seconds=1.0)
    bench.call("history", params)
    assert bench.wiring.receiver.take() == [Ask(CALLER, params)]
    assert bench.ports.answers == []
    bench.step(Answer(CALLER, control.Nothing()))
    assert bench.ports.answers == [(CALLER, control.Nothing())]


def test_a_state_that_does_not_exist_is_refused(bench: Bench) -> None:
    bench.call("set_state", control.SetState(state="asleep"))
    [(_, answer)] = bench.ports.answers
    assert isinstance(answer, control.ErrorResult)
    assert "'asleep'" in answer.message


# --------------------------------------------------------------------------------------- answers


def pausing(bench: Bench) -> None:
    """The recv thread leaves the adapter unread for a while."""
    bench.backend.coalescing = Coalescing(MILLISECOND)
    pauses = [bench.backend.coalescing.pause_ns(8, bench.now, urgent=False) for _ in range(50)]
    assert pauses[-1]


def test_an_answer_to_a_clients_frame_is_not_held_up(bench: Bench) -> None:
    pausing(bench)
    bench.request("a", 1, [1])
    bench.step()
    assert bench.wiring.receiver.take() == [Expect()]


def test_nobody_is_woken_where_there_is_no_pause(bench: Bench) -> None:
    bench.request("a", 1, [1])
    bench.step()
    assert bench.wiring.receiver.take() == []


def test_nobody_waits_for_an_answer_to_a_task(bench: Bench) -> None:
    pausing(bench)
    bench.request("scheduler", 1, [1], origins=["a"])
    bench.step()
    assert bench.wiring.receiver.take() == []


def test_nobody_waits_for_an_answer_before_the_last_frame(small: Bench) -> None:
    pausing(small)
    small.request("a", 1, range(20))
    small.step()
    assert small.wiring.receiver.take() == []
    small.finish(8)
    assert small.wiring.receiver.take() == []
    small.finish(8)
    assert small.wiring.receiver.take() == [Expect()]


# ----------------------------------------------------------------------------------- repetitions


def repeat(client: str, task: int = 1) -> Repeat:
    return Repeat(
        client_id=client,
        task=task,
        messages=[Frame(0, 1, 0, b"")],
        period_ns=10 * MILLISECOND,
        due_ns=0,
    )


def test_repetitions_end_when_the_scheduler_is_silent(bench: Bench) -> None:
    bench.call("repeat", repeat("a"))
    assert bench.sender.due_ns() == bench.now + LEASE_NS
    bench.now += LEASE_NS // 2
    bench.call("repeat_counts", control.Params())  # the scheduler is there
    bench.step(after_ns=LEASE_NS - 1)
    assert list(bench.backend.repetitions) == [("a", 1)]
    bench.step(after_ns=1)
    assert bench.backend.repetitions == {}
    assert bench.sender.due_ns() is None


def test_repetitions_end_with_their_client(bench: Bench) -> None:
    bench.call("repeat", repeat("a"))
    bench.call("repeat", repeat("b"))
    bench.step(Gone(["a"]))
    assert list(bench.backend.repetitions) == [("b", 1)]


def test_repetitions_of_others_end_for_the_holder(bench: Bench) -> None:
    bench.call("repeat", repeat("a"))
    bench.call("repeat", repeat("b"))
    bench.sender.lock(Holder("b", "bench"))
    bench.step()
    assert list(bench.backend.repetitions) == [("b", 1)]


def test_whoever_ends_a_repetition_is_answered_by_the_recv_thread(bench: Bench) -> None:
    bench.call("repeat", repeat("a"))
    bench.call("repeat_stop", TaskKey(client_id="a", task=1))
    assert bench.backend.repetitions == {}
    assert bench.wiring.receiver.take() == [CatchUp(CALLER)]


# ------------------------------------------------------------------ for and by the recv thread


def test_the_recv_thread_answers_and_refills(small: Bench) -> None:
    small.request("a", 1, range(8))
    small.request("a", 2, [8])
    small.step()
    ended = small.backend.end()
    small.sender.finished(ended, small.now)
    assert small.replies == [("a", 1, Status.OK)]
    assert small.backend.sent_ids == [*range(8)]
    small.sender.refill(small.now)
    assert small.backend.sent_ids == [*range(9)]
    assert not small.wakes()


def test_requests_that_the_recv_thread_finds_are_left_to_the_send_thread(small: Bench) -> None:
    small.request("a", 1, [1])
    small.step()
    small.request("a", 2, [2])
    small.sender.finished(small.backend.end(), small.now)
    small.sender.refill(small.now)
    assert small.backend.sent_ids == [1]
    assert small.wakes()


def test_the_send_thread_waits_for_adapters_not_the_recv_thread(small: Bench) -> None:
    class Waits(ScriptedBackend):
        blocks = True

        def send(self, transmits: Sequence[Transmit]) -> None:
            with turn:  # the other thread gets it meanwhile
                super().send(transmits)

    turn, adapter = small.wiring.turn, Waits(1)
    small.step(Up(adapter))
    with turn:
        small.request("a", 1, [1, 2])
        small.step()
        small.sender.finished(adapter.end(), small.now)
        small.sender.refill(small.now)
        assert adapter.sent_ids == [1]
        assert small.wakes()
        small.step()
        assert adapter.sent_ids == [1, 2]
    adapter.close()


def test_requests_that_arrive_at_once_give_way_to_the_recv_thread(bench: Bench) -> None:
    turn, seen = bench.wiring.turn, list[int]()

    def receive() -> None:
        with turn:
            seen.append(bench.sender.queued)

    for number in range(1, 101):
        bench.request(f"c{number}", 1, [number])
    receiver = threading.Thread(target=receive)
    with turn:
        receiver.start()
        while not turn.is_wanted:
            time.sleep(0.001)
        bench.step()
    receiver.join(10)
    assert seen == [1], "after the first of a hundred"
    assert len(bench.backend.sent_ids) == 100


def test_an_immediate_adapter_is_read_until_nothing_waits(small: Bench) -> None:
    reads: list[int] = []

    def read(now_ns: int) -> None:
        ended = small.backend.end()
        reads.append(len(ended))
        small.sender.finished(ended, now_ns)

    small.backend.immediate, small.sender.read = True, read
    small.request("a", 1, range(20))
    small.step()
    assert reads == [8, 8, 4]
    assert small.replies == [("a", 1, Status.OK)]


def test_an_immediate_adapter_that_nobody_reads_is_left(small: Bench) -> None:
    """The recv thread has let go of it, and the send thread will be told."""
    small.backend.immediate = True
    small.request("a", 1, range(20))
    small.step()
    assert len(small.backend.sent) == 8
    small.step(Down("unplugged"))
    small.step(Finished(small.backend.end(failure="unplugged")))
    assert small.replies == [("a", 1, Status.DEVICE_GONE)]


def test_nothing_is_answered_by_closed_sockets(small: Bench) -> None:
    small.request("a", 1, [1])
    small.step()
    small.sender.close()
    small.sender.finished(small.backend.end(), small.now)
    small.sender.refill(small.now)
    assert small.replies == []


# ------------------------------------------------------------------- answers that nobody waits for


def test_an_answer_that_nobody_waits_for_comes_with_others(bench: Bench) -> None:
    bench.request("a", 1, [1], flags=UNHURRIED)
    bench.step()
    bench.finish()
    assert bench.replies == [("a", 1, Status.OK)], "the first one comes at once"
    for token in (2, 3):
        bench.request("a", token, [token], flags=UNHURRIED)
        bench.step(after_ns=MILLISECOND)
        bench.finish()
    assert len(bench.replies) == 1
    bench.request("a", 4, [4], flags=UNHURRIED)
    bench.step(after_ns=3 * MILLISECOND)
    bench.finish()
    assert bench.replies[1:] == [("a", 4, Status.OK)], "it is for all three"


def test_it_comes_by_itself_if_no_others_come(bench: Bench) -> None:
    for token in (1, 2):
        bench.request("a", token, [token], flags=UNHURRIED)
        bench.step(after_ns=MILLISECOND)
        bench.finish()
    assert bench.sender.answer_ns() == bench.now + 9 * MILLISECOND
    assert bench.sender.due_ns() is None, "the recv thread looks after that"
    bench.backend.immediate = True
    assert bench.sender.due_ns() == bench.sender.answer_ns()
    bench.step(after_ns=9 * MILLISECOND - 1)
    assert len(bench.replies) == 1
    bench.step(after_ns=1)
    assert bench.replies[1:] == [("a", 2, Status.OK)]
    assert bench.sender.due_ns() is None


def test_an_answer_waits_for_others_only_if_one_was_given(bench: Bench) -> None:
    """The end of a request's first frame alone is not an answer."""
    bench.request("a", 1, [1, 2], flags=UNHURRIED)
    bench.step()
    bench.finish(1)
    assert bench.replies == []
    bench.finish(1)
    assert bench.replies == [("a", 1, Status.OK)]


def test_a_client_whose_answer_is_to_come_is_not_forgotten(bench: Bench) -> None:
    """Peers that transmit without subscribing are, when there are too many."""
    for token in (1, 2):
        bench.request("a", token, [token], flags=UNHURRIED)
        bench.step()
        bench.finish()
    for number in range(1024):
        bench.request(f"c{number}", 1, [1])
        bench.step()
        bench.finish()
    bench.request("a", 3, [3])
    bench.step()
    bench.finish()
    assert [reply for reply in bench.replies if reply[0] == "a"] == [
        ("a", 1, Status.OK),
        ("a", 3, Status.OK),
    ]


def test_the_send_thread_times_an_answer_that_the_recv_thread_has_booked(bench: Bench) -> None:
    bench.backend.immediate = True
    for token in (1, 2):
        bench.request("a", token, [token], flags=UNHURRIED)
        bench.step()
        bench.sender.finished(bench.backend.end(), bench.now)
    bench.wakes()
    bench.sender.refill(bench.now)
    assert bench.wakes()


@pytest.mark.parametrize("failure", [None, "nobody acknowledges"])
def test_who_waits_is_answered_at_once_with_all_before(bench: Bench, failure: str | None) -> None:
    for token in (1, 2):
        bench.request("a", token, [token], flags=UNHURRIED)
        bench.step()
        bench.finish()
    bench.request("a", 3, [3], flags=UNHURRIED if failure else 0)
    bench.step()
    bench.finish(failure=failure)
    last = ("a", 3, Status.REFUSED) if failure else ("a", 3, Status.OK)
    assert bench.replies[1:] == ([("a", 2, Status.OK), last] if failure else [last])


def test_a_frame_that_has_expired_asks_for_answers(bench: Bench) -> None:
    for token in (1, 2):
        bench.request("a", token, [token], flags=UNHURRIED)
        bench.step()
        bench.finish()
    bench.request("a", 3, [2], expires_ns=1)
    bench.step()
    assert bench.backend.sent_ids == [1, 2]
    assert bench.replies[1:] == [("a", 2, Status.OK), ("a", 3, Status.EXPIRED)]


def test_many_frames_are_answered_at_once(bench: Bench) -> None:
    for token in range(1, 67):
        bench.request("a", token, [token], flags=UNHURRIED)
        bench.step()
        bench.finish()
    assert bench.replies == [("a", 1, Status.OK), ("a", 65, Status.OK)]


def test_clients_that_leave_and_adapters_that_are_lost_leave_no_late_answer(bench: Bench) -> None:
    for client in ("a", "b"):
        for token in (1, 2):
            bench.request(client, token, [token], flags=UNHURRIED)
            bench.step()
            bench.finish()
    bench.step(Gone(["a"]))
    bench.step(Down("unplugged"))
    assert bench.replies[2:] == [("a", 2, Status.OK), ("b", 2, Status.OK)]
    assert bench.sender.due_ns() is None
