"""The status of a broker, for people."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from canbroker.model.wording import printable
from canbroker.wire.recordings import RecordingStatus
from canbroker.wire.status import (
    BrokerStatus,
    ChannelStatus,
    GatewayStatus,
    LeaseStatus,
    NatsStatus,
    WebStatus,
)

#: Nobody wants a pipe's lines broken where a terminal of 80 columns would.
_PIPE_COLUMNS: Final = 200

#: Kinds of error frames that a line names.
_CAUSES: Final = 3

_STYLES: Final = {
    "active": "green",
    "passive": "cyan",
    "running": "green",
    "starting": "yellow",
    "stopping": "yellow",
    "backing off": "red",
    "error": "red",
    "failed": "bold red",
    "trouble": "bold red",
}


class ProcessUse(msgspec.Struct, kw_only=True, frozen=True):
    """What a process uses; ``descriptors`` is ``None`` where the system has no such number."""

    name: str
    pid: int
    cpu_percent: float
    memory_bytes: int
    descriptors: int | None


def show(status: BrokerStatus, processes: Sequence[ProcessUse]) -> None:
    """Prints the status on standard output."""
    console = terminal()
    console.print(_broker_line(status), soft_wrap=True)
    if status.gateway is not None:
        console.print(_gateway_line(status.gateway), soft_wrap=True)
    if status.web is not None:
        console.print(_web_line(status.web), soft_wrap=True)
    if status.nats is not None:
        console.print(_nats_line(status.nats), soft_wrap=True)
    if not status.channels:
        console.print("no channels: clients open them, or a configuration (canbroker serve -c)")
    else:
        console.print(_channels(status.channels))
        for channel in status.channels:
            for note in _notes(channel):
                console.print(note, soft_wrap=True)
    if any(channel.clients for channel in status.channels):
        console.print(_clients(status.channels))
    if status.pools or status.leases:
        console.print(_leases(status))
    if status.recordings:
        console.print(recordings_table(status.recordings))
        for note in recording_notes(status.recordings):
            console.print(note, soft_wrap=True)
    if processes:  # those of another host are not seen
        console.print(_processes(processes))


def terminal() -> Console:
    """Standard output; a pipe is as wide as a table needs."""
    width = shutil.get_terminal_size((_PIPE_COLUMNS, 0)).columns
    return Console(width=None if sys.stdout.isatty() else width, highlight=False)


def _broker_line(status: BrokerStatus) -> Text:
    started = "by a client" if status.autostarted else "by hand"
    line = Text.assemble(
        ("broker", "bold"),
        printable(f" {status.address}  version {status.version}, "),
        f"pid {status.pid}, started {started}, up {duration(status.uptime_s)}",
    )
    if status.refused:
        line.append(f", {status.refused} requests refused", "red")
    if status.waiting:
        line.append(f", {status.waiting} requests wait")
    for what, count in status.turned_away.items():
        line.append(f", no room for {count} {what}{'s' if count > 1 else ''}", "red")
    return line


def _gateway_line(gateway: GatewayStatus) -> Text:
    """Where remote clients connect, the connected users, and the refused requests."""
    line = Text.assemble(("remote", "bold"), printable(f" {gateway.listen}  "))
    line.append(gateway.phase, _STYLES.get(gateway.phase, ""))
    if gateway.phase == "running":
        users = printable(", ".join(gateway.users))
        clients = f"{gateway.sessions} sockets of {users}" if users else "no clients"
        line.append(f", {clients}, key {gateway.key or 'none: unencrypted'}")
    if gateway.refused:
        line.append(f", {gateway.refused} connections ended", "red")
    for user, kinds in gateway.refusals.items():
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        line.append(printable(f"; refused to {user}: {counts}"), "red")
    if gateway.turned_away:
        line.append(f", no room for {gateway.turned_away} connections", "red")
    for trouble in filter(None, (gateway.reason, gateway.fault)):
        line.append(printable(f"; {trouble}"), "red")
    return line


def _web_line(web: WebStatus) -> Text:
    """Where the page is, how many are open, and the refused requests."""
    line = Text.assemble(("web page", "bold"), printable(f" {web.url or web.listen}  "))
    line.append(web.phase, _STYLES.get(web.phase, ""))
    if web.phase == "running":
        line.append(f", {web.pages} open")
    if web.refusals:
        counts = ", ".join(f"{count} {kind}" for kind, count in web.refusals.items())
        line.append(printable(f"; refused: {counts}"), "red")
    for trouble in filter(None, (web.reason, web.fault)):
        line.append(printable(f"; {trouble}"), "red")
    return line


def _nats_line(nats: NatsStatus) -> Text:
    """Where the bridge publishes, how far it is, and what is wrong."""
    line = Text.assemble(("NATS", "bold"), printable(f" {nats.server or nats.url}  "))
    line.append(nats.phase, _STYLES.get(nats.phase, ""))
    if nats.phase == "running":
        line.append(
            " and connected" if nats.server else ", not connected", "" if nats.server else "red"
        )
        line.append(f", {nats.frames} frames acknowledged")
        if nats.unacknowledged:
            line.append(f", {nats.unacknowledged} not yet, for {nats.lag_s:.1f} s")
    if nats.lost or nats.gaps:
        line.append(f"; {nats.lost} lost, {nats.gaps} gaps of unknown length", "red")
    for trouble in filter(None, (nats.reason, nats.trouble)):
        line.append(printable(f"; {trouble}"), "red")
    return line


def cell(text: str, style: str = "") -> Text:
    """A text of somebody else's, made harmless to tables and terminals."""
    return Text(printable(text), style=style)


