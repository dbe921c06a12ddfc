"""``canbroker.replay``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from canbroker.client import Bus
from canbroker.logs.timing import EvenTime, RecordedTime
from canbroker.model.filters import CanFilters, validate
from canbroker.playback.player import Choice, Player, Stop
from canbroker.playback.report import Progress, ReplayReport
from canbroker.playback.route import Route, Target
from canbroker.playback.source import Log, open_log
from canbroker.playback.window import Moment, Window
from canbroker.system import clock


def replay(  # noqa: PLR0913 - what the command can, too
    path: str | Path,
    channel: Target = None,
    interface: str | None = None,
    *,
    speed: float = 1.0,
    gap: float | None = None,
    loop: int | None = 1,
    start: Moment | None = None,
    end: Moment | None = None,
    skip_gaps: float | None = None,
    can_filters: CanFilters = None,
    strict: bool = False,
    stop: threading.Event | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    broker: str | None = None,
    **parameters: Any,
) -> ReplayReport:
    """Sends the frames of a log in their time; returns when adapters have taken the last one.

    Frames are sent ahead, and the channel keeps them until they are due. The log is read as a
    stream. Where the recording clock steps back, timing starts anew. After an exception, Ctrl-C
    included, frames that no adapter has taken are taken back, and never sent.

    :param path: the log; its suffix says the format, and without a known one it is candump's.
    :param channel: where all frames go; or a dict from names in the log to channels, and other
        frames are not sent; ``None``: to the channels that are named as in the log.
    :param interface: as for :class:`Bus`, as are ``broker`` and ``parameters``; of each channel.
    :param speed: times as fast as recorded; 0 is as fast as possible.
    :param gap: seconds between frames, instead of the recorded times.
    :param loop: how often to play the log; ``None`` is for ever.
    :param start: begin there: seconds from the first frame, or a :class:`~datetime.datetime`
        (without a zone: local time).
    :param end: likewise; frames of this moment are sent, later ones are not.
    :param skip_gaps: seconds of the recording; a longer pause between frames lasts only this.
    :param can_filters: only frames that pass are sent; as for :class:`Bus`.
    :param strict: refuse a log with parts that are not frames, before anything is sent.
    :param stop: when another thread sets it, the replay ends at once.
    :param on_progress: is called about ten times a second.
    :raises CanInitializationError: a channel cannot be opened; or the file cannot be read, or has
        no frames.
    :raises CanOperationError: an adapter does not take a frame.
    :raises ValueError: names the argument that is not valid, or does not fit the log.
    """
    if loop is not None and loop < 1:
        raise ValueError(f"loop must be at least 1, or None, got {loop}")
    timing = timing_of(speed, gap, skip_gaps)
    choice = Choice(validate(can_filters), Window(start, end))
    route = Route(channel)

    def open_bus(name: str) -> Bus:
        return Bus(name, interface, broker=broker, **parameters)

    with open_log(path, strict=strict) as log:
        look_through(log, route, strict=strict, loops=loop)
        told = (lambda _: None) if on_progress is None else on_progress
        with Player(route, open_bus, timing, choice, Stop(stop), told) as player:
            player.play(log, loop)
    return player.report()


def timing_of(
    speed: float, gap: float | None = None, skip_gaps: float | None = None
) -> RecordedTime | EvenTime:
    """When frames are due; arguments as of :func:`replay`.

    :raises ValueError: names the argument that is not valid.
    """
    for name, value in {"speed": speed, "gap": gap, "skip_gaps": skip_gaps}.items():
        if value is not None and not 0 <= value < 1e9:  # NaN is not, either
            raise ValueError(f"{name} must be a number of 0 or above, got {value!r}")
    if gap is not None:
        return EvenTime(gap * clock.SECOND)
    longest_ns = None if skip_gaps is None else round(skip_gaps * clock.SECOND)
    return RecordedTime(speed, longest_ns)


def look_through(log: Log, route: Route, *, strict: bool, loops: int | None) -> None:
    """Finds what can be found before anything is sent.

    :raises ValueError: the log can be read once only, and ``loops`` is not 1; or an assigned
        interface is not in it.
    :raises CanInitializationError: a line is not a frame, and ``strict``; or no line is one.
    """
    if not log.seekable:
        if loops != 1:
            raise ValueError(f"{log.name} can be played once only")
        return
    if strict:
        log.check()
    if route.assigned:
        missing, logged = log.missing(set(route.assigned))
        if missing:
            has = ", ".join(logged) or "none"
            raise ValueError(f"{log.name} has no interface {min(missing)!r}; it has: {has}")
