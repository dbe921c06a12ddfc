"""What consumers of NATS are told when the server, the account or a parameter is at fault."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from canbroker.errors import CanInitializationError, CanPermissionError
from canbroker.integrations.nats import Batch, Position, batches, to_arrow
from tests.support.nats_benches import NatsBench, connected, make_streams
from tests.support.nats_servers import NatsServer, certificates
from tests.support.remote import free_port

#: What a consumer of one bench needs, as docs/guides/pipelines.md has it.
ALLOWED = [
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.INFO.CAN_FRAMES",
    "$JS.API.CONSUMER.CREATE.CAN_FRAMES.*.can.v1.lab.bench-7.>",
    "$JS.API.CONSUMER.MSG.NEXT.CAN_FRAMES.*",
    "$JS.API.CONSUMER.DELETE.CAN_FRAMES.*",
]


def users(allowed: list[str], subscribe: str = "_INBOX.>") -> str:
    """The configuration with an administrator, and ``ann``, who may publish only what is named."""
    listed = ", ".join(f'"{subject}"' for subject in allowed)
    ann = f'publish: [{listed}], subscribe: "{subscribe}"'
    return f"""
authorization {{ users: [
  {{user: admin, password: secret}},
  {{user: ann, password: secret, permissions: {{{ann}}}}}
] }}
"""


def url_of(server: NatsServer, user: str = "ann") -> str:
    return server.url.replace("//", f"//{user}:secret@")


def fill(url: str, bench: str = "bench-7") -> None:
    async def run() -> None:
        client = await connected(url)
        await make_streams(client)
        publisher = NatsBench(client, "lab", bench)
        await publisher.publish("body")
        await publisher.flush()
        await client.close()

    asyncio.run(run())


def refused(*urls: str, **wish: Any) -> str:
    """The error of a consumer that cannot begin."""
    with pytest.raises(CanInitializationError) as caught, batches(*urls, **wish) as stream:
        stream.take(20)
    return str(caught.value)


def first(url: str, **wish: Any) -> Batch | None:
    with batches(url, **wish) as stream:
        return stream.take(20)


# ----------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"url": "http://x"}, "url: must be nats://HOST:PORT"),
        ({"url": []}, "no server"),
        ({"url": "nats://x", "site": ""}, "a name has 1 to 128"),
        ({"url": "nats://x", "bench": 7}, "bench must be a name, several, or None"),
        ({"url": "nats://x", "channel": []}, "channel must be a name, several, or None"),
        ({"url": "nats://x", "channel": ["a", 1]}, "channel must be a name, several, or None"),
        ({"url": "nats://x", "bench": map(str, range(2000))}, "2000 subjects; a consumer has"),
        ({"url": "nats://x", "after": -1}, "after must be a position or a sequence"),
        ({"url": "nats://x", "after": True}, "after must be a position or a sequence"),
        ({"url": "nats://x", "after": 1.5}, "after must be a position or a sequence"),
        ({"url": "nats://x", "after": "{}"}, "'{}' is not a position"),
        ({"url": "nats://x", "since": -1}, "since must be seconds since 1970"),
        ({"url": "nats://x", "since": float("nan")}, "since must be seconds since 1970"),
        ({"url": "nats://x", "since": "yesterday"}, "since must be seconds since 1970"),
        ({"url": "nats://x", "since": 1, "after": 1}, "two beginnings"),
        ({"url": "nats://x", "can_filters": [{}]}, "can_filters[0]"),
        ({"url": "nats://x", "tls": {"cert": "x"}}, "cert and key are only used together"),
        ({"url": "nats://x", "tls": {"cat": "x"}}, "tls: Object contains unknown field `cat`"),
    ],
)
def test_a_wrong_parameter_is_named_before_anything_is_asked(
    wish: dict[str, Any], said: str
) -> None:
    with pytest.raises(CanInitializationError) as caught:
        batches(**wish)
    assert said in str(caught.value)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert "pip install 'canbroker[nats]'" in refused("nats://127.0.0.1:4")
    with pytest.raises(CanInitializationError, match=r"canbroker\[parquet\]"):
        to_arrow([])


# --------------------------------------------------------------------------------------- server


def test_nobody_listens() -> None:
    url = f"nats://ann:secret@127.0.0.1:{free_port()}"
    said = refused(url)
    assert "Connect" in said
    assert "secret" not in said


def test_it_has_no_stream_with_frames(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        assert "has no stream with can.v1.lab.*.*.rx" in refused(server.url, site="lab")
        assert "no stream 'OTHER'" in refused(server.url, stream="OTHER")


def test_it_has_several_streams_with_frames(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        fill(server.url)

        async def divide() -> None:
            client = await connected(server.url)
            stream = client.jetstream()
            config = (await stream.stream_info("CAN_FRAMES")).config
            config.subjects = ["can.v1.lab.*.*.rx"]
            await stream.update_stream(config)
            await stream.add_stream(name="B", subjects=["can.v1.other.*.*.rx"])
            await client.close()

        asyncio.run(divide())
        said = refused(server.url, after=0)
        assert "several streams" in said
        assert "CAN_FRAMES" in said
        assert first(server.url, after=0, site="lab") is not None
        assert first(server.url, after=0, stream="CAN_FRAMES", site="lab") is not None


def test_it_has_no_jetstream(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        server.kill()
        server.with_jetstream = False
        server.start()
        assert "is JetStream on" in refused(server.url)


def test_the_place_is_not_in_its_stream(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        fill(server.url)
        assert "has only 1 messages" in refused(server.url, after=5)
        foreign = Position(
            stream="CAN_FRAMES", created="2020", sequence=1, message_id="", time_ns=0
        )
        assert "made at 2020; the server has CAN_FRAMES" in refused(server.url, after=foreign)


# ---------------------------------------------------------------------------------- permissions


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path, users(ALLOWED)) as server:
        for bench in ("bench-7", "bench-8"):
            fill(url_of(server, "admin"), bench)
        yield server


def test_the_login_is_wrong(guarded: NatsServer, tmp_path: Path) -> None:
    assert "it wants credentials" in refused(guarded.url)
    wrong = tmp_path / "login"
    wrong.write_text("ann:wrong\n")
    said = refused(guarded.url, credentials=wrong)
    assert "refuses our credentials" in said
    assert "wrong" not in said
    wrong.write_text("ann:secret\n")
    wish = {"bench": "bench-7", "site": "lab", "after": 0}
    assert first(guarded.url, credentials=wrong, **wish) is not None


def test_a_consumer_reads_only_the_benches_that_it_may(guarded: NatsServer) -> None:
    url = url_of(guarded)
    received = list(batches(url, site="lab", bench="bench-7", after=0, follow=False))
    assert {batch.bench for batch in received} == {"bench-7"}
    for wish in ({"bench": "bench-8"}, {"bench": None}, {"bench": ["bench-7", "bench-8"]}):
        with pytest.raises(CanPermissionError, match=r"does not allow us to read can\.v1\.lab"):
            first(url, site="lab", after=0, **wish)


@pytest.mark.parametrize("missing", range(4))
def test_a_permission_that_is_missing_is_named(tmp_path: Path, missing: int) -> None:
    allowed = [subject for number, subject in enumerate(ALLOWED) if number != missing]
    with NatsServer(tmp_path, users(allowed)) as server:
        fill(url_of(server, "admin"))
        with pytest.raises(CanPermissionError) as caught:
            first(url_of(server), site="lab", bench="bench-7", after=0)
        subject = ALLOWED[missing].lower().partition(".*")[0]
        assert subject in str(caught.value)


def test_a_consumer_that_may_not_have_answers_is_told(tmp_path: Path) -> None:
    with NatsServer(tmp_path, users(ALLOWED, subscribe="nothing")) as server:
        fill(url_of(server, "admin"))
        with pytest.raises(CanPermissionError, match="subscription to"):
            first(url_of(server), site="lab", bench="bench-7", after=0)


# ------------------------------------------------------------------------------------------ TLS


def test_a_mismatch_of_tls_is_said(tmp_path: Path) -> None:
    files = certificates(tmp_path)
    tls = f'tls {{ cert_file: "{files["certificate"]}", key_file: "{files["key"]}" }}\n'
    with NatsServer(tmp_path, tls) as server:
        url = server.url.replace("nats:", "tls:")
        trusted = {"ca": str(files["ca"])}
        assert "no stream with" in refused(url, tls=trusted)
        assert "certificate is not accepted" in refused(url)
        assert "tls.ca" in refused(url, tls={"ca": str(tmp_path / "none.pem")})
    with NatsServer(tmp_path) as server:
        assert "TLS" in refused(server.url.replace("nats:", "tls:"))