def table(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table in the style of all; columns ``right`` are numbers."""
    table = Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in columns:
        number = column in right
        table.add_column(
            column, justify="right" if number else "left", no_wrap=number, overflow="fold"
        )
    return table


def _channels(channels: Sequence[ChannelStatus]) -> Table:
    numbers = ("bitrate", "rx/s", "tx/s", "load", "clients", "drops", "restarts")
    made = table("channels", "name", "interface", "state", *numbers, right=numbers)
    for channel in channels:
        state = channel.state
        word, _ = condition(channel)
        rates = ("-",) * 3
        if state is not None:
            load = "-" if state.load is None else f"{state.load:.0%}"
            rates = (f"{state.received_rate:,.0f}", f"{state.transmitted_rate:,.0f}", load)
        made.add_row(
            cell(channel.name),
            cell(adapter(channel)),
            cell(word, _STYLES.get(word, "")),
            bitrate(channel),
            *rates,
            str(len(channel.clients)),
            alarm(state.dropped if state else 0),
            alarm(channel.restarts),
        )
    return made


def adapter(channel: ChannelStatus) -> str:
    """The interface, and its channel unless the name says it already."""
    device = str(channel.parameters.get("channel", ""))
    if channel.name == f"{channel.interface}.{device}":
        return channel.interface
    return f"{channel.interface} {device}"


def condition(channel: ChannelStatus) -> tuple[str, str]:
    """What a person has to know, and why: of the bus if the actor runs, else of the actor."""
    if channel.phase == "running" and channel.state is not None:
        return channel.state.state, channel.state.reason
    return channel.phase, channel.reason


def _notes(channel: ChannelStatus) -> list[Text]:
    """What there is to say of a channel beside its line in the table."""
    notes = []
    word, reason = condition(channel)
    if reason:
        notes.append((reason, _STYLES.get(word, "")))
    if channel.state is not None and (holder := channel.state.exclusive) is not None:
        notes.append((f"exclusive to client {holder.client_id} ({holder.name})", ""))
    if channel.state is not None and channel.state.held_errors:
        notes.append((_storm(channel.state.held_errors), "red"))
    if channel.record:
        notes.append((f"recorded in {channel.record}", ""))
    return [cell(f"{channel.name}: {note}", style) for note, style in notes]


def _storm(held: Mapping[str, int]) -> str:
    """How many error frames were not passed on, and what most of them say."""
    causes = sorted(held, key=lambda cause: held[cause], reverse=True)
    shown = ", ".join(causes[:_CAUSES]) + (", …" if len(causes) > _CAUSES else "")
    return f"{sum(held.values()):,} error frames counted, not passed on: {shown}"


def _clients(channels: Sequence[ChannelStatus]) -> Table:
    numbers = ("pid", "replayed", "gone")
    columns = ("id", "pid", "channel", "replayed", "gone", "program", "filters")
    made = table("clients", *columns, right=numbers)
    for channel in channels:
        for client in channel.clients:
            made.add_row(
                cell(client.client_id),
                str(client.pid or "?"),
                cell(channel.name),
                str(client.replayed),
                alarm(client.gone),
                cell(program_name(client.program)),
                cell(client.filters or "all"),
            )
    return made


def recordings_table(recordings: Sequence[RecordingStatus]) -> Table:
    """A line for each recording."""
    numbers = ("files", "frames", "MB", "lost")
    made = table("recordings", "name", "channels", "state", *numbers, "file", right=numbers)
    for each in recordings:
        word = "trouble" if each.trouble and each.phase == "running" else each.phase
        made.add_row(
            cell(each.name),
            cell(" ".join(each.channels)),
            cell(word, _STYLES.get(word, "")),
            f"{each.files:,}",
            f"{each.frames:,}",
            f"{each.bytes / 1e6:,.1f}",
            alarm(each.lost),
            cell(each.file),
        )
    return made


def recording_notes(recordings: Sequence[RecordingStatus]) -> list[Text]:
    """What keeps recordings from recording, and frames that their formats leave out."""
    notes = [
        cell(f"{each.name}: {each.trouble or each.reason}", "red")
        for each in recordings
        if each.trouble or each.reason
    ]
    notes += [
        cell(f"{each.name}: {unfit_frames(each)}", "yellow") for each in recordings if each.unfit
    ]
    return notes


def unfit_frames(recording: RecordingStatus) -> str:
    """What to say of frames that the format of a recording cannot hold."""
    return f"{recording.unfit:,} frames are in no file, as {recording.format} cannot hold them"


def _leases(status: BrokerStatus) -> Table:
    """One line for each channel of each pool, and for each waiting process; then what is not in a
    pool any more."""
    made = table("leases", "pool", "channel", "pid", "for", "program", right=("pid", "for"))
    held = {lease.channel: lease for lease in status.leases if lease.channel is not None}
    for pool, channels in status.pools.items():
        for channel in channels:
            lease = held.pop(channel, None)
            if lease is None:
                made.add_row(cell(pool), cell(channel), "", "", Text("free", style="green"))
            else:
                _add_lease(made, lease, channel)
        for lease in status.leases:
            if lease.channel is None and lease.pool == pool:
                _add_lease(made, lease, "waits")
    for channel, lease in held.items():
        _add_lease(made, lease, channel)
    return made


def _add_lease(made: Table, lease: LeaseStatus, channel: str) -> None:
    made.add_row(
        cell(lease.pool),
        cell(channel),
        str(lease.pid or "?"),
        duration(lease.since_s),
        cell(program_name(lease.program)),
    )


def _processes(processes: Sequence[ProcessUse]) -> Table:
    numbers = ("pid", "cpu %", "memory MB", "descriptors")
    made = table("processes", "name", *numbers, right=numbers)
    for use in processes:
        made.add_row(
            cell(use.name),
            str(use.pid),
            f"{use.cpu_percent:.1f}",
            f"{use.memory_bytes / 1e6:.1f}",
            "-" if use.descriptors is None else str(use.descriptors),
        )
    return made


def alarm(count: int) -> Text:
    """A count that should be 0."""
    return Text(str(count), style="bold red" if count else "")


def bitrate(channel: ChannelStatus) -> str:
    """The channel's bit rates, ``500k/2M``; ``-`` if it has none, or nobody knows."""
    state, given = channel.state, channel.parameters
    rates = (
        (state.bitrate, state.data_bitrate)
        if state is not None
        else (given.get("bitrate"), given.get("data_bitrate"))
    )
    return "/".join(map(_short, filter(None, rates))) or "-"


def program_name(command: str) -> str:
    """A command line without the directories of its program."""
    try:
        words = shlex.split(command)
    except ValueError:  # the client cut it off inside quotes
        return command
    return " ".join([Path(words[0]).name, *words[1:]]) if words else command


def _short(rate: int) -> str:
    return f"{rate / 1e6:g}M" if rate >= 1_000_000 else f"{rate / 1e3:g}k"


def duration(seconds: float) -> str:
    """Seconds in the two units that matter: ``3 h 12 min``."""
    whole = int(seconds)
    for size, unit, small, small_unit in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small} {small_unit}"
    return f"{whole} s"
