"""The channel actor: one process, one adapter, a send thread and a recv thread.

The thread that made the actor is its keeper: only the keeper opens and closes backends. When the
adapter is lost, the keeper waits until both threads have released it, answers the transmits that
were in flight, and retries until the adapter can be opened again.
"""

from __future__ import annotations

import logging
import mmap
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from canbroker.actors.channel.error_storms import ErrorStorms
from canbroker.actors.channel.messages import (
    Answer,
    ChangeState,
    Crashed,
    Down,
    Finished,
    KeeperMessage,
    LetGo,
    Lost,
    Opened,
    Stop,
    Up,
)
from canbroker.actors.channel.opening import Opening
from canbroker.actors.channel.ports import Ports
from canbroker.actors.channel.receiver import Receiver
from canbroker.actors.channel.sender import Sender
from canbroker.actors.channel.wiring import Wiring
from canbroker.actors.channel.worker import Worker, start
from canbroker.actors.kinds import Beat
from canbroker.actors.lifelines import Lifelines
from canbroker.actors.mailbox import Mailbox
from canbroker.actors.specs import ChannelSpec
from canbroker.backends import Backend, Options, open_backend, parse_options
from canbroker.delivery.publisher import Publisher
from canbroker.delivery.replayer import Replayer
from canbroker.delivery.ring import Ring, anonymous
from canbroker.system import clock
from canbroker.system.imports import without
from canbroker.system.priority import RealTime
from canbroker.system.shared_memory import mapped
from canbroker.transport.address import parse_ipc
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import SharedWaiter, Waiter
from canbroker.wire import control
from canbroker.wire.stream import CHANGING
from canbroker.wire.transmit import Status

_REOPEN_FIRST_NS: Final = 50 * clock.MILLISECOND
#: Reception must resume well within a second of the adapter's return.
_REOPEN_MAX_NS: Final = 250 * clock.MILLISECOND
_THREADS: Final = ("recv", "send")

_W = TypeVar("_W", bound=Worker[Any])

_logger = logging.getLogger(__name__)


class ActorCrashedError(Exception):
    """A thread of the actor crashed. The process must end, and is started again."""


