"""The recordings of a broker: those of its configuration, and those that were asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from canbroker.actors.kinds import KINDS
from canbroker.actors.recorder.options import HOLD_S, RecordOptions, holder_of, parse_options
from canbroker.actors.specs import RecorderAccount, RecorderSpec, Totals
from canbroker.broker import handover
from canbroker.broker.supervisor import ActorSlot, Phase
from canbroker.configuration.broker_file import MAX_NAME_LENGTH, is_name
from canbroker.errors import CanError
from canbroker.system import clock
from canbroker.transport.replier import Caller
from canbroker.transport.runtime import Runtime
from canbroker.transport.waiter import Waiter
from canbroker.wire import control
from canbroker.wire.recordings import RecordingStatus
from canbroker.wire.replay import Hold

#: Each is a process.
MAX_RECORDINGS: Final = 64

#: The last frames are written, and the files are completed.
_LEAVE_NS: Final = 20 * clock.SECOND

_logger = logging.getLogger(__name__)


class RecorderSlot(ActorSlot):
    """A recording and the life of its recorder."""

    _leave_ns = _LEAVE_NS

    def __init__(
        self,
        name: str,
        options: RecordOptions,
        runtime: Runtime,
        log_level: str,
        *,
        configured: bool,
    ) -> None:
        """``configured``: the configuration file has it, so it runs as long as the broker."""
        super().__init__(KINDS["recorder"], name, f"recorder of {name!r}", configured=configured)
        self.options = options
        self._runtime = runtime
        self._log_level = log_level
        self._complete = Totals()  # by actors that have ended

    def status(self) -> RecordingStatus:
        account = self._account()
        totals = self._complete.plus(account.complete).plus(account.open)
        return RecordingStatus(
            name=self.name,
            channels=self.options.channels,
            directory=self.options.directory,
            format=self.options.format,
            configured=self.configured,
            **self.condition(),
            file=account.file,
            **totals._asdict(),
            trouble=account.trouble,
        )

    def _spec(self) -> RecorderSpec:
        return RecorderSpec(
            name=self.name,
            options=self.options,
            address=str(self._runtime.address),
            log_level=self._log_level,
        )

    def _ending(self, waiter: Waiter) -> None:  # noqa: ARG002 - of the base
        account = self._account()
        self._complete = self._complete.plus(account.complete)
        self.report = {"file": account.file}

    def _account(self) -> RecorderAccount:
        return msgspec.convert(self.report, RecorderAccount)


class _Entry(msgspec.Struct):
    """A recording that was asked for, for the broker's successor."""

    name: str
    options: RecordOptions


