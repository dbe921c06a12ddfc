"""A channel actor in this process, spoken to in the protocol, without the client library."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgpack
import pytest

from canbroker.actors.channel.actor import ActorCrashedError, ChannelActor
from canbroker.actors.lifelines import Lifelines
from canbroker.actors.specs import ChannelSpec
from canbroker.backends.virtual import InstantBus
from canbroker.delivery.subscriber import Identity, Subscriber
from canbroker.errors import CanInitializationError
from canbroker.model.filters import EVERYTHING
from canbroker.model.frame import FD, Frame
from canbroker.system import clock
from canbroker.system.wake import Wake
from canbroker.transport.address import parse_ipc
from canbroker.transport.calls import ControlError, call
from canbroker.transport.links import Link
from canbroker.transport.sockets import Context
from canbroker.transport.stream_link import StreamLink
from canbroker.wire import control
from canbroker.wire.transmit import CREDIT, Reply, Status, decode_reply, encode_request

FRAME = Frame(0, 0x123, 0, b"\1")


class Running:
    """An actor that runs in a thread, and what a test needs to speak to it."""

    def __init__(self, directory: Path, stack: ExitStack, **parameters: object) -> None:
        self.spec = ChannelSpec(
            name="x",
            interface="virtual",
            parameters={"channel": "x", **parameters},
            stream=f"ipc://{directory}/rx",
            transmit=f"ipc://{directory}/tx",
            control=f"ipc://{directory}/ctl",
        )
        self.failure: BaseException | None = None
        self._stack = stack
        self._lifeline = Wake()
        stack.callback(self._lifeline.close)
        self._never = Wake()
        stack.callback(self._never.close)
        actor = ChannelActor(self.spec)
        self._thread = threading.Thread(target=self._run, args=(actor,))
        self._thread.start()
        stack.callback(self.stop)
        self.context = Context()
        stack.callback(self.context.close)

    def stop(self) -> None:
        self._lifeline.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def join(self) -> None:
        """Waits for the actor's own end."""
        self._thread.join(20)
        assert not self._thread.is_alive()

    def subscriber(self, client_id: str) -> Subscriber:
        link = StreamLink(self.context, parse_ipc(self.spec.stream))
        subscriber = Subscriber(link, Identity("x", client_id))
        self._stack.callback(subscriber.close)
        subscriber.subscribe(EVERYTHING, clock.deadline_after(10))
        return subscriber

    def link(self) -> Link:
        link = Link(self.context, parse_ipc(self.spec.transmit))
        self._stack.callback(link.close)
        return link

    def reply(self, link: Link) -> Reply:
        deadline = clock.monotonic_ns() + 10 * clock.SECOND
        while clock.monotonic_ns() < deadline:
            body = link.receive()
            if body is not None:
                return decode_reply(body)
            link.wait(self._never, clock.SECOND)
        raise TimeoutError("no reply")

    def receive(self, subscriber: Subscriber, count: int) -> list[Frame]:
        frames: list[Frame] = []
        while len(frames) < count:
            subscriber.receive()
            frames += subscriber.order.take()[0]
            if len(frames) < count:
                subscriber.wait(self._never, 10 * clock.SECOND)
        return frames

    def _run(self, actor: ChannelActor) -> None:
        try:
            actor.run(Lifelines((self._lifeline,)), lambda _report=None: None)
        except ActorCrashedError as error:
            self.failure = error


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def directory(stack: ExitStack) -> Path:
    # Not tmp_path: the paths of Unix sockets are short.
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cb-", dir="/tmp")))


@pytest.fixture
def actor(directory: Path, stack: ExitStack) -> Running:
    return Running(directory, stack)


def request(token: int, *frames: Frame, client: str = "me", epoch: int = 0) -> bytes:
    return encode_request(client, token, 0, frames or (FRAME,), epoch)


def test_a_run_of_good_requests_has_one_answer(directory: Path, stack: ExitStack) -> None:
    actor = Running(directory, stack, bitrate=125_000)
    link = actor.link()
    for token in range(1, 101):
        assert link.send(request(token))
    answered: list[Reply] = []
    while not answered or answered[-1].token < 100:
        answered.append(actor.reply(link))
    assert all(reply.status == Status.OK for reply in answered)
    assert [reply.token for reply in answered] == sorted({reply.token for reply in answered})


def test_another_epochs_request_is_never_sent(actor: Running) -> None:
    witness = actor.subscriber("witness")
    link = actor.link()
    link.send(request(1, epoch=witness.order.epoch - 1))
    reply = actor.reply(link)
    assert (reply.status, reply.accepted, reply.failed) == (Status.STALE, 0, [0])
    link.send(request(2, Frame(0, 0x200, 0, b""), epoch=witness.order.epoch))
    assert [frame.arbitration_id for frame in actor.receive(witness, 1)] == [0x200]


