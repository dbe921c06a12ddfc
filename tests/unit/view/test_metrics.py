"""Metrics for Prometheus: every one is written, and promtool accepts them."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

from canbroker.model.error_counters import ErrorCounters
from canbroker.wire.recordings import RecordingStatus
from canbroker.wire.status import (
    BrokerStatus,
    ChannelStatus,
    ClientStatus,
    GatewayStatus,
    NatsStatus,
    SchedulerStatus,
    WebStatus,
)
from canbroker.wire.stream import StateEvent
from canbroker.wire.tasks import TaskStatus

parser: Any = pytest.importorskip("prometheus_client.parser", reason="needs the extra metrics")
from canbroker.view import metrics  # noqa: E402 - needs the extra

STATE = StateEvent(
    state="error",
    load=0.25,
    error_counters=ErrorCounters(96, 8),
    received=10,
    transmitted=20,
    failed=3,
    dropped=4,
    gone=5,
    queued=6,
    interruptions=2,
    counters={"no_ack": 7},
    held_errors={"bus-off": 8, "stuff": 1},
)


def channel(name: str, state: StateEvent | None = STATE, phase: str = "running") -> ChannelStatus:
    return ChannelStatus(
        name=name,
        interface="virtual",
        parameters={},
        configured=True,
        phase=phase,
        reason="",
        pid=1,
        restarts=9,
        stream="",
        transmit="",
        control="",
        state=state,
        clients=[ClientStatus(client_id="a-client", pid=4711, program="secret-program")],
    )


def task(
    name: str, p50_ns: int | None = None, p99_ns: int | None = None, max_ns: int | None = None
) -> TaskStatus:
    return TaskStatus(
        client_id="a-client",
        task=1,
        channel=name,
        arbitration_id=0x777,
        extended=False,
        messages=1,
        period_ns=10,
        mode="scheduler",
        sent=1,
        skipped=0,
        failed=0,
        late_p50_ns=p50_ns,
        late_p99_ns=p99_ns,
        late_max_ns=max_ns,
    )


def status(*channels: ChannelStatus) -> BrokerStatus:
    return BrokerStatus(
        version="1.2",
        pid=1,
        address="ipc:///run/broker",
        autostarted=False,
        uptime_s=12.5,
        refused=3,
        channels=list(channels),
        scheduler=SchedulerStatus(phase="stopped", reason="", pid=None, restarts=0, control=""),
        gateway=GatewayStatus(
            phase="running",
            reason="",
            pid=1,
            restarts=0,
            listen="tcp://*:5655",
            sessions=4,
            users=["anna"],
            refusals={"anna": {"send": 2}, "bert": {"send": 3, "connect": 1}},
        ),
        web=WebStatus(
            phase="running",
            reason="",
            pid=1,
            restarts=0,
            listen="127.0.0.1:8080",
            pages=2,
            refusals={"host": 3},
        ),
        nats=NatsStatus(
            phase="running",
            reason="",
            pid=1,
            restarts=0,
            url="nats://site",
            server="site:4222",
            frames=1000,
            unacknowledged=7,
            lag_s=0.5,
            lost=3,
            gaps=1,
        ),
        recordings=[
            RecordingStatus(
                name="drive",
                channels=["can0"],
                directory="/records",
                format="candump",
                configured=True,
                phase="running",
                reason="",
                pid=1,
                restarts=0,
                frames=100,
                bytes=2000,
                lost=1,
                trouble="the disk is full",
            )
        ],
    )


def full() -> bytes:
    tasks = [
        task("can0", 1000, 5_000_000),
        task("can1"),
        task("can0", 3000, 4_000_000, 7_000_000),
    ]
    return metrics.render(status(channel("can0"), channel("can1", None, "failed")), tasks)


def values(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(text: bytes, name: str, **labels: str) -> float | None:
    return values(text).get((name, frozenset(labels.items())))


def test_every_metric_is_written_with_its_kind() -> None:
    families = list(parser.text_string_to_metric_families(full().decode()))
    assert {family.name: family.type for family in families} == {
        name: family.kind for name, family in metrics.FAMILIES.items()
    }


def test_values_are_those_of_the_status() -> None:
    text = full()
    assert value(text, "canbroker_frames_total", channel="can0", direction="received") == 10
    assert value(text, "canbroker_frames_total", channel="can0", direction="transmitted") == 20
    for reason, count in {"transmit": 3, "adapter": 4, "client": 5}.items():
        assert value(text, "canbroker_frames_lost_total", channel="can0", reason=reason) == count
    assert value(text, "canbroker_bus_load_ratio", channel="can0") == 0.25
    for direction, number in {"transmit": 96, "receive": 8}.items():
        labels = {"channel": "can0", "direction": direction}
        assert value(text, "canbroker_controller_errors", **labels) == number
    assert value(text, "canbroker_adapter_events_total", channel="can0", kind="no_ack") == 7
    assert value(text, "canbroker_error_frames_held_total", channel="can0") == 9
    assert value(text, "canbroker_restarts_total", channel="can1") == 9
    assert value(text, "canbroker_clients", channel="can0") == 1
    assert value(text, "canbroker_gateway_refusals_total", kind="send") == 5
    assert value(text, "canbroker_nats_connected") == 1
    assert value(text, "canbroker_nats_frames_total") == 1000
    assert value(text, "canbroker_nats_lag_seconds") == 0.5
    assert value(text, "canbroker_web_pages") == 2
    assert value(text, "canbroker_web_refusals_total", kind="host") == 3
    assert value(text, "canbroker_recording_up", recording="drive") == 0
    assert value(text, "canbroker_info", version="1.2") == 1


@pytest.mark.parametrize(("name", "word"), [("can0", "error"), ("can1", "down")])
def test_a_channel_is_in_one_state(name: str, word: str) -> None:
    text = full()
    states = {
        state: value(text, "canbroker_bus_state", channel=name, state=state)
        for state in metrics.STATES
    }
    assert states == {state: float(state == word) for state in metrics.STATES}


def test_the_lateness_is_that_of_the_worst_task() -> None:
    text = full()
    late = {
        quantile: value(text, "canbroker_task_lateness_seconds", channel="can0", quantile=quantile)
        for quantile in ("0.5", "0.99", "1")
    }
    assert late == {"0.5": 3e-6, "0.99": 5e-3, "1": 7e-3}
    assert value(text, "canbroker_tasks", channel="can0") == 2
    assert value(text, "canbroker_task_lateness_seconds", channel="can1", quantile="1") is None


def test_tasks_that_are_not_known_are_not_0() -> None:
    text = metrics.render(status(channel("can0")), None)
    assert value(text, "canbroker_tasks", channel="can0") is None


def test_neither_clients_nor_identifiers_are_labels() -> None:
    text = full().decode()
    for secret in ("a-client", "4711", "secret-program", "anna", "777", "1911"):
        assert secret not in text


def test_names_cannot_make_lines_of_their_own() -> None:
    name = 'x"} 1\nevil_total 5\n\\'
    text = metrics.render(status(channel(name)), [])
    assert value(text, "canbroker_clients", channel=name) == 1
    assert not any(line.startswith("evil") for line in text.decode().splitlines())


def promtool(text: bytes) -> subprocess.CompletedProcess[bytes]:
    """What Prometheus' own tool says of metrics."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    return subprocess.run(
        [program, "check", "metrics"], input=text, capture_output=True, check=False
    )


def test_promtool_accepts_them() -> None:
    checked = promtool(full())
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_promtool_would_see_a_wrong_kind() -> None:
    name = b"# TYPE canbroker_task_lateness_seconds "
    checked = promtool(full().replace(name + b"summary", name + b"gauge"))
    assert checked.returncode != 0
    assert b"quantile" in checked.stderr