class Recordings:
    """All recordings, by name. Used by the broker's one thread.

    ``slots``: those that run, or should.
    """

    def __init__(
        self,
        runtime: Runtime,
        log_level: str,
        configured: Mapping[str, RecordOptions],
        directory: Path,
        channels: Callable[[], Collection[str]],
        reply: Callable[[Caller, msgspec.Struct], None],
        start: Callable[[ActorSlot], None],
    ) -> None:
        """
        :param configured: the recordings of the configuration file, in ``directory``.
        :param channels: returns the names of the broker's channels.
        :param reply: answers a request.
        :param start: starts the actor of a slot.
        """
        self.slots: dict[str, RecorderSlot] = {}
        self._runtime = runtime
        self._log_level = log_level
        self._channels = channels
        self._reply = reply
        self._start = start
        self._waiting: dict[str, list[Caller]] = {}  # to hear whether a recording has begun
        self._ending: dict[str, list[Caller]] = {}  # to hear that it has ended
        for name, options in configured.items():
            self._add(name, options.resolved(directory), configured=True)
        for entry in handover.read(runtime.recordings_path, _Entry):
            if entry.name not in self.slots:
                self._add(entry.name, entry.options).requested = True

    def __repr__(self) -> str:
        return f"<Recordings {', '.join(self.slots)}>"

    @property
    def handlers(self) -> Mapping[str, Callable[[Caller, Any], msgspec.Struct | None]]:
        """Of the control methods."""
        return {"record_start": self._begin, "record_stop": self._stop}

    @property
    def busy(self) -> bool:
        """Whether a recording runs, or should."""
        return any(slot.wanted or slot.child is not None for slot in self.slots.values())

    def status(self, request: control.Viewed) -> list[RecordingStatus]:
        """The recordings whose channels the caller may know of."""
        return [
            slot.status()
            for slot in self.slots.values()
            if all(control.is_visible(channel, request) for channel in slot.options.channels)
        ]

    def holds(self, channel: str) -> list[Hold]:
        """The routes of a channel that recorders want, or will want in a moment."""
        return [
            Hold(topic=topic.decode(), holder=holder_of(slot.name), seconds=HOLD_S)
            for slot in self.slots.values()
            if (slot.wanted or slot.child is not None)
            and (topic := slot.options.topic(channel)) is not None
        ]

    def step(self) -> None:
        """Answers requests whose recording has begun or ended; forgets recordings that are over."""
        for name, slot in list(self.slots.items()):
            if slot.phase in {Phase.RUNNING, Phase.FAILED} and name in self._ending:
                self._end(slot)
            if slot.phase in {Phase.RUNNING, Phase.FAILED, Phase.STOPPED}:
                self._answer(slot)
            is_over = slot.phase is Phase.STOPPED and not slot.wanted
            if is_over and not slot.configured and not self._waiting.get(name):
                del self.slots[name]
                self._record()

    def end(self, reason: str) -> None:
        """Refuses the requests that wait."""
        error = control.ErrorResult("shutting-down", reason)
        for callers in (*self._waiting.values(), *self._ending.values()):
            for caller in callers:
                self._reply(caller, error)
        self._waiting.clear()
        self._ending.clear()

    def _begin(self, caller: Caller, request: control.StartRecording) -> msgspec.Struct | None:
        name = request.name
        slot = self.slots.get(name)
        if not is_name(name):
            text = f"a name has 1 to {MAX_NAME_LENGTH} printable characters, got {name!r}"
            return control.ErrorResult("initialization", text)
        if slot is not None and (slot.child is not None or name in self._waiting):
            return control.ErrorResult("initialization", f"recording {name!r} runs already")
        if slot is None and len(self.slots) >= MAX_RECORDINGS:
            text = f"the broker has {MAX_RECORDINGS} recordings, which is the most"
            return control.ErrorResult("limit", text)
        try:
            options = parse_options(request.options)
        except CanError as error:
            return control.ErrorResult("initialization", f"recording {name!r}: {error}")
        channels = self._channels()
        missing = [name for name in options.channels if name not in channels]
        if missing and options.interface is None:
            known = ", ".join(map(repr, channels)) or "none"
            text = f"no channel {missing[0]!r}; channels of this broker: {known}"
            return control.ErrorResult("initialization", text)
        if not Path(options.directory).is_absolute():
            text = f"directory must be an absolute path, got {options.directory!r}"
            return control.ErrorResult("initialization", text)
        if slot is None or not slot.configured:
            slot = self._add(name, options)
        self._waiting.setdefault(name, []).append(caller)
        self._start(slot)
        self._record()
        return None

    def _stop(self, caller: Caller, request: control.StopRecording) -> msgspec.Struct | None:
        slot = self.slots.get(request.name)
        if slot is None:
            known = ", ".join(map(repr, self.slots)) or "none"
            text = f"no recording {request.name!r}; recordings of this broker: {known}"
            return control.ErrorResult("initialization", text)
        self._ending.setdefault(slot.name, []).append(caller)
        if slot.phase not in {Phase.BACKING_OFF, Phase.STARTING}:
            self._end(slot)
        return None

    def _end(self, slot: RecorderSlot) -> None:
        """Ends a recording. One whose recorder was just killed has to be replaced before: its
        successor completes its file."""
        slot.requested = False
        slot.stop(clock.monotonic_ns(), "the recording was stopped", for_good=True)

    def _answer(self, slot: RecorderSlot) -> None:
        """Answers the callers that wait for the recording to begin, or to end."""
        failed = None
        if slot.phase is Phase.FAILED:
            failed = control.ErrorResult(slot.code, f"recording {slot.name!r}: {slot.reason}")
            slot.requested = slot.requested and slot.name not in self._waiting
            if not slot.wanted:
                slot.stop(clock.monotonic_ns(), slot.reason)
        for caller in self._waiting.pop(slot.name, ()):
            self._reply(caller, failed or slot.status())
        if slot.phase is not Phase.RUNNING:
            for caller in self._ending.pop(slot.name, ()):
                self._reply(caller, slot.status())

    def _add(self, name: str, options: RecordOptions, *, configured: bool = False) -> RecorderSlot:
        slot = self.slots[name] = RecorderSlot(
            name, options, self._runtime, self._log_level, configured=configured
        )
        return slot

    def _record(self) -> None:
        """Writes down which recordings were asked for, for our successor."""
        path = self._runtime.recordings_path
        entries = [
            _Entry(slot.name, slot.options)
            for slot in self.slots.values()
            if slot.requested and not slot.configured
        ]
        if entries:
            handover.write(path, entries)
        else:
            handover.remove(path)
