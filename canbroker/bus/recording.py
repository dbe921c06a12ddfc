"""Recordings, from a program: the broker starts a recorder, which outlives the program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from canbroker.bus import discovery, starting
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import SharedContext
from canbroker.wire import control
from canbroker.wire.recordings import RecordingStatus

#: A recorder opens its channels, and completes its files.
_START_S: Final = 30.0
_STOP_S: Final = 30.0


@contextmanager
def recording(
    channels: str | Iterable[str],
    directory: str | Path,
    *,
    name: str | None = None,
    broker: str | None = None,
    **options: Any,
) -> Iterator[RecordingStatus]:
    """Records channels to files while the context lasts.

    A process of the broker records; what other programs send is recorded, too.

    :param channels: a channel or several, as the broker calls them; with ``interface="virtual"``,
        say, as that interface does.
    :param directory: of the files.
    :param name: of the recording, and of its files; ``None``: that of the first channel.
    :param broker: address; ``None``: this user's own, which is started if it does not run.
    :param options: ``format``, ``rotate_mb``, ``rotate_s``, ``keep_mb``, ``filters``, ``separate``,
        ``trigger``, ``before_s``, ``after_s``, ``database``, ``interface``, ``parameters``; as in
        the configuration.
    :yields: what the broker says of it.
    :raises CanError: the broker, an option or the directory is at fault.
    """
    names = [channels] if isinstance(channels, str) else list(channels)
    given = {"channels": names, "directory": str(Path(directory).absolute()), **options}
    name = name if name is not None else names[0]
    began = start_recording(name, given, broker)
    try:
        yield began
    finally:
        stop_recording(name, broker)


def start_recording(name: str, options: Mapping[str, Any], broker: str | None) -> RecordingStatus:
    """Begins a recording; its recorder is ready when this returns.

    :param options: as in a table ``[record.NAME]``; the directory is absolute.
    :raises CanError: the broker, an option or the directory is at fault.
    """
    runtime = Runtime.at(broker)
    params = control.StartRecording(name=name, options=dict(options))
    context = SharedContext()
    try:
        discovery.find_broker(context, runtime, autostart=starting.autostart_wanted())
        return discovery.ask(context, runtime, "record_start", params, RecordingStatus, _START_S)
    finally:
        context.close()


def stop_recording(name: str, broker: str | None) -> RecordingStatus:
    """Ends a recording; its files are complete when this returns.

    :raises CanError: there is no broker, or no such recording.
    """
    runtime = Runtime.at(broker)
    params = control.StopRecording(name=name)
    context = SharedContext()
    try:
        discovery.find_broker(context, runtime, autostart=False)
        return discovery.ask(context, runtime, "record_stop", params, RecordingStatus, _STOP_S)
    finally:
        context.close()
