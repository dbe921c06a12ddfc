"""The recorder actor: an ordinary client of its channels that writes what it receives to files."""

from __future__ import annotations

import logging
import os
from typing import Final

import msgspec

from canbroker.actors.kinds import Beat
from canbroker.actors.lifelines import Lifelines
from canbroker.actors.recorder.channels import Beginning, Channels
from canbroker.actors.recorder.output import SYNC_NS
from canbroker.actors.recorder.recording import Recording
from canbroker.actors.specs import RecorderSpec
from canbroker.delivery.order import Loss, Place
from canbroker.delivery.tap import Missed
from canbroker.errors import CanInitializationError
from canbroker.system import clock
from canbroker.transport.waiter import Waiter

#: Channels that take longer to open are recorded from when they are open.
_OPEN_S: Final = 5.0

#: Frames are gathered this long: each wake-up costs as much as a hundred frames.
_GATHER_NS: Final = 50 * clock.MILLISECOND
_IDLE_S: Final = 0.2

#: When what could not be written is tried again.
_RETRY_NS: Final = 2 * clock.SECOND

#: After so long without a failure it goes on: each file is synced earlier than that.
_SURE_NS: Final = 2 * SYNC_NS

_BEAT_NS: Final = clock.SECOND

#: What the channels have published when the recording ends is waited for, but not longer. A
#: process whose broker is gone must leave within 1.5 s; else the broker waits for 10 s.
_LAST_NS: Final = 7 * clock.SECOND
_LAST_OF_BROKER_NS: Final = clock.SECOND
_LAST_LOOK_S: Final = 0.02

_logger = logging.getLogger(__name__)


class RecorderActor:
    """Records as soon as it is made.

    If it cannot write, the channels are not affected: it stops reading, and tries again later. The
    frames that it has not read are in the channels' rings; those that have left them are counted.

    :raises CanInitializationError: an option is wrong, or nothing can be written.
    """

    def __init__(self, spec: RecorderSpec) -> None:
        os.environ["CANBROKER_AUTOSTART"] = "0"  # we have a broker
        self._name = spec.name
        self._channels = Channels(spec.name, spec.options, spec.address)
        self._recording = Recording(spec.name, spec.options, self._channels.before)
        self._trouble = ""  # why files were given up, until others are written
        self._gave_up = False
        self._retry_at = 0
        self._sure_at = 0
        self._beat_at = 0
        try:
            self._open()
        except BaseException:
            self._channels.close()
            raise

    def __repr__(self) -> str:
        return f"<RecorderActor {self._name} {self._trouble or 'records'}>"

    def run(self, lifelines: Lifelines, beat: Beat) -> None:
        """Records until one of ``lifelines`` becomes readable, then completes the files."""
        waiter = Waiter()
        for lifeline in lifelines.descriptors:
            waiter.add(lifeline)
        try:
            while True:
                wrote = self._step(clock.monotonic_ns())
                self._beat(beat)
                if waiter.wait(_GATHER_NS if wrote else 0):
                    break
            self._finish(lifelines.last_words())
            self._beat_at = 0
            self._beat(beat)
        finally:
            self._channels.close()

    def _open(self) -> None:
        try:
            begun = self._channels.open(self._recording.left(), _OPEN_S)
            for each in begun:
                self._begin(each)
            self._recording.open({each.channel for each in begun if each.continues})
        except OSError as error:
            raise CanInitializationError(f"cannot record: {_reason(error)}") from error

    def _step(self, now_ns: int) -> bool:
        """Reads and writes once; returns whether there were frames. It may wait."""
        try:
            if self._gave_up:
                return self._try_again(now_ns)
            for each in self._channels.poll(self._recording.places):
                self._begin(each)
            events = self._channels.receive(_IDLE_S)
            self._recording.add(events)
            self._recording.know(self._channels.clocks, self._channels.disorder())
            self._recording.step(now_ns)
        except OSError as error:
            self._give_up(error)
            return True
        if self._trouble and now_ns >= self._sure_at:
            _logger.warning("recording %r goes on", self._name)
            self._trouble = ""
        return bool(events)

    def _begin(self, each: Beginning) -> None:
        self._recording.begin(each.channel, each.place, each.loss, each.published)

    def _give_up(self, error: OSError) -> None:
        reason = _reason(error)
        if reason != self._trouble:
            _logger.error("recording %r: %s", self._name, reason)
        self._trouble, self._gave_up = reason, True
        self._retry_at = clock.monotonic_ns() + _RETRY_NS
        self._recording.give_up()

    def _try_again(self, now_ns: int) -> bool:
        if now_ns >= self._retry_at:
            self._recording.go_on(self._trouble)
            self._channels.go_back(self._recording.places)
            self._gave_up = False
            self._sure_at = now_ns + _SURE_NS
        return True

    def _beat(self, beat: Beat) -> None:
        now_ns = clock.monotonic_ns()
        if now_ns >= self._beat_at:
            troubles = [self._trouble] if self._trouble else self._channels.problems
            beat(msgspec.to_builtins(self._recording.account("; ".join(troubles))))
            self._beat_at = now_ns + _BEAT_NS

    # ---------------------------------------------------------------------------------- end

    def _finish(self, last_words: str) -> None:
        """Writes what the channels have published until now, and completes the files."""
        stopped = bool(last_words)
        if stopped:
            self._channels.release()
        deadline = clock.monotonic_ns() + (_LAST_NS if stopped else _LAST_OF_BROKER_NS)
        for _ in range(2):  # once more if the file cannot be written or is gone: into another one
            try:
                if self._gave_up:
                    self._retry_at = 0
                    self._try_again(clock.monotonic_ns())
                self._write_rest(deadline)
                self._recording.close(last_words or "the broker is gone", stopped=stopped)
            except OSError as error:
                self._give_up(error)
            else:
                self._trouble = ""
                return

    def _write_rest(self, deadline: int) -> None:
        while self._unread() and clock.monotonic_ns() < deadline:
            self._recording.add(self._channels.receive(_LAST_LOOK_S))
            self._recording.step(clock.monotonic_ns())
        for channel, place in self._unread().items():
            self._note_unread(channel, place)

    def _unread(self) -> dict[str, Place | None]:
        return self._channels.unread(self._recording.places)

    def _note_unread(self, channel: str, published: Place | None) -> None:
        """Counts what was published before the end, and did not arrive in time."""
        epoch, number = self._recording.places[channel]
        is_known = published is not None and published.epoch == epoch
        count = published.number - number if published is not None and is_known else None
        loss = Loss(epoch, number, count, "the recording has ended")
        self._recording.add([Missed(channel, loss)])


def _reason(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