class ChannelActor:
    """Opens the adapter and its sockets when constructed; :meth:`run` serves until it is stopped.

    :raises CanInitializationError: the adapter cannot be opened, or a socket cannot be bound.
    """

    def __init__(self, spec: ChannelSpec) -> None:
        self._spec = spec
        # python-can imports it for MF4 files, and it takes seconds: it imports pandas.
        with without("asammdf"):
            self._options = parse_options(spec.interface, spec.parameters)
            self._backend: Backend | None = open_backend(spec.interface, self._options)
        self._options = self._backend.reopening or self._options
        self._wiring = Wiring(spec.name, time.time_ns())
        self._context = Context()
        self._threads: list[threading.Thread] = []
        self._waiting_for: set[str] = set()  # threads that have not released a lost backend
        self._down = Down("")
        self._lost = (
            ""  # why the adapter was lost, without the error of the last attempt to reopen it
        )
        self._changes: deque[ChangeState] = deque()
        self._change: ChangeState | None = None  # the one in progress
        self._opening: Opening | None = None
        self._reopen_at: int | None = None
        self._backoff_ns = _REOPEN_FIRST_NS
        self._stop: Stop | None = None
        try:
            self._start_threads()
        except BaseException:
            self._end()
            raise

    def __repr__(self) -> str:
        state = "up" if self._backend else self._down.reason
        return f"<ChannelActor {self._spec.name} {self._spec.interface} {state}>"

    def run(self, lifelines: Lifelines, _beat: Beat) -> None:
        """Serves until one of ``lifelines`` becomes readable, then ends in order.

        ``_beat`` is not called: the state stream shows that the actor lives.

        :raises ActorCrashedError: one of the threads has crashed.
        """
        waiter = Waiter()
        waiter.add(self._wiring.keeper)
        for lifeline in lifelines.descriptors:
            waiter.add(lifeline)
        try:
            while self._stop is None or self._waiting_for:
                ready = waiter.wait(self._patience())
                if self._stop is None and not ready.isdisjoint(lifelines.descriptors):
                    for lifeline in lifelines.descriptors:
                        waiter.remove(lifeline)
                    said = lifelines.last_words()
                    reason = said or "the channel was closed by the broker, or that is gone"
                    self._stop = Stop(reason, for_good=bool(said))
                    self._take_down(Down(self._stop.reason, Status.SHUTTING_DOWN))
                for message in self._wiring.keeper.take():
                    self._handle(message)
                if self._reopen_at is not None and clock.monotonic_ns() >= self._reopen_at:
                    self._reopen()
        finally:
            self._end()

    # ------------------------------------------------------------------------------- threads

    def _start_threads(self) -> None:
        ring = Ring(_memory(self._spec), self._wiring.epoch, self._spec.ring_s)
        sender = self._start("send", self._make_sender, self._wiring.sender)
        self._start("recv", lambda: self._make_receiver(ring, sender), self._wiring.receiver)
        self._bring_up()

    def _start(self, name: str, make: Callable[[], _W], inbox: Mailbox[Any]) -> _W:
        thread, worker = start(name, make, inbox, self._wiring.turn, self._crashed)
        self._threads.append(thread)
        return worker

    def _make_sender(self) -> Sender:
        transmit, controls = parse_ipc(self._spec.transmit), parse_ipc(self._spec.control)
        open_ports = partial(Ports, self._context, transmit, controls)
        return Sender(self._wiring, open_ports, RealTime())

    def _make_receiver(self, ring: Ring, sender: Sender) -> Receiver:
        spec, epoch = self._spec, self._wiring.epoch
        stream = parse_ipc(spec.stream)
        publisher = Publisher(self._context, stream, spec.name, epoch, ring, spec.awaited)
        for hold in spec.holds:
            publisher.begin_hold(hold)
        waiter = SharedWaiter()
        publisher.watch(waiter)
        replayer = Replayer(ring, spec.name, epoch, publisher.route)
        storms = ErrorStorms(spec.error_rate)
        receiver = Receiver(self._wiring, waiter, publisher, replayer, storms, sender)
        sender.read = receiver.read_at_once
        return receiver

    def _crashed(self, thread: str, error: Exception) -> None:
        """[the worker's thread]"""
        _logger.error("%s thread of channel %r crashed", thread, self._spec.name, exc_info=error)
        self._wiring.keeper.put(Crashed(thread))

    # ------------------------------------------------------------------------------ messages

    def _handle(self, message: KeeperMessage) -> None:
        match message:
            case Lost(backend, reason):
                if backend is self._backend and not self._waiting_for:
                    _logger.error("channel %r lost its adapter: %s", self._spec.name, reason)
                    self._lost = reason
                    self._take_down(Down(reason))
            case LetGo(thread):
                self._waiting_for.discard(thread)
                if not self._waiting_for:
                    self._close_backend()
            case Opened(backend, problem):
                # After a stop the backend is left to the opening, which closes it.
                if self._stop is None:
                    self._opened(backend, problem)
            case ChangeState():
                self._changes.append(message)
                self._next_change()
            case Crashed(thread):
                raise ActorCrashedError(f"{thread} thread of channel {self._spec.name!r}")

    def _bring_up(self) -> None:
        if self._backend is not None:
            self._wiring.sender.put(Up(self._backend))
            self._wiring.receiver.put(Up(self._backend))

    def _take_down(self, down: Down) -> None:
        """Tells both threads to release the backend; then :meth:`_close_backend` follows."""
        if self._waiting_for:
            self._down = down
            return
        self._down = down
        self._reopen_at = None
        self._waiting_for = set(_THREADS)
        self._wiring.sender.put(down)
        self._wiring.receiver.put(down)

    def _close_backend(self) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            abandoned = backend.abandon()
            for transmit in abandoned:
                transmit.failure = self._down.reason
            self._wiring.sender.put(Finished(abandoned))
            backend.close()
        if self._stop is None:
            self._reopen_at = clock.monotonic_ns() + self._backoff_ns
            self._next_change()

    # ------------------------------------------------------------------------------- opening

    def _reopen(self) -> None:
        self._reopen_at = None
        options = self._options
        if self._change is not None:
            options = _changed(options, self._change)
        self._opening = Opening(self._spec.interface, options, self._wiring.keeper)

    def _opened(self, backend: Backend | None, problem: str) -> None:
        """Uses the adapter that was opened, or schedules another attempt."""
        if self._opening is None:
            return
        options, self._opening = self._opening.options, None
        change, self._change = self._change, None
        if backend is not None:
            _logger.info("channel %r is open: %s", self._spec.name, backend.info)
            self._backend, self._options = backend, backend.reopening or options
            self._backoff_ns = _REOPEN_FIRST_NS
            self._bring_up()
        else:
            # A change that failed is reverted immediately.
            later = min(max(2 * self._backoff_ns, _REOPEN_FIRST_NS), _REOPEN_MAX_NS)
            self._backoff_ns = 0 if change else later
            self._stay_down(problem)
        if change is not None:
            error = control.ErrorResult("device", problem)
            self._answer(change, control.Nothing() if backend else error)
        self._next_change()

    def _stay_down(self, problem: str) -> None:
        """Reports why opening fails, unless that was reported before."""
        down = Down(f"{self._lost}; opening it again: {problem}")
        if down == self._down:
            self._reopen_at = clock.monotonic_ns() + self._backoff_ns
        else:
            _logger.warning("channel %r: %s", self._spec.name, problem)
            self._take_down(down)

    # ----------------------------------------------------------------------- changes of state

    def _next_change(self) -> None:
        """Starts the next change of state, if none is in progress.

        No adapter can change to or from listen-only while it is open, so it is reopened. The result
        of opening it is the answer. After an error the adapter is reopened in its previous state.
        """
        while self._changes and not (self._change or self._opening or self._waiting_for):
            change = self._changes.popleft()
            is_listening = getattr(self._options, "listen_only", None)
            if is_listening is None and change.listen_only:
                problem = f"interface {self._spec.interface!r} has no listen-only mode"
                self._answer(change, control.ErrorResult("unsupported", problem))
            elif bool(is_listening) == change.listen_only:
                self._answer(change, control.Nothing())
            else:
                self._change = change
                self._backoff_ns = 0
                if self._backend is not None:
                    self._lost = CHANGING
                self._take_down(Down(self._lost))

    def _answer(self, change: ChangeState, result: msgspec.Struct) -> None:
        self._wiring.sender.put(Answer(change.caller, result))

    # ----------------------------------------------------------------------------------- end

    def _patience(self) -> int | None:
        if self._reopen_at is None:
            return None
        return max(0, self._reopen_at - clock.monotonic_ns())

    def _end(self) -> None:
        stop = self._stop or Stop("the channel actor ends")
        for change in (*([self._change] if self._change else []), *self._changes):
            self._answer(change, control.ErrorResult("shutting-down", stop.reason))
        self._wiring.sender.put(stop)
        self._wiring.receiver.put(stop)
        for thread in self._threads:
            thread.join()
        if self._opening is not None:
            self._opening.end()
        if self._backend is not None:
            self._backend.close()
        self._context.close()
        self._wiring.close()


def _memory(spec: ChannelSpec) -> mmap.mmap:
    if spec.ring_descriptor is None and not spec.ring_file:
        return anonymous()
    memory = mapped(spec.ring_descriptor, spec.ring_file)
    if memory is None:
        _logger.warning(
            "%s was removed: recent frames are lost if this process ends", spec.ring_file
        )
        return anonymous()
    return memory


def _changed(options: Options, change: ChangeState) -> Options:
    return msgspec.structs.replace(options, listen_only=change.listen_only)
