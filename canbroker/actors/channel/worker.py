"""Runs the work of one thread of a channel actor: waits for something to do, then takes a step."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence, Set
from typing import Any, Protocol, TypeVar

from canbroker.actors.channel.turn import Turn
from canbroker.actors.mailbox import Mailbox
from canbroker.system import clock
from canbroker.transport.listening import LOOK_NS
from canbroker.transport.waiter import SharedWaiter

_M = TypeVar("_M")
_M_contra = TypeVar("_M_contra", contravariant=True)

_W = TypeVar("_W", bound="Worker[Any]")


class Worker(Protocol[_M_contra]):
    """The work of one thread. It never waits and never reads the clock to decide what is due.

    All of it is done in a turn, and only the waiter is used outside of turns.
    """

    waiter: SharedWaiter
    """Watches the worker's own sockets and descriptors."""

    def due_ns(self) -> int | None:
        """Monotonic time of the next step if nothing arrives before; ``None``: none is due."""

    def step(self, now_ns: int, messages: Sequence[_M_contra], ready: Set[object]) -> bool:
        """Does everything that can be done now; ``False`` when told to stop.

        ``messages``: from the other threads, put before ``now_ns`` (monotonic); ``ready``: what
        the waiter found readable.
        """

    def close(self) -> None:
        """Closes the worker's sockets."""


def start(
    name: str,
    make: Callable[[], _W],
    inbox: Mailbox[Any],
    turn: Turn,
    on_crash: Callable[[str, Exception], None],
) -> tuple[threading.Thread, _W]:
    """Starts a thread that makes a worker and steps it until it stops.

    The thread makes it, because sockets belong to the thread that uses them. Returns when the
    worker is made, or raises what making it raised. ``on_crash`` is called on the thread if a step
    raises.
    """
    made: queue.SimpleQueue[_W | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            worker = make()
        except BaseException as error:  # noqa: BLE001 - raised again below
            made.put(error)
            return
        made.put(worker)
        try:
            _serve(worker, inbox, turn)
        except Exception as error:  # noqa: BLE001 - a bug, and the end of the actor
            on_crash(name, error)
        finally:
            with turn:
                worker.close()

    thread = threading.Thread(target=run, name=name)
    thread.start()
    worker = made.get()
    if isinstance(worker, BaseException):
        thread.join()
        raise worker
    return thread, worker


def _serve(worker: Worker[_M], inbox: Mailbox[_M], turn: Turn) -> None:
    worker.waiter.add(inbox)
    ready: set[object] = {inbox}
    while True:
        with turn:
            # The messages first: what they report happened before the time of the step.
            messages = inbox.take() if inbox in ready else ()
            if not worker.step(clock.monotonic_ns(), messages, ready):
                return
            left_ns = clock.remaining_ns(worker.due_ns())
        # Listening sockets want to be looked after this often.
        ready = worker.waiter.wait(LOOK_NS if left_ns is None else min(left_ns, LOOK_NS))
