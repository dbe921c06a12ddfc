"""The recv thread's work, step by step: no sockets, no waiting, and the time is passed in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import pytest

from canbroker.actors.channel.error_storms import ErrorStorms
from canbroker.actors.channel.messages import (
    Answer,
    Ask,
    CatchUp,
    Down,
    Expect,
    Gone,
    LetGo,
    Lost,
    ReceiverMessage,
    Stop,
    Up,
)
from canbroker.actors.channel.receiver import STATE_INTERVAL_NS, Receiver
from canbroker.actors.channel.wiring import Wiring
from canbroker.backends import BusCondition, Transmit
from canbroker.backends.coalescing import Coalescing
from canbroker.delivery.publisher import HEARTBEAT_NS, Leaving, Presence
from canbroker.delivery.replayer import Served
from canbroker.model import filters
from canbroker.model.error_counters import ErrorCounters
from canbroker.model.frame import ERROR, EchoFrame, Frame
from canbroker.system.clock import MICROSECOND, MILLISECOND, SECOND
from canbroker.transport.replier import Caller
from canbroker.transport.waiter import SharedWaiter
from canbroker.wire import control
from canbroker.wire.replay import History, Past, Replay, Replayed
from canbroker.wire.stream import Holder, StateEvent
from canbroker.wire.transmit import Status
from tests.support.channel_edges import RecordingPublisher, ScriptedReplayer
from tests.support.scripted_backend import ScriptedBackend
from tests.support.systems import skip_on_windows

CALLER = Caller(b"controller", 5)
FRAME = Frame(10, 0x123, 0, b"\1")
REPLAY = Replay(topic="can0/rx;", epoch=1, first_seq=0, client_id="a")
HISTORY = History(topic="can0/rx;", seconds=1.0)
NO_FRAMES = msgspec.Raw(msgspec.msgpack.encode([]))
PAST = Past(epoch=1, next_seq=0, after=(0, 0), until=(0, 0), frames=NO_FRAMES)


class RecordingSender:
    """Notes what the receiver does there, in order."""

    def __init__(self) -> None:
        self.queued = 0
        self.refused = 4
        self.did: list[tuple[str, object]] = []
        self.answer_due_ns: int | None = None

    def finished(self, transmits: Sequence[Transmit], now_ns: int) -> None:  # noqa: ARG002
        self.did.append(("finished", list(transmits)))

    def lock(self, holder: Holder | None) -> None:
        self.did.append(("lock", holder))

    def answer_ns(self) -> int | None:
        return self.answer_due_ns

    def refill(self, now_ns: int) -> None:  # noqa: ARG002
        self.did.append(("refill", None))


class Bench:
    """A receiver, its edges, and a time that only the test moves."""

    def __init__(self) -> None:
        self.now = 1_000 * SECOND
        self.wiring = Wiring("can0", 1)
        self.publisher = RecordingPublisher()
        self.replayer = ScriptedReplayer()
        self.backend = ScriptedBackend()
        self.waiter = SharedWaiter()
        self.sender = RecordingSender()
        self.receiver = Receiver(
            self.wiring,
            self.waiter,
            self.publisher,
            self.replayer,
            ErrorStorms(2),
            self.sender,
        )

    def close(self) -> None:
        self.wiring.close()
        self.backend.close()

    def step(self, *messages: ReceiverMessage, after_ns: int = 0) -> bool:
        """One step; what the waiter would find readable is."""
        self.now += after_ns
        ready = self.waiter.wait(0)
        if self.publisher.changes:
            ready.add(self.publisher.socket)
        return self.receiver.step(self.now, messages, ready)

    def join(self, *client_ids: str, claim: str | None = None) -> None:
        self.publisher.changes += [
            Presence(client_id, filters.EVERYTHING, True, b"", claim) for client_id in client_ids
        ]
        self.step()

    def leave(self, *client_ids: str) -> None:
        self.publisher.changes += [
            Presence(client_id, filters.EVERYTHING, False, b"") for client_id in client_ids
        ]
        self.step()

    def kinds(self) -> list[str]:
        """What was published since the last call, by kind."""
        kinds = [kind for kind, _ in self.publisher.events]
        self.publisher.events.clear()
        return kinds

    @property
    def state(self) -> StateEvent:
        """As published last."""
        return self.publisher.states[-1]


@pytest.fixture
def idle() -> Iterator[Bench]:
    """Without an adapter."""
    bench = Bench()
    bench.step()
    yield bench
    bench.close()


@pytest.fixture
def bench(idle: Bench) -> Bench:
    idle.step(Up(idle.backend))
    return idle


# ---------------------------------------------------------------------------------------- frames


def test_frames_are_published_as_they_were_read(bench: Bench) -> None:
    other = Frame(20, 0x7FF, 0, b"\2")
    bench.backend.will_read(FRAME, other)
    bench.step()
    assert bench.publisher.frames == [FRAME, other]
    bench.step(after_ns=2 * SECOND)
    assert (bench.state.received, bench.state.transmitted) == (2, 0)
    assert bench.state.received_rate == 1.0


def test_a_transmit_is_published_before_its_sender_is_answered(bench: Bench) -> None:
    transmit = Transmit(Frame(0, 5, 0, b"\3"), "a", None, 0, origin="b")
    bench.backend.send([transmit])
    transmit.timestamp_ns = 99
    bench.backend.will_read(FRAME, transmit)
    published: list[Frame] = []
    bench.sender.finished = lambda *_: published.extend(bench.publisher.frames)  # type: ignore[method-assign]
    bench.step()
    assert published == [FRAME, EchoFrame(99, 5, 0, b"\3", "b")]


def test_what_an_immediate_adapter_was_sent_is_read_at_once(bench: Bench) -> None:
    """By the thread that has sent it, which then goes on by itself."""
    transmit = Transmit(FRAME, "a", None, 0)
    bench.backend.send([transmit])
    bench.backend.will_read(transmit)
    bench.receiver.read_at_once(bench.now)
    assert [frame.arbitration_id for frame in bench.publisher.frames] == [FRAME.arbitration_id]
    assert bench.sender.did == [("finished", [transmit])]
    bench.step()
    assert bench.sender.did == [("finished", [transmit])]


def test_who_reads_for_the_recv_thread_wakes_it_for_the_rest(bench: Bench) -> None:
    inbox = bench.wiring.receiver
    bench.waiter.add(inbox)
    bench.step()
    bench.receiver.read_at_once(bench.now)
    assert inbox not in bench.waiter.wait(0)
    bench.backend.condition = BusCondition(off=True, reason="bus off")
    bench.receiver.read_at_once(bench.now)
    assert inbox in bench.waiter.wait(0), "the state is due"
    bench.step(*inbox.take())
    bench.publisher.changes.append(Leaving("b"))
    bench.receiver.read_at_once(bench.now)
    assert inbox in bench.waiter.wait(0), "a subscription has arrived"


def test_what_was_sent_before_the_recv_thread_knew_the_adapter_is_read(idle: Bench) -> None:
    transmit = Transmit(FRAME, "a", None, 0)
    idle.backend.immediate = True
    idle.backend.send([transmit])
    idle.receiver.read_at_once(idle.now)
    assert idle.sender.did == []
    idle.backend.will_read(transmit)
    idle.step(Up(idle.backend))
    assert idle.sender.did == [("finished", [transmit]), ("refill", None)]


def test_an_answer_that_waits_for_others_is_given_in_time(bench: Bench) -> None:
    bench.step()
    bench.sender.answer_due_ns = bench.now + MILLISECOND
    assert bench.receiver.due_ns() == bench.now + MILLISECOND
    bench.step()
    assert bench.sender.did == []
    bench.step(after_ns=MILLISECOND)
    assert bench.sender.did == [("refill", None)]


def test_a_transmit_that_failed_is_published_to_nobody(bench: Bench) -> None:
    transmit = Transmit(FRAME, "a", None, 0)
    bench.backend.send([transmit])
    transmit.failure = "nobody acknowledges"
    bench.backend.will_read(transmit)
    bench.step()
    assert bench.publisher.frames == []
    assert bench.sender.did == [("finished", [transmit]), ("refill", None)]
    bench.step(after_ns=SECOND)
    assert bench.state.failed == 1


def test_an_adapter_is_read_when_that_is_due(bench: Bench) -> None:
    """Its descriptor says nothing."""
    bench.backend.due = bench.now + 5
    assert bench.receiver.due_ns() == bench.now + 5
    bench.backend.will_read(FRAME)
    bench.receiver.step(bench.now + 4, (), set())
    assert bench.publisher.frames == []
    bench.receiver.step(bench.now + 5, (), set())
    assert bench.publisher.frames == [FRAME]


def test_a_caller_waits_until_what_was_read_is_published(bench: Bench) -> None:
    bench.backend.will_read(FRAME)
    bench.receiver.step(bench.now, [CatchUp(CALLER)], set())
    assert bench.publisher.frames == [FRAME]
    assert bench.wiring.sender.take() == [Answer(CALLER, control.Nothing())]


def test_the_state_has_the_controllers_error_counters(bench: Bench) -> None:
    assert bench.state.error_counters is None, "no adapter tells them"
    bench.backend.errors = ErrorCounters(130, 7)
    bench.step(after_ns=SECOND)
    assert bench.state.error_counters == (130, 7)
    bench.step(Down("unplugged"))
    assert bench.state.error_counters is None


# ---------------------------------------------------------------------------- frames close together

WAIT_NS = 500 * MICROSECOND


@pytest.fixture
def full(bench: Bench) -> Bench:
    """The bus is full, and the adapter pauses."""
    skip_on_windows("waits that end within 15 ms: nobody pauses there")
    bench.backend.coalescing = Coalescing(WAIT_NS)
    for _ in range(100):
        bench.backend.will_read(FRAME)
        bench.step(after_ns=100 * MICROSECOND)
        if bench.backend.coalescing.pauses:
            break
    assert bench.receiver.due_ns() == bench.now + WAIT_NS
    bench.publisher.events.clear()
    return bench


def own(bench: Bench, origin: str | None = None) -> Transmit:
    """A frame of a client that the adapter has."""
    transmit = Transmit(Frame(0, 5, 0, b""), "a", None, 0, origin=origin)
    bench.backend.send([transmit])
    return transmit


def test_a_full_bus_is_read_after_a_pause(full: Bench) -> None:
    full.backend.will_read(*[FRAME] * 5)
    assert full.backend not in full.waiter.wait(0), "it wakes nobody"
    full.step(after_ns=WAIT_NS - 1)
    assert full.publisher.frames == []
    full.step(after_ns=1)
    assert full.publisher.frames == [FRAME] * 5
    assert full.receiver.due_ns() == full.now + WAIT_NS, "and the next pause begins"


def test_silence_ends_the_pauses(full: Bench) -> None:
    full.step(after_ns=WAIT_NS)
    assert full.receiver.due_ns() > full.now + WAIT_NS
    full.backend.will_read(FRAME)
    full.step(after_ns=1)
    assert full.publisher.frames == [FRAME], "its descriptor is watched again"


def test_an_answer_that_is_expected_ends_the_pause(full: Bench) -> None:
    assert full.backend.coalescing.expect(full.now)
    full.step(Expect())
    full.backend.will_read(FRAME)
    full.step(after_ns=1)
    assert full.publisher.frames == [FRAME]
    assert full.receiver.due_ns() > full.now + WAIT_NS, "for some time"


def test_what_is_due_does_not_wait_for_the_end_of_a_pause(full: Bench) -> None:
    full.backend.due = full.now + 5
    assert full.receiver.due_ns() == full.now + 5
    full.backend.will_read(FRAME)
    full.step(after_ns=5)
    assert full.publisher.frames == [FRAME]


def test_a_caller_does_not_wait_for_the_end_of_a_pause(full: Bench) -> None:
    full.backend.will_read(FRAME)
    full.step(CatchUp(CALLER))
    assert full.publisher.frames == [FRAME]


def test_after_a_clients_frame_an_answer_may_come(full: Bench) -> None:
    full.backend.will_read(FRAME, own(full))
    full.step(after_ns=WAIT_NS)
    full.backend.will_read(FRAME)
    full.step(after_ns=1)
    assert full.publisher.frames == [FRAME, EchoFrame(0, 5, 0, b"", "a"), FRAME]


def test_nobody_answers_to_a_task(full: Bench) -> None:
    """Its frames are sent by the scheduler."""
    full.backend.will_read(FRAME, own(full, origin="b"))
    full.step(after_ns=WAIT_NS)
    assert full.receiver.due_ns() == full.now + WAIT_NS


def test_frames_that_wait_for_room_are_not_held_up(full: Bench) -> None:
    full.sender.queued = 1
    full.backend.will_read(FRAME, own(full, origin="b"))
    full.step(after_ns=WAIT_NS)
    assert full.receiver.due_ns() > full.now + WAIT_NS


def test_the_adapter_goes_while_it_pauses(full: Bench) -> None:
    full.step(Down("unplugged"))
    assert full.backend not in full.waiter.wait(0)
    full.step(Up(full.backend))
    full.backend.will_read(FRAME)
    full.step(after_ns=1)
    assert full.publisher.frames == [FRAME]


def test_the_adapter_is_lost_after_a_pause(full: Bench) -> None:
    full.backend.will_be_lost("unplugged")
    full.step(after_ns=WAIT_NS)
    assert full.wiring.keeper.take() == [Lost(full.backend, "unplugged")]
    full.step(Down("unplugged"))


def test_the_end_comes_while_it_pauses(full: Bench) -> None:
    full.step(Down("the end", Status.SHUTTING_DOWN))
    assert full.wiring.keeper.take() == [LetGo("recv")]
    assert not full.step(Stop("the end"))


def test_error_frames_of_a_storm_are_counted(bench: Bench) -> None:
    errors = [Frame(0, 0x200, ERROR, bytes(8))] * 5
    bench.backend.will_read(*errors, FRAME)
    bench.step()
    assert bench.publisher.frames == [*errors[:2], FRAME]
    bench.step(after_ns=SECOND)
    assert sum(bench.state.held_errors.values()) == 3
    assert bench.state.received == 6, "they were received"
    bench.backend.will_read(*errors)
    bench.step()
    assert len(bench.publisher.frames) == 5, "another second"


# ---------------------------------------------------------------------------------- its condition


def test_a_condition_that_changes_is_published_at_once(bench: Bench) -> None:
    bench.kinds()
    bench.backend.condition = BusCondition(off=True, reason="bus off")
    bench.backend.will_read()
    bench.step(after_ns=1)
    assert (bench.state.state, bench.state.reason) == ("error", "bus off")
    bench.backend.will_read()
    bench.kinds()
    bench.step(after_ns=1)
    assert "state" not in bench.kinds()


def test_the_state_tells_all_there_is(bench: Bench) -> None:
    bench.backend.listen_only = True
    bench.backend.bitrate = 500_000
    bench.sender.queued = 3
    bench.step(after_ns=SECOND)
    assert bench.state.state == "passive"
    assert bench.state.info == "scripted adapter"
    assert (bench.state.bitrate, bench.state.load) == (500_000, 0.0)
    assert (bench.state.queued, bench.state.refused) == (3, 4)


# --------------------------------------------------------------------------------- loss of adapter


def test_without_an_adapter_the_state_is_an_error(idle: Bench) -> None:
    assert (idle.state.state, idle.state.reason) == ("error", "the adapter is not open")


def test_an_adapter_that_is_lost_while_reading(bench: Bench) -> None:
    bench.backend.will_read(FRAME)
    bench.backend.will_be_lost("unplugged")
    bench.step()
    bench.step()
    assert bench.publisher.frames == [FRAME]
    assert bench.wiring.keeper.take() == [Lost(bench.backend, "unplugged")]
    assert (bench.state.state, bench.state.reason) == ("error", "unplugged")
    assert bench.state.interruptions == 1
    assert bench.waiter.wait(0) == set(), "its descriptor is not watched any more"
    bench.step(Down("unplugged"))
    assert bench.wiring.keeper.take() == [LetGo("recv")]
    assert bench.state.interruptions == 1, "it was lost once"


def test_an_adapter_that_others_have_lost_is_let_go_of(bench: Bench) -> None:
    bench.step(Down("unplugged"))
    assert bench.wiring.keeper.take() == [LetGo("recv")]
    assert bench.state.interruptions == 1
    assert bench.receiver.due_ns() >= bench.now, "it is not asked when it is due"


def test_the_end_is_no_interruption(bench: Bench) -> None:
    bench.step(Down("the broker ends", Status.SHUTTING_DOWN))
    assert bench.state.interruptions == 0
    assert not bench.step(Stop("the broker ends", for_good=True))
    assert (bench.state.reason, bench.state.ended) == ("the broker ends", True)
    bench.receiver.close()
    assert bench.publisher.events[-1] == ("close", "the broker ends")


def test_frames_that_adapters_have_dropped_add_up(bench: Bench) -> None:
    bench.backend.dropped = 3
    bench.backend.will_read()
    bench.step()
    assert bench.publisher.dropped_upstream == 3
    bench.step(Down("unplugged"))
    other = ScriptedBackend()
    bench.step(Up(other))
    assert (bench.state.state, bench.state.reason) == ("active", "")
    other.dropped = 2
    other.will_read()
    bench.step()
    assert bench.publisher.dropped_upstream == 5
    bench.step(Down("the end"))
    other.close()


# ----------------------------------------------------------------------------- when it says what


def test_the_state_is_published_twice_a_second_while_there_are_clients(bench: Bench) -> None:
    bench.join("a")
    bench.step(after_ns=SECOND)
    bench.kinds()
    assert bench.receiver.due_ns() == bench.now + STATE_INTERVAL_NS
    bench.step(after_ns=STATE_INTERVAL_NS - 1)
    assert bench.kinds() == []
    bench.step(after_ns=1)
    assert bench.kinds() == ["state"]


def test_without_clients_the_state_is_published_every_second(bench: Bench) -> None:
    bench.step(after_ns=SECOND)
    assert bench.receiver.due_ns() == bench.now + SECOND


def test_a_client_that_joins_has_the_state_soon(bench: Bench) -> None:
    """Paced by the square of the clients: a thousand that join do not get a thousand states."""
    bench.step(after_ns=SECOND)
    bench.join(*[f"c{number}" for number in range(1000)])
    assert bench.receiver.due_ns() == bench.now + 400 * MILLISECOND
    bench.leave(*[f"c{number}" for number in range(10, 1000)])
    assert bench.receiver.due_ns() == bench.now + 40_000


def test_the_state_is_told_to_whoever_asks(bench: Bench) -> None:
    bench.step(after_ns=SECOND)
    bench.publisher.state_asked = True
    bench.publisher.changes.append(Leaving("x"))  # something that wakes it
    bench.kinds()
    bench.step(after_ns=1)
    assert "state" in bench.kinds()


def test_heartbeats_begin_with_the_first_route_and_end_with_the_last(bench: Bench) -> None:
    bench.publisher.new_routes = True
    bench.publisher.next_heartbeat = bench.now + 3 * HEARTBEAT_NS
    bench.join("a")
    first_ns = bench.now + HEARTBEAT_NS
    assert bench.receiver.due_ns() == first_ns
    bench.step(after_ns=HEARTBEAT_NS - 2 * MILLISECOND)
    assert bench.publisher.of("heartbeat") == []
    bench.step(after_ns=2 * MILLISECOND)
    assert bench.publisher.of("heartbeat") == [first_ns]
    assert bench.receiver.due_ns() == bench.publisher.next_heartbeat, "the state goes with it"
    bench.publisher.next_heartbeat = None
    bench.step(after_ns=2 * HEARTBEAT_NS)
    assert len(bench.publisher.of("heartbeat")) == 2
    bench.kinds()
    bench.step(after_ns=SECOND)
    assert bench.kinds() == ["state"]


# -------------------------------------------------------------------------------------- presence


def test_the_adapter_filters_before_a_client_is_ready(bench: Bench) -> None:
    bench.publisher.filters = filters.parse("100:7ff")
    seen: list[int] = []
    bench.publisher.ready = lambda *_: seen.append(len(bench.backend.filters))  # type: ignore[method-assign]
    before = len(bench.backend.filters)
    bench.join("a")
    assert seen == [before + 1]
    assert bench.backend.filters[-1] == bench.publisher.filters


def test_a_new_adapter_is_told_what_is_wanted(idle: Bench) -> None:
    idle.publisher.filters = filters.parse("100:7ff")
    idle.step(Up(idle.backend))
    assert idle.backend.filters == [idle.publisher.filters]


def test_an_adapter_may_filter_when_a_predecessors_clients_have_come(bench: Bench) -> None:
    bench.publisher.settles_ns = bench.now + SECOND
    before = len(bench.backend.filters)
    bench.step(after_ns=SECOND)
    assert len(bench.backend.filters) == before + 1
    bench.step(after_ns=SECOND)
    assert len(bench.backend.filters) == before + 1


def test_each_client_is_told_that_it_is_ready(bench: Bench) -> None:
    bench.join("a", "b")
    assert [client_id for client_id, _ in bench.publisher.of("ready")] == ["a", "b"]
    _, raw = bench.publisher.of("ready")[1]
    state = msgspec.msgpack.decode(raw, type=StateEvent)
    assert [info.client_id for info in state.clients] == ["a", "b"]


def test_the_sender_learns_who_has_left(bench: Bench) -> None:
    bench.join("a", "b")
    bench.wiring.sender.take()
    bench.publisher.changes.append(Leaving("b"))
    bench.step()
    assert bench.publisher.of("left") == []
    bench.leave("b")
    assert bench.wiring.sender.take() == [Gone(["b"])]
    assert bench.publisher.of("left") == ["b"]


def test_the_sender_learns_of_a_holder_before_that_is_ready(bench: Bench) -> None:
    told: list[object] = []
    bench.publisher.ready = lambda *_: told.extend(bench.sender.did)  # type: ignore[method-assign]
    bench.join("a", claim="bench")
    assert told == [("lock", Holder("a", "bench"))]
    bench.join("b", claim="rig")
    bench.step(after_ns=SECOND)
    assert bench.state.exclusive == Holder("a", "bench")
    bench.sender.did.clear()
    bench.leave("a")
    assert bench.sender.did == [("lock", Holder("b", "rig"))]
    assert bench.wiring.sender.take() == [Gone(["a"])]


# ----------------------------------------------------------------------------- frames of the past


def test_a_request_for_frames_of_the_past_is_answered(bench: Bench) -> None:
    bench.join("a")
    bench.wiring.sender.take()
    answer = Replayed(first_seq=0, complete=True, frames=NO_FRAMES)
    bench.replayer.answers.append(answer)
    bench.replayer.served |= {"a": Served(5, 1), "gone": Served(1, 0)}
    bench.step(Ask(CALLER, REPLAY))
    assert bench.wiring.sender.take() == [Answer(CALLER, answer)]
    bench.replayer.gone = 7
    bench.step(after_ns=SECOND)
    assert bench.state.gone == 7
    [info] = bench.state.clients
    assert (info.replayed, info.gone) == (5, 1)
    assert list(bench.replayer.served) == ["a"], "a client that has left is forgotten"


def test_a_request_that_takes_long_goes_on_in_another_turn(bench: Bench) -> None:
    answer = Replayed(first_seq=0, complete=True, frames=NO_FRAMES)
    bench.replayer.answers += [None, answer]
    bench.step(Ask(CALLER, REPLAY))
    assert bench.wiring.sender.take() == []
    assert bench.receiver.due_ns() > bench.now, "what is present comes first"
    bench.step(after_ns=SECOND)
    assert bench.wiring.sender.take() == [Answer(CALLER, answer)]
    assert bench.replayer.asked == [REPLAY, REPLAY]


def test_each_step_answers_one(bench: Bench) -> None:
    answers = [PAST, msgspec.structs.replace(PAST, next_seq=1)]
    bench.replayer.answers += answers
    callers = [Caller(b"a", 1), Caller(b"b", 1)]
    bench.step(*[Ask(caller, HISTORY) for caller in callers])
    assert bench.wiring.sender.take() == [Answer(callers[0], answers[0])]
    bench.step(after_ns=SECOND)
    assert bench.wiring.sender.take() == [Answer(callers[1], answers[1])]


def test_a_connection_that_asks_again_gives_up_what_it_asked(bench: Bench) -> None:
    bench.replayer.answers.append(PAST)
    first, second = Caller(b"a", 1), Caller(b"a", 2)
    bench.step(Ask(first, HISTORY), Ask(second, HISTORY))
    refused, answered = bench.wiring.sender.take()
    assert isinstance(refused, Answer)
    assert isinstance(refused.result, control.ErrorResult)
    assert (refused.caller, refused.result.code) == (first, "busy")
    assert isinstance(answered, Answer)
    assert answered.caller == second


def test_too_many_that_ask_are_refused(bench: Bench) -> None:
    bench.replayer.answers.append(PAST)
    asks = [Ask(Caller(b"%d" % number, 1), HISTORY) for number in range(1025)]
    bench.step(*asks)
    refused, _ = bench.wiring.sender.take()
    assert isinstance(refused, Answer)
    assert isinstance(refused.result, control.ErrorResult)
    assert (refused.caller, refused.result.code) == (asks[-1].caller, "busy")
