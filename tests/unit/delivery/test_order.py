"""The order of a route, whatever happens on the way to it: each frame once, in its place, or told
to be lost there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from canbroker.delivery import order as module
from canbroker.delivery.order import Gap, Loss, Order, Part, Place, Restart, Taken
from canbroker.model.frame import EchoFrame
from tests.support.strikes import struck

#: Frames that are kept behind a gap, here: so few that it happens.
HELD: Final = 24

COUNTS = st.integers(1, 12)
DROPS = st.integers(0, 3).map(lambda drop: drop == 0)

#: What an order hands over, one after the other.
Item: TypeAlias = "EchoFrame | Loss | Restart"

#: How many calls deep in a job an exception strikes; ``None``: none does.
STRIKES = st.none() | st.integers(0, 40)


def frame(epoch: int, number: int) -> EchoFrame:
    return EchoFrame(epoch, 0, 0, number.to_bytes(4, "big"))


def name(frame: EchoFrame) -> tuple[int, int]:
    assert isinstance(frame.data, bytes)
    return frame.timestamp_ns, int.from_bytes(frame.data, "big")


class Publisher:
    """A channel: what its actors have published on a route, and what of it they still have."""

    def __init__(self, epoch: int, published: int) -> None:
        self.epoch = epoch
        self.published = {epoch: published}
        self.kept_from = {epoch: 0}

    def restart(self) -> None:
        self.epoch += 1
        self.published[self.epoch] = 0
        self.kept_from[self.epoch] = 0

    def publish(self, count: int) -> Part:
        first = self.published[self.epoch]
        self.published[self.epoch] += count
        return self.part(first, first + count)

    def part(self, first: int, end: int) -> Part:
        return Part(self.epoch, first, self.frames(self.epoch, first, end))

    def frames(self, epoch: int, first: int, end: int) -> list[EchoFrame]:
        return [frame(epoch, number) for number in range(first, end)]

    def answer(self, gap: Gap, limit: int) -> tuple[int, list[EchoFrame], bool]:
        """As an actor answers: from which number on, some frames, and whether these are all."""
        last = self.published[gap.epoch]
        end = last if gap.end is None else min(gap.end, last)
        first = max(gap.first, self.kept_from[gap.epoch])
        if first >= end:
            return max(gap.first, end), [], True
        until = min(end, first + limit)
        return first, self.frames(gap.epoch, first, until), until == end


def in_order(
    frames: list[EchoFrame], losses: list[tuple[int, Loss]], restarted: list[Restart]
) -> list[Item]:
    """What an order hands over as one list."""
    items: list[Item] = []
    begin = 0
    marks: list[tuple[int, Loss | Restart]] = [*losses]
    for restart in reversed(restarted):
        assert all(at <= restart.frames for at, _ in losses[: restart.losses])
        assert all(at >= restart.frames for at, _ in losses[restart.losses :])
        marks.insert(restart.losses, (restart.frames, restart))
    for at, mark in marks:
        items += [*frames[begin:at], mark]
        begin = at
    return items + frames[begin:]


def follow(items: list[Item], begun: int) -> dict[int, int | None]:
    """Up to which number each epoch is known; ``None``: of the rest nobody knows.

    Epoch 1 has ``begun`` with that number.
    """
    ends: dict[int, int | None] = {1: begun}
    restarted = False
    for item in items:
        if isinstance(item, Restart):
            restarted = True
            continue
        if isinstance(item, Loss):
            epoch, number, count = item.epoch, item.first, item.frames
        else:
            epoch, number, count = *name(item), 1
        assert epoch >= max(ends), f"{item} comes after frames of another epoch"
        assert epoch == max(ends) or restarted, f"{item} comes before the restart"
        restarted = restarted and epoch == max(ends)
        expected = ends.get(epoch, 0)
        assert number == expected, f"{item} comes where number {expected} should be"
        ends[epoch] = None if count is None else number + count
    return ends


class Deliveries(RuleBasedStateMachine):
    """A publisher, a network that drops and delays, exceptions that strike: and an order."""

    @initialize(
        repairs=st.booleans(),
        past=st.integers(0, 10),
        now=st.integers(0, 10),
        history=st.booleans(),
    )
    def begin(self, repairs: bool, past: int, now: int, history: bool) -> None:
        self.repairs = repairs
        self.order = Order(repairs=repairs)
        self.channel = Publisher(1, past)
        self.network: deque[Part] = deque()
        self.late: list[tuple[Gap, int, list[EchoFrame], bool]] = []
        self.taken: list[Item] = []
        self.seen = {1}
        self.struck = False
        self.begun = 0 if history else past
        self.order.begin(1, past)
        if now:
            self.network.append(self.channel.publish(now))
        if history:
            self.order.remember(self.channel.frames(1, 0, past + now), past + now)

    @rule(count=COUNTS, drop=DROPS)
    def publish(self, count: int, drop: bool) -> None:
        part = self.channel.publish(count)
        if not drop:
            self.network.append(part)

    @rule(drop=DROPS)
    def heartbeat(self, drop: bool) -> None:
        end = self.channel.published[self.channel.epoch]
        if not drop:
            self.network.append(self.channel.part(end, end))

    @rule()
    def restart(self) -> None:
        self.channel.restart()

    @rule(share=st.floats(0, 1))
    def forget(self, share: float) -> None:
        for epoch, count in self.channel.published.items():
            self.channel.kept_from[epoch] = max(self.channel.kept_from[epoch], int(share * count))

    def do(self, strike: int | None, job: Callable[[], object]) -> None:
        self.struck = struck(strike, job)
        self.seen.add(self.order.epoch)

    @precondition(lambda self: self.network)
    @rule(strike=STRIKES)
    def arrive(self, strike: int | None) -> None:
        part = self.network.popleft()
        self.do(strike, lambda: self.order.add(part))

    @precondition(lambda self: self.repairs and self.order.gap)  # else nobody asks
    @rule(limit=COUNTS, delay=DROPS, strike=STRIKES)
    def answer(self, limit: int, delay: bool, strike: int | None) -> None:
        gap = self.order.gap
        assert gap is not None
        answer = (gap, *self.channel.answer(gap, limit))
        if delay:
            self.late.append(answer)
        else:
            self.found(answer, strike)

    @precondition(lambda self: self.late)
    @rule(data=st.data(), strike=STRIKES)
    def late_answer(self, data: st.DataObject, strike: int | None) -> None:
        self.found(data.draw(st.sampled_from(self.late)), strike)

    def found(self, answer: tuple[Gap, int, list[EchoFrame], bool], strike: int | None) -> None:
        gap, first, frames, complete = answer
        self.do(strike, lambda: self.order.found(gap, first, list(frames), complete=complete))

    @precondition(lambda self: self.order.gap)
    @rule(strike=STRIKES)
    def give_up(self, strike: int | None) -> None:
        self.do(strike, lambda: self.order.gone("nobody answers"))

    @rule(at_most=st.none() | st.integers(1, 5), strike=st.none() | st.integers(0, 4))
    def take(self, at_most: int | None, strike: int | None) -> None:
        taken: Taken | None = None

        def job() -> None:
            nonlocal taken
            taken = self.order.take(None if at_most is None else self.order.portion(at_most))

        before = self.items()
        struck(strike, job)
        if taken is None:
            assert self.items() == before
        else:
            self.taken += in_order(*taken)

    def items(self) -> list[Item]:
        """What has come so far, in its order."""
        order = self.order
        return [*self.taken, *in_order(order.frames, order.losses, order.restarted)]

    @invariant()
    def each_once_in_its_place(self) -> None:
        """Nothing comes twice, late, or before what is missing in front of it has been told."""
        items = self.items()
        self.ends = follow(items, self.begun)
        losses = [item for item in items if isinstance(item, Loss)]
        restarts = [item for item in items if isinstance(item, Restart)]
        assert self.order.received == len(items) - len(losses) - len(restarts)
        assert self.order.lost == sum(loss.frames or 0 for loss in losses)

    @invariant()
    def nothing_waits_for_who_does_not_ask(self) -> None:
        assert self.repairs or self.struck or self.order.gap is None

    def teardown(self) -> None:
        if not hasattr(self, "order"):
            return
        self.settle()
        self.each_once_in_its_place()
        for epoch in self.seen:
            published = self.channel.published[epoch]
            assert self.ends.get(epoch, 0) in {published, None}, (
                f"of epoch {epoch} not all is known"
            )
        assert self.ends.get(self.channel.epoch, 0) == self.channel.published[self.channel.epoch]
        assert self.order.restarts >= len(self.seen) - 1
        assert self.order.restarts == sum(isinstance(item, Restart) for item in self.items())

    def settle(self) -> None:
        """The network delivers what it has; then heartbeats and answers until nothing is missing:
        a bounded number of them, or something is held for ever."""
        for part in self.network:
            self.order.add(part)
        end = self.channel.published[self.channel.epoch]
        for _ in range(sum(self.channel.published.values()) + 2 * self.channel.epoch + 2):
            if self.order.gap is not None:
                self.found((self.order.gap, *self.channel.answer(self.order.gap, 4)), None)
            else:
                self.order.add(self.channel.part(end, end))
            self.seen.add(self.order.epoch)
        assert self.order.gap is None


def test_each_frame_comes_once_or_is_told_to_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HELD", HELD)
    run_state_machine_as_test(
        Deliveries, settings=settings(max_examples=100, stateful_step_count=50)
    )


def deliver_struck(repairs: bool, where: int, strike: int) -> bool:
    """Frames with gaps, a restart and answers in parts, with an exception in that step of it.

    Whether there is such a step.
    """
    world = Deliveries()
    world.begin(repairs=repairs, past=3, now=2, history=True)
    for count in (2, 3, 2):
        world.publish(count, drop=count == 3)
    world.forget(share=0.8)
    world.restart()
    world.publish(3, drop=True)
    world.publish(1, drop=False)
    world.publish(2, drop=False)
    step = 0
    while world.network or world.order.gap:
        if world.network:
            world.arrive(strike if step == where else None)
        else:
            world.answer(2, delay=False, strike=strike if step == where else None)
        world.each_once_in_its_place()
        step += 1
    world.teardown()
    return where < step


@pytest.mark.parametrize("repairs", [True, False])
def test_an_exception_may_strike_at_each_call_of_each_step(repairs: bool) -> None:
    for strike in range(60):
        where = 0
        while deliver_struck(repairs, where, strike):
            where += 1
        assert where > 3


def account(order: Order) -> tuple[Gap | None, int, int, int]:
    return order.gap, order.received, order.lost, order.restarts


def test_another_route_has_nothing_of_the_last_one() -> None:
    channel = Publisher(1, 5)
    order = Order(repairs=True)
    order.begin(1, 0)
    order.add(channel.part(2, 5))
    assert order.gap == Gap(1, 0, 2)
    order.begin(1, 40)
    order.found(Gap(1, 0, 2), 0, channel.frames(1, 0, 2), complete=True)  # too late
    order.add(channel.part(40, 42))
    assert [name(frame) for frame in order.frames] == [(1, 40), (1, 41)]
    assert account(order) == (None, 2, 0, 0)


def test_a_route_that_begins_anew_is_a_restart() -> None:
    channel = Publisher(1, 5)
    order = Order(repairs=True)
    order.begin(1, 0)
    order.add(channel.part(0, 5))
    order.add(channel.part(0, 2))
    order.add(channel.part(2, 3))
    assert [name(frame)[1] for frame in order.frames] == [0, 1, 2, 3, 4, 0, 1, 2]
    assert order.restarted == [Restart(5, 0, Place(1, 0))]
    assert account(order) == (None, 8, 0, 1)


def test_a_private_topic_alone_tells_of_a_restart() -> None:
    """The new actor's route begins when it says where it stands."""
    order = Order(repairs=True)
    order.begin(1, 7)
    order.add(Part(2, 0, ()))
    assert order.gap == Gap(1, 7, None)
    order.gone("nothing is left of epoch 1")
    assert order.losses == [(0, Loss(1, 7, None, "nothing is left of epoch 1"))]
    assert account(order) == (None, 0, 0, 1)


