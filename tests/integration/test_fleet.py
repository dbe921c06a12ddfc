"""``canbroker fleet status`` against the real server: what benches have said last, and when."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from canbroker.cli.fleet import fleet
from canbroker.errors import CanInitializationError, CanPermissionError
from canbroker.jetstream import subjects
from canbroker.jetstream.server import Server
from canbroker.jetstream.values import BenchState
from canbroker.view import fleet as view
from canbroker.wire.stream import StateEvent
from tests.support.commands import run
from tests.support.nats_benches import EPOCH, connected, make_streams
from tests.support.nats_servers import NatsServer
from tests.support.remote import free_port


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path) as server:
        yield server


def tell(url: str, states: dict[tuple[str, str, str], BenchState], also: bytes = b"") -> None:
    """Publishes states, each twice; the stream keeps the last."""

    async def publish() -> None:
        client = await connected(url)
        await make_streams(client)
        stream = client.jetstream()
        for name, told in states.items():
            for _ in range(2):
                await stream.publish(subjects.state(*name), told.body(), headers=told.headers())
        if also:
            await stream.publish("can.v1.lab.broken.body.state", also)
        await client.close()

    asyncio.run(publish())


def told(state: StateEvent, lost: int = 0, ahead_s: int = 0) -> BenchState:
    return BenchState(time.time_ns() + ahead_s * 10**9, EPOCH, state, lag_ms=12, lost=lost)


def asked(*arguments: str) -> Result:
    return CliRunner().invoke(fleet, ["status", *arguments])


FLEET = {
    ("lab", "bench-2", "body"): StateEvent(state="active", received_rate=8000.0, load=0.97),
    ("lab", "bench-1", "a b.c"): StateEvent(state="error", reason="unplugged"),
    ("lab", "bench-3", "body"): StateEvent(state="error", ended=True),
    ("yard", "bench-1", "body"): StateEvent(state="passive"),
}


def test_it_shows_all_channels_of_a_site(server: NatsServer) -> None:
    tell(server.url, {name: told(state, lost=7) for name, state in FLEET.items()})
    result = asked(server.url, "--site", "lab")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[-1] == ["3", "benches,", "3", "channels"]
    rows = [line for line in lines if line and line[0] == "lab"]
    assert rows[0][:6] == ["lab", "bench-1", "a", "b.c", "error", "0"]
    assert rows[1][:9] == ["lab", "bench-2", "body", "active", "8,000", "0", "97%", "12", "7"]
    assert rows[2][3] == "ended"
    assert "lab/bench-1/a b.c: unplugged" in result.stdout
    assert "yard" not in result.stdout
    assert "4 benches, 4 channels" in asked(server.url).stdout
    assert "1 benches, 1 channels" in asked(server.url, "--bench", "bench-2").stdout


def test_everything_is_in_its_json(server: NatsServer) -> None:
    tell(server.url, {name: told(state) for name, state in FLEET.items()}, also=b"no state")
    document = json.loads(asked(server.url, "--json").stdout)
    assert document["unreadable"] == 1
    channels = {
        (each["site"], each["bench"], each["channel"]): each for each in document["channels"]
    }
    assert list(channels) == sorted(FLEET)
    body = channels["lab", "bench-2", "body"]
    assert (body["status"], body["lag_ms"], body["lost"]) == ("active", 12, 0)
    assert (body["state"]["load"], body["epoch"]) == (0.97, EPOCH)
    assert 0 <= body["age_s"] < 30
    assert "1 messages are not states" in asked(server.url).stdout


def test_a_bench_that_is_silent_is_gone(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(server.url, {name: told(state) for name, state in FLEET.items()})
    monkeypatch.setattr(view, "GONE_S", 0.0)
    time.sleep(0.002)  # the server's clock has to show another time
    result = asked(server.url)
    assert result.stdout.splitlines()[-1] == "4 benches, 4 channels, 3 of them gone"
    words = {each["status"] for each in json.loads(asked(server.url, "--json").stdout)["channels"]}
    assert words == {"gone", "ended"}


def test_a_clock_that_is_wrong_is_noted_and_does_not_change_ages(server: NatsServer) -> None:
    state = StateEvent(state="active")
    tell(
        server.url,
        {
            ("lab", "early", "body"): told(state, ahead_s=-3600),
            ("lab", "late", "body"): told(state, ahead_s=3600),
        },
    )
    found = view.fleet(Server(url=server.url))
    assert all(each.age_s < 30 for each in found.channels)
    assert [round(each.clock_s / 60) for each in found.channels] == [-60, 60]
    shown = asked(server.url).stdout
    assert "lab/late/body: its clock is 3,600 s ahead of the server's" in shown
    assert "lab/early/body: its clock is 3,600 s behind the server's" in shown


def test_a_site_without_benches_is_empty(server: NatsServer) -> None:
    tell(server.url, {name: told(state) for name, state in FLEET.items()})
    assert asked(server.url, "--site", "nowhere").stdout == "0 benches, 0 channels\n"
    assert json.loads(asked(server.url, "--site", "nowhere", "--json").stdout)["channels"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument 'URL…'"),
        (["nats.lab"], "url: must be nats://HOST:PORT or tls://HOST:PORT, got 'nats.lab'"),
        (["nats://x:0"], "url: must be"),
        (["nats://x", "--site", ""], "a name has 1 to 128 printable characters"),
        (["nats://x", "--bench", "a\nb"], "a name has 1 to 128 printable characters"),
        (["nats://x", "--cert", "me.pem"], "tls: cert and key are only used together"),
    ],
)
def test_a_wrong_command_line_is_said(arguments: list[str], said: str) -> None:
    result = asked(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.split())


def test_a_server_that_cannot_be_used_is_said(server: NatsServer, tmp_path: Path) -> None:
    done = run("fleet", "status", f"nats://ann:secret@127.0.0.1:{free_port()}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("canbroker: fleet: NATS at nats://127.0.0.1:")
    assert "secret" not in done.stderr
    for arguments, said in [
        (["--credentials", str(tmp_path / "none")], "credentials: "),
        (["--ca", str(tmp_path / "none")], "tls.ca: "),
        ([], "has no stream with can.v1.*.*.*.state"),
    ]:
        result = asked(server.url, *arguments)
        assert isinstance(result.exception, CanInitializationError)
        assert said in str(result.exception)


def test_a_permission_that_is_missing_is_named(tmp_path: Path) -> None:
    users: Any = """
authorization { users: [
  {user: admin, password: secret},
  {user: ann, password: secret, permissions: {
    publish: ["$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.CAN_VALUES"], subscribe: "_INBOX.>"}}
] }
"""
    with NatsServer(tmp_path, users) as server:
        tell(server.url.replace("//", "//admin:secret@"), {})
        result = asked(server.url.replace("//", "//ann:secret@"), "--site", "lab")
        assert isinstance(result.exception, CanPermissionError)
        assert "to read can.v1.lab.*.*.state" in str(result.exception)
