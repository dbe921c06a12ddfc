"""A broker's status as metrics for Prometheus, in its text format.

Labels are names of channels, recordings and states, of which there are few: neither clients nor
identifiers, of which anybody can make any number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

from canbroker.system import clock
from canbroker.wire.recordings import RecordingStatus
from canbroker.wire.status import BrokerStatus, ChannelStatus, GatewayStatus, NatsStatus
from canbroker.wire.stream import StateEvent
from canbroker.wire.tasks import TaskStatus

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: States of a bus; ``down``: its process does not run.
STATES: Final = ("active", "passive", "error", "down")


class Family(NamedTuple):
    """What Prometheus is told of a metric: its kind, and a sentence."""

    kind: str
    text: str


#: Every metric, in the order in which they are written. A counter's samples end in ``_total``.
FAMILIES: Final[Mapping[str, Family]] = {
    "canbroker_info": Family("gauge", "The version of the broker; always 1."),
    "canbroker_uptime_seconds": Family("gauge", "Seconds since the broker started."),
    "canbroker_requests_refused": Family(
        "counter", "Requests that the broker has refused because they were not valid."
    ),
    "canbroker_channels": Family("gauge", "Channels of the broker."),
    "canbroker_tasks": Family("gauge", "Periodic tasks on a channel."),
    "canbroker_clients": Family("gauge", "Clients of a channel."),
    "canbroker_bus_state": Family("gauge", "1 for the state in which a channel is."),
    "canbroker_bus_load_ratio": Family(
        "gauge", "Share of the bus's time that frames took, without stuff bits, 0 to 1."
    ),
    "canbroker_controller_errors": Family(
        "gauge", "The controller's error counters, where the adapter tells them."
    ),
    "canbroker_frames": Family("counter", "Frames since the channel's process started."),
    "canbroker_frames_lost": Family(
        "counter",
        "Frames lost: adapter (it has lost received frames), transmit (not sent), "
        "client (a client was too slow for the channel's memory).",
    ),
    "canbroker_transmit_queue_frames": Family("gauge", "Frames that wait to be sent."),
    "canbroker_adapter_events": Family(
        "counter", "Errors of the adapter, its line or its driver, by their kind."
    ),
    "canbroker_error_frames_held": Family(
        "counter", "Error frames that were only counted, as there were too many."
    ),
    "canbroker_restarts": Family("counter", "Restarts of a channel's process."),
    "canbroker_interruptions": Family("counter", "Times that a channel's adapter was away."),
    "canbroker_task_lateness_seconds": Family(
        "summary", "How late frames of periodic tasks were: that of a channel's worst task."
    ),
    "canbroker_recording_up": Family("gauge", "Whether a recording records without trouble."),
    "canbroker_recording_frames": Family("counter", "Frames that a recording has written."),
    "canbroker_recording_bytes": Family("counter", "Bytes that a recording has written."),
    "canbroker_recording_lost": Family("counter", "Frames that are in no file of a recording."),
    "canbroker_gateway_sessions": Family("gauge", "Open sockets of clients of other hosts."),
    "canbroker_gateway_refusals": Family(
        "counter", "What users of other hosts were denied, by kind."
    ),
    "canbroker_web_pages": Family("gauge", "Open web pages."),
    "canbroker_web_refusals": Family("counter", "What the web page has refused, by kind."),
    "canbroker_nats_connected": Family("gauge", "1 if the bridge is connected to NATS."),
    "canbroker_nats_frames": Family("counter", "Frames that NATS has acknowledged."),
    "canbroker_nats_unacknowledged": Family("gauge", "Frames that NATS has not acknowledged yet."),
    "canbroker_nats_lag_seconds": Family("gauge", "For how long the oldest of them waits."),
    "canbroker_nats_lost": Family("counter", "Frames that are counted as lost in NATS."),
    "canbroker_nats_gaps": Family("counter", "Gaps in NATS whose length is not known."),
}


class Sample(NamedTuple):
    """A value of one of :data:`FAMILIES`."""

    family: str
    labels: dict[str, str]
    value: float


def render(status: BrokerStatus, tasks: Sequence[TaskStatus] | None) -> bytes:
    """The metrics of a broker, as :data:`CONTENT_TYPE` says.

    :param tasks: its periodic tasks; ``None``: not known.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(_samples(status, tasks)))
    return generate_latest(registry)