def test_a_loss_says_what_is_lost() -> None:
    counted = "3 frames lost (numbers 7 to 9 of epoch 2): gone"
    assert str(Loss(2, 7, 3, "gone")) == counted
    assert str(Loss(2, 7, None, "gone")) == "frames from number 7 of epoch 2 on lost: gone"


def test_epochs_that_have_passed_unnoticed_come_in_their_turn() -> None:
    """The actor was restarted twice while we were away."""
    first, second, third = Publisher(1, 5), Publisher(2, 5), Publisher(3, 5)
    order = Order(repairs=True)
    order.begin(1, 2)
    order.add(third.part(1, 2))
    assert order.gap == Gap(1, 2, None)
    order.found(Gap(1, 2, None), 2, first.frames(1, 2, 3), complete=False, then=0)
    order.found(Gap(1, 3, None), 3, first.frames(1, 3, 4), complete=True, then=2)
    assert order.gap == Gap(2, 0, None)
    order.found(Gap(2, 0, None), 0, second.frames(2, 0, 2), complete=True, then=3)
    assert order.gap == Gap(3, 0, 1)
    order.found(Gap(3, 0, 1), 0, third.frames(3, 0, 1), complete=True)
    names = [name(frame) for frame in order.frames]
    assert names == [(1, 2), (1, 3), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert order.restarted == [Restart(2, 0, Place(2, 0)), Restart(4, 0, Place(3, 0))]
    assert order.losses == []
    assert order.place == Place(3, 2)


def test_a_portion_is_taken_and_the_rest_stays() -> None:
    order = Order(repairs=True)
    order.begin(1, 0)
    order.add(Publisher(1, 0).publish(5))
    assert order.portion(9) == 5
    frames, _, _ = order.take(order.portion(3))
    assert [name(frame)[1] for frame in frames] == [0, 1, 2]
    assert [name(frame)[1] for frame in order.frames] == [3, 4]


def test_losses_and_restarts_are_taken_with_all_frames() -> None:
    """They are known by the number of frames before them."""
    order = Order(repairs=False)
    order.begin(1, 0)
    order.add(Part(1, 2, [frame(1, 2), frame(1, 3)]))
    assert order.losses
    assert order.portion(1) == 2
