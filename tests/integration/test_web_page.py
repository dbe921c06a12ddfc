"""The page as one of the broker's processes: how it begins and ends, and what it serves."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs the extra web")

from websockets.sync.client import ClientConnection

from canbroker import Bus, Message
from canbroker.keys.authorized import Role
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.runtime import Runtime
from tests.support.brokers import processes_of, status_of, wait_until
from tests.support.commands import run
from tests.support.databases import CAR_DBC
from tests.support.pages import CONFIG, Site, ask, serving, site, told, url_of


def test_it_serves_until_its_broker_is_killed(runtime: Runtime, tmp_path: Path) -> None:
    with site(runtime, tmp_path) as page:
        first = page.status
        cookie = page.cookie()
        printed = run("web", "--role", "observe").stdout.strip()
        assert printed == f"{page.url}?token={page.token(Role.OBSERVE)}"

        metrics = {"Authorization": f"Bearer {page.token(Role.OBSERVE)}"}
        answer = page.ask("GET", "/metrics", cookie=None, headers=metrics)
        assert answer.status == 200
        assert b'canbroker_clients{channel="can0"}' in answer.body
        assert page.ask("GET", "/metrics").status == 401  # a cookie is not enough

        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        wait_until(lambda: page.status.restarts == 1 and page.status.url, "another one serves", 20)
        page.url = page.status.url  # on any free port
        page.host, page.port = page.url.split("/")[2], int(page.url.rpartition(":")[2].strip("/"))
        renamed = cookie.replace(cookie.partition("=")[0], f"canbroker-{page.port}")
        assert page.ask("GET", "/", cookie=renamed).status == 200  # what it was before

        os.kill(status_of(runtime).pid, signal.SIGKILL)
        wait_until(lambda: not processes_of(runtime), "it ends with its broker")
        (runtime.directory / "broker").unlink(missing_ok=True)
    _clear(runtime)


def _clear(runtime: Runtime) -> None:
    """A broker that ends in order removes what a killed one has left."""
    with Bus("x", "virtual", broker=str(runtime.address)):
        pass


def test_a_port_that_is_taken_is_told(runtime: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path.write_text(CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        with serving(runtime, path):
            wait_until(lambda: (web := status_of(runtime).web) and web.reason, "it says so", 20)
            failed = run("web")
            assert failed.returncode == 1
            assert f"cannot listen at 127.0.0.1:{port}" in failed.stderr


def test_beyond_this_host_it_is_encrypted(runtime: Runtime, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
    command += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=bench1.lab"]
    command += ["-addext", "subjectAltName=DNS:bench1.lab", "-keyout", "b.key", "-out", "b.pem"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    listen = '"*:0"\ntls_cert = "b.pem"\ntls_key = "b.key"\nnames = ["bench1.lab"]'
    path = tmp_path / "bench.toml"
    path.write_text(CONFIG.replace('"127.0.0.1:0"', listen))
    with serving(runtime, path):
        url = url_of(runtime)
        assert url.startswith("https://bench1.lab:")
        port = int(url.rpartition(":")[2].strip("/"))
        token = run("web").stdout.strip().partition("?")[2]
        context = ssl.create_default_context(cafile=str(tmp_path / "b.pem"))
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            context.wrap_socket(plain, server_hostname="bench1.lab") as encrypted,
        ):
            head = f"GET /?{token} HTTP/1.1\r\nHost: bench1.lab:{port}\r\n\r\n"
            encrypted.sendall(head.encode())
            answer = http.client.HTTPResponse(encrypted)
            answer.begin()
            assert answer.status == 303
            assert "Secure" in (answer.getheader("set-cookie") or "")
        with socket.create_connection(("127.0.0.1", port), 10) as plain:
            plain.sendall(f"GET /?{token} HTTP/1.1\r\nHost: bench1.lab:{port}\r\n\r\n".encode())
            assert b"HTTP" not in plain.recv(1000)


def test_a_page_is_told_what_is_on_a_channel(runtime: Runtime, tmp_path: Path) -> None:
    with site(runtime, tmp_path) as page, Bus("can0") as bus, page.open() as socket_:
        ask(socket_, "watch", channel="can0")
        ask(socket_, "trace", on=True, filters="321:7FF")
        while not told(socket_, "channel").get("new"):
            pass
        for identifier in (0x321, 0x123):
            bus.send(Message(arbitration_id=identifier, data=b"\1\2", is_extended_id=False))
        rows: dict[str, list[object]] = {}
        traced: list[list[object]] = []
        while len(rows) < 2 or not traced:
            news = told(socket_, "channel")
            rows |= {row[1]: row for row in news.get("rows", [])}
            traced += news.get("trace", [])
        assert rows["321"][4:7] == ["0102", "0", 1]
        assert [frame[1:] for frame in traced] == [["321", 0, 1, "0102", None]]
        query = "/api/trace?channel=can0&before=9000000000000000000"
        assert [frame[1] for frame in page.ask("GET", query).json()] == ["321", "123"]
        assert json.loads(page.ask("GET", f"{query}&filter=123:7FF").body)[0][1] == "123"


def test_pages_that_see_the_same_row_have_its_signals(runtime: Runtime, tmp_path: Path) -> None:
    """Also a page that asks for a channel at once, as one does that has just reconnected."""
    pytest.importorskip("cantools", reason="needs the extra signals")
    (tmp_path / "car.dbc").write_text(CAR_DBC)
    config = CONFIG.replace("bitrate = 500000", 'bitrate = 500000\ndatabase = "car.dbc"')
    with (
        site(runtime, tmp_path, config) as page,
        Bus("can0") as bus,
        page.open() as first,
        page.open() as second,
    ):
        key = 0x123 << 4 | 8
        for each in (first, second):
            ask(each, "watch", channel="can0")
            ask(each, "show", keys=[key])
            while not told(each, "channel").get("signals"):
                pass
        for raw, speed in ((b"\x6b\x03", 87.5), (b"\xd6\x06", 175.0)):
            bus.send(Message(arbitration_id=0x123, data=raw + bytes(6), is_extended_id=False))
            for each in (first, second):
                while not (decoded := told(each, "channel").get("decoded")):
                    pass
                message, problem, signals = decoded[str(key)]
                assert (message, problem) == ("Motion", "")
                assert signals[:2] == [["Speed", speed, None, "km/h"], ["Gear", 0, "Park", ""]]


def test_a_page_learns_of_another_database(runtime: Runtime, tmp_path: Path) -> None:
    pytest.importorskip("cantools", reason="needs the extra signals")
    config = tmp_path / "bench.toml"
    config.write_text('[channels.can0]\ninterface = "virtual"\ndatabase = "car.dbc"\n')
    database = tmp_path / "car.dbc"
    database.write_text(CAR_DBC)
    command = EntryPoint.COMMAND.command("web", "--listen", "127.0.0.1:0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as web:
        try:
            assert web.stdout is not None
            page = Site(runtime, web.stdout.readline().partition("?")[0])
            with page.open() as socket_:
                ask(socket_, "watch", channel="can0")
                with serving(runtime, config):
                    assert "Motion" in _messages(socket_)
                database.write_text(CAR_DBC.replace("Motion", "Movement"))
                with serving(runtime, config):
                    while "Movement" not in _messages(socket_):
                        pass
        finally:
            web.terminate()


def _messages(page: ClientConnection) -> set[str]:
    """Names of the messages of the channel, as soon as the page is told any."""
    while not (signals := told(page, "channel").get("signals")):
        pass
    return {message for message, _ in signals}