def test_more_than_the_credit_is_refused(directory: Path, stack: ExitStack) -> None:
    actor = Running(directory, stack, bitrate=10_000)
    link = actor.link()
    for token in range(1, 4):
        link.send(request(token, *[FRAME] * (CREDIT // 2)))
    call(
        actor.context,
        parse_ipc(actor.spec.control),
        "discard",
        control.Discard(client_id="me", token=3),
        control.Discarded,
        clock.deadline_after(10),
    )
    replies = [actor.reply(link) for _ in range(3)]
    assert [(reply.token, reply.status) for reply in replies] == [
        (3, Status.QUEUE_FULL),  # at once
        (1, Status.DISCARDED),
        (2, Status.DISCARDED),
    ]
    assert len(replies[0].failed) == CREDIT // 2
    assert replies[1].accepted + len(replies[1].failed) == CREDIT // 2


def test_a_request_with_an_invalid_frame_is_refused_whole(actor: Running) -> None:
    witness = actor.subscriber("witness")
    link = actor.link()
    link.send(request(1, FRAME, Frame(0, 0x800, 0, b"")))
    reply = actor.reply(link)
    assert (reply.status, reply.failed) == (Status.INVALID_FRAME, [0, 1])
    assert "0x800" in reply.reason
    link.send(request(2, Frame(0, 0x201, FD, bytes(12))))
    assert [frame.arbitration_id for frame in actor.receive(witness, 1)] == [0x201]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "truncated"),
        (b"GET / HTTP/1.1", "array"),
        (msgpack.packb([2, "me", 1, 0, 0, []]), "version 2"),
        (
            msgpack.packb([1, "not an id!", 1, 0, 0, [[0, 1, 0, b""]]]),
            "'not an id!' is not a client id",
        ),
        (msgpack.packb([1, "me", 1, 0, 0, [[0, 1, 0, bytes(65)]]]), "64"),
        (msgpack.packb([1, "me", 1, 0, 0, [[0, 1 << 29, 0, b""]]]), "536870911"),
    ],
)
def test_what_is_no_request_is_answered_with_the_reason(
    actor: Running, body: bytes, named: str
) -> None:
    link = actor.link()
    link.send(body)
    reply = actor.reply(link)
    assert (reply.token, reply.status) == (0, Status.MALFORMED)
    assert named in reply.reason
    link.send(request(1))
    assert actor.reply(link).status == Status.OK


def test_what_a_gone_client_had_queued_is_not_sent(directory: Path, stack: ExitStack) -> None:
    actor = Running(directory, stack, bitrate=10_000)
    witness = actor.subscriber("witness")
    leaver = actor.subscriber("leaver")
    link = actor.link()
    link.send(request(1, *[FRAME] * 1000, client="leaver"))
    actor.receive(witness, 1)
    leaver.close()
    other = actor.link()
    other.send(request(1, Frame(0, 0x7FF, 0, b"last"), client="other"))
    seen = actor.receive(witness, 1)
    while seen[-1].data != b"last":
        seen += actor.receive(witness, 1)
    assert len(seen) < 100


def test_control_refuses_by_name(actor: Running) -> None:
    deadline = clock.deadline_after(10)
    with pytest.raises(ControlError, match=r"'halt'.*set_state, discard"):
        call(
            actor.context,
            parse_ipc(actor.spec.control),
            "halt",
            control.Params(),
            control.Nothing,
            deadline,
        )
    with pytest.raises(ControlError, match="'asleep'"):
        call(
            actor.context,
            parse_ipc(actor.spec.control),
            "set_state",
            control.SetState(state="asleep"),
            control.Nothing,
            deadline,
        )


def test_an_endpoint_that_cannot_be_bound(directory: Path) -> None:
    spec = ChannelSpec(
        name="x",
        interface="virtual",
        parameters={"channel": "x"},
        stream=f"ipc://{directory}/rx",
        transmit=f"ipc://{directory}/no/such/directory/tx",
        control=f"ipc://{directory}/ctl",
    )
    with pytest.raises(CanInitializationError, match="no/such/directory"):
        ChannelActor(spec)


def test_a_bug_in_a_thread_ends_the_actor_loudly(
    actor: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug in a backend")

    monkeypatch.setattr(InstantBus, "send", broken)
    actor.link().send(request(1))
    actor.join()
    assert isinstance(actor.failure, ActorCrashedError)
    assert "a bug in a backend" in caplog.text
