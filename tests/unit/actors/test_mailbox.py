"""The mailbox: nothing is lost, order holds, its descriptor tells the truth."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator

import pytest

from canbroker.actors.mailbox import Mailbox


@pytest.fixture
def mailbox() -> Iterator[Mailbox[int]]:
    mailbox: Mailbox[int] = Mailbox()
    yield mailbox
    mailbox.close()


def readable(mailbox: Mailbox[int], timeout: float = 0) -> bool:
    return bool(select.select([mailbox], [], [], timeout)[0])


def test_it_is_readable_while_something_is_in_it(mailbox: Mailbox[int]) -> None:
    assert not readable(mailbox)
    assert mailbox.take() == []
    mailbox.put(1)
    mailbox.put(2)
    assert readable(mailbox)
    assert readable(mailbox)
    assert mailbox.take() == [1, 2]
    assert not readable(mailbox)
    mailbox.put(3)
    assert readable(mailbox)
    assert mailbox.take() == [3]


def test_many_threads_put_and_each_keeps_its_order(mailbox: Mailbox[int]) -> None:
    threads, each = 4, 3000

    def put(first: int) -> None:
        for number in range(each):
            mailbox.put(first + number)

    workers = [threading.Thread(target=put, args=(i * each,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    taken: list[int] = []
    while len(taken) < threads * each:
        assert readable(mailbox, 30), f"{len(taken)} taken, then nothing: a message was forgotten"
        taken += mailbox.take()
    for worker in workers:
        worker.join()
    assert sorted(taken) == list(range(threads * each))
    for i in range(threads):
        mine = [number for number in taken if number // each == i]
        assert mine == sorted(mine)
    assert not readable(mailbox)


def test_what_is_put_after_the_end_harms_nobody() -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox.close()
    mailbox.put(1)
    mailbox.close()
    assert mailbox.take() == [1]