class _Once(Collector):
    """Gives samples to a registry."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterable[Metric]:
        metrics = {
            name: Metric(name, family.text, family.kind) for name, family in FAMILIES.items()
        }
        for name, labels, value in self._samples:
            suffix = "_total" if FAMILIES[name].kind == "counter" else ""
            metrics[name].add_sample(name + suffix, labels, value)
        return [metric for metric in metrics.values() if metric.samples]


def _samples(status: BrokerStatus, tasks: Sequence[TaskStatus] | None) -> Iterator[Sample]:
    yield Sample("canbroker_info", {"version": status.version}, 1)
    yield Sample("canbroker_uptime_seconds", {}, status.uptime_s)
    yield Sample("canbroker_requests_refused", {}, status.refused)
    yield Sample("canbroker_channels", {}, len(status.channels))
    for channel in status.channels:
        yield from _of_channel(channel)
        if tasks is not None:
            yield from _of_tasks(channel.name, [t for t in tasks if t.channel == channel.name])
    for recording in status.recordings:
        yield from _of_recording(recording)
    if status.gateway is not None:
        yield from _of_gateway(status.gateway)
    if status.web is not None:
        yield Sample("canbroker_web_pages", {}, status.web.pages)
        for kind, count in status.web.refusals.items():
            yield Sample("canbroker_web_refusals", {"kind": kind}, count)
    if status.nats is not None:
        yield from _of_bridge(status.nats)


def _of_bridge(nats: NatsStatus) -> Iterator[Sample]:
    yield Sample("canbroker_nats_connected", {}, bool(nats.server))
    yield Sample("canbroker_nats_frames", {}, nats.frames)
    yield Sample("canbroker_nats_unacknowledged", {}, nats.unacknowledged)
    yield Sample("canbroker_nats_lag_seconds", {}, nats.lag_s)
    yield Sample("canbroker_nats_lost", {}, nats.lost)
    yield Sample("canbroker_nats_gaps", {}, nats.gaps)


def _of_channel(channel: ChannelStatus) -> Iterator[Sample]:
    labels = {"channel": channel.name}
    state = channel.state if channel.phase == "running" else None
    word = "down" if state is None else state.state
    for known in STATES:
        yield Sample("canbroker_bus_state", labels | {"state": known}, known == word)
    yield Sample("canbroker_clients", labels, len(channel.clients))
    yield Sample("canbroker_restarts", labels, channel.restarts)
    if state is not None:
        yield from _of_state(labels, state)


def _of_state(labels: dict[str, str], state: StateEvent) -> Iterator[Sample]:
    if state.load is not None:
        yield Sample("canbroker_bus_load_ratio", labels, state.load)
    if state.error_counters is not None:
        errors = state.error_counters
        for direction, number in (("transmit", errors.transmit), ("receive", errors.receive)):
            counted = labels | {"direction": direction}
            yield Sample("canbroker_controller_errors", counted, number)
    directions = {"received": state.received, "transmitted": state.transmitted}
    for direction, count in directions.items():
        yield Sample("canbroker_frames", labels | {"direction": direction}, count)
    losses = {"adapter": state.dropped, "transmit": state.failed, "client": state.gone}
    for reason, count in losses.items():
        yield Sample("canbroker_frames_lost", labels | {"reason": reason}, count)
    yield Sample("canbroker_transmit_queue_frames", labels, state.queued)
    for kind, count in state.counters.items():
        yield Sample("canbroker_adapter_events", labels | {"kind": kind}, count)
    held = sum(state.held_errors.values())
    yield Sample("canbroker_error_frames_held", labels, held)
    yield Sample("canbroker_interruptions", labels, state.interruptions)


def _of_tasks(channel: str, tasks: Sequence[TaskStatus]) -> Iterator[Sample]:
    """The number of a channel's tasks, and the largest lateness of each quantile that is known."""
    yield Sample("canbroker_tasks", {"channel": channel}, len(tasks))
    quantiles = {
        "0.5": [task.late_p50_ns for task in tasks],
        "0.99": [task.late_p99_ns for task in tasks],
        "1": [task.late_max_ns for task in tasks],
    }
    for quantile, times in quantiles.items():
        known = [time_ns for time_ns in times if time_ns is not None]
        if known:
            labels = {"channel": channel, "quantile": quantile}
            yield Sample("canbroker_task_lateness_seconds", labels, max(known) / clock.SECOND)


def _of_recording(recording: RecordingStatus) -> Iterator[Sample]:
    labels = {"recording": recording.name}
    works = recording.phase == "running" and not recording.trouble
    yield Sample("canbroker_recording_up", labels, works)
    yield Sample("canbroker_recording_frames", labels, recording.frames)
    yield Sample("canbroker_recording_bytes", labels, recording.bytes)
    yield Sample("canbroker_recording_lost", labels, recording.lost)


def _of_gateway(gateway: GatewayStatus) -> Iterator[Sample]:
    yield Sample("canbroker_gateway_sessions", {}, gateway.sessions)
    kinds: dict[str, int] = {}
    for refusals in gateway.refusals.values():
        for kind, count in refusals.items():
            kinds[kind] = kinds.get(kind, 0) + count
    for kind, count in kinds.items():
        yield Sample("canbroker_gateway_refusals", {"kind": kind}, count)
