"""The page attacked over real sockets: refused, bounded, counted."""

from __future__ import annotations

import json
import socket as sockets
import threading
from collections.abc import Iterator

import psutil
import pytest

pytest.importorskip("uvicorn", reason="needs the extra web")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from canbroker import Bus, Message
from canbroker.actors.web.guard import MAX_BODY, MAX_SOCKETS
from canbroker.actors.web.server import MAX_CONNECTIONS, MAX_MESSAGE
from canbroker.keys.authorized import Role
from canbroker.keys.web_tokens import load_or_create, tokens_path
from tests.support.brokers import private_runtime, wait_until
from tests.support.pages import Site, ask, raw_message, site, told

pytestmark = pytest.mark.long

_FOREIGN = "http://evil.example"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for all tests: they leave it as it was, which is what they show."""
    with private_runtime() as runtime, site(runtime, tmp_path_factory.mktemp("web")) as found:
        yield found


def _frame(identifier: str = "123") -> bytes:
    return json.dumps({"channel": "can0", "frame": f"{identifier}#01"}).encode()


def _refused_socket(page: Site, **given: object) -> int:
    with pytest.raises(InvalidStatus) as error:
        page.open(**given)
    return error.value.response.status_code


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.2:{port}", "localhost:1", ""],
)
def test_a_foreign_host_is_refused(page: Site, host: str) -> None:
    before = page.status.refusals.get("host", 0)
    answer = page.ask("GET", "/", headers={"Host": host.format(port=page.port)})
    assert answer.status == 421
    page.refusals("host", before + 1)


def test_its_own_names_are_not(page: Site) -> None:
    cookie = page.cookie()
    for host in (page.host, f"localhost:{page.port}", f"LOCALHOST:{page.port}"):
        assert page.ask("GET", "/", cookie=cookie, headers={"Host": host}).status == 200


@pytest.mark.parametrize("path", ["/", "/static/js/main.js", "/api/trace?channel=can0&before=0"])
def test_without_a_token_nothing_is_answered(page: Site, path: str) -> None:
    for cookie in (None, f"canbroker-{page.port}=", f"canbroker-{page.port}={'0' * 64}"):
        answer = page.ask("GET", path, cookie=cookie)
        assert answer.status == 403
        assert b"canbroker web" in answer.body


def test_the_token_is_in_the_address_once(page: Site) -> None:
    answer = page.ask("GET", f"/?token={page.token()}", cookie=None)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert page.token() not in cookie
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("token", ["", "x", "%00", "%C3%A9", "%FF", "A" * 5000])
def test_a_wrong_token_is_refused(page: Site, token: str) -> None:
    assert page.ask("GET", f"/?token={token}", cookie=None).status == 403


def test_every_answer_says_what_a_browser_may_do(page: Site) -> None:
    for path, status in (("/", 200), ("/static/style.css", 200), ("/nothing", 404)):
        answer = page.ask("GET", path)
        assert answer.status == status
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", [_FOREIGN, "null", "http://127.0.0.1", "http://localhost:1", ""])
def test_another_page_sends_nothing(page: Site, origin: str) -> None:
    before = page.status.refusals.get("origin", 0)
    with Bus("can0", broker=str(page.runtime.address)) as bus:
        answer = page.ask("POST", "/api/send", body=_frame(), headers={"Origin": origin})
        assert answer.status == 403
        page.refusals("origin", before + 1)
        assert page.ask("POST", "/api/send", body=_frame()).status == 200
        received = bus.recv(5)
        assert received is not None
        assert received.arbitration_id == 0x123
        assert bus.recv(0) is None  # once: what was refused was not sent


def test_another_page_opens_no_socket(page: Site) -> None:
    assert _refused_socket(page, origin=_FOREIGN) == 403
    assert _refused_socket(page, origin=None) == 403
    assert _refused_socket(page, additional_headers={}) == 403


def test_a_page_of_another_port_reads_nothing(page: Site) -> None:
    """Browsers send it our cookie: ports do not count for cookies."""
    headers = {"Origin": "http://127.0.0.1:9"}
    assert page.ask("GET", "/api/trace?channel=can0&before=0", headers=headers).status == 403


def test_what_may_be_sent_depends_on_configuration_and_role(page: Site) -> None:
    observer = page.cookie(Role.OBSERVE)
    assert page.ask("POST", "/api/send", body=_frame("200")).status == 403
    assert page.ask("POST", "/api/send", body=_frame("00000123")).status == 403
    assert page.ask("POST", "/api/send", body=_frame(), cookie=observer).status == 403
    assert page.ask("POST", "/api/send", body=_frame("1FF")).status == 200
    assert page.ask("POST", "/api/send", body=_frame("20000080")).status == 403  # an error frame
    for body in (b"", b"{", b"[]", b'{"channel": "can0"}', b"\xff", b"[" * 50_000):
        assert page.ask("POST", "/api/send", body=body).status == 400
    wrong = json.dumps({"channel": "no such", "frame": "123#"}).encode()
    assert page.ask("POST", "/api/send", body=wrong).status == 502


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
def test_other_methods_are_refused(page: Site, method: str) -> None:
    assert page.ask(method, "/").status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/static/../guard.py",
        "/static/%2e%2e/guard.py",
        "/static/..%2f..%2fguard.py",
        "//etc/passwd",
    ],
)
def test_nothing_but_its_files_is_served(page: Site, path: str) -> None:
    assert page.ask("GET", path).status == 404


@pytest.mark.parametrize(
    "query",
    [
        "trace?channel=can0&before=-1",
        "trace?channel=can0&before=1e9",
        "trace?channel=can0&before=99999999999999999999999",
        "trace?channel=can0&before=0&filter=xyz",
        "trace?before=0",
        "record?channel=can0&seconds=1&format=exe",
        "record?channel=can0&seconds=999999999&format=log",
        f"record?channel={'x' * 400}&seconds=1&format=log",
    ],
)
def test_wrong_queries_are_told(page: Site, query: str) -> None:
    answer = page.ask("GET", f"/api/{query}")
    assert answer.status == 400
    assert answer.body.strip()


def test_a_channel_that_is_not_there(page: Site) -> None:
    for channel in ("..%2f..%2fbroker", "%00"):
        answer = page.ask("GET", f"/api/record?channel={channel}&seconds=1&format=log")
        assert answer.status == 502


def test_a_message_of_10_mb_ends_its_socket(page: Site) -> None:
    with page.open() as open_one:
        told(open_one, "hello")
        with pytest.raises(ConnectionClosed) as error:
            _send_much(open_one, "x" * 10_000_000)
        assert error.value.rcvd is None or error.value.rcvd.code == 1009
    assert MAX_MESSAGE < 10_000_000
    _still_works(page)


def _send_much(socket: ClientConnection, text: str) -> None:
    socket.send(text)
    _until_ended(socket)


def _ask_without_end(socket: ClientConnection) -> None:
    for _ in range(10_000):
        ask(socket, "tasks", on=True)
    _until_ended(socket)


def _until_ended(socket: ClientConnection) -> None:
    while True:
        socket.recv(10)


@pytest.mark.parametrize("length", ["Content-Length: 10000000", "Transfer-Encoding: chunked"])
def test_a_request_of_10_mb_is_not_read(page: Site, length: str) -> None:
    before = page.status.refusals.get("size", 0)
    with sockets.create_connection(("127.0.0.1", page.port), 10) as connection:
        head = (
            f"POST /api/send HTTP/1.1\r\nHost: {page.host}\r\nOrigin: http://{page.host}\r\n"
            f"Cookie: {page.cookie()}\r\n{length}\r\n\r\n"
        )
        connection.sendall(head.encode())
        chunk = bytes(0x10000)
        if "chunked" in length:
            chunk = b"10000\r\n" + chunk + b"\r\n"
        answer = _answer_while_sending(connection, chunk, 152)
    assert not answer or b" 413 " in answer.partition(b"\r\n")[0]
    assert MAX_BODY < 152 * 0x10000
    page.refusals("size", before + 1)
    _still_works(page)


def _answer_while_sending(connection: sockets.socket, chunk: bytes, times: int) -> bytes:
    try:
        for _ in range(times):
            connection.sendall(chunk)
    except OSError:  # it does not read on
        pass
    try:
        return connection.recv(1000)
    except OSError:
        return b""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "{}",
        '{"ask": "shutdown"}',
        '{"ask": "watch"}',
        '{"ask": "watch", "channel": 5}',
        '{"ask": "show", "keys": [-1]}',
        '{"ask": "plot", "signals": [["a"]]}',
        json.dumps({"ask": "plot", "signals": [["a", "b"]] * 9}),
        json.dumps({"ask": "show", "keys": list(range(1000))}),
        "[" * 30_000,
    ],
)
def test_a_socket_that_says_nonsense_is_ended(page: Site, text: str) -> None:
    with page.open() as open_one:
        open_one.send(text)
        with pytest.raises(ConnectionClosed) as error:
            _until_ended(open_one)
        assert error.value.rcvd is not None
        assert error.value.rcvd.code == 1008


def test_a_socket_that_asks_without_end_is_ended(page: Site) -> None:
    with page.open() as open_one, pytest.raises(ConnectionClosed):
        _ask_without_end(open_one)
    page.refusals("request", 1)


def test_a_wrong_filter_is_told_and_ends_nothing(page: Site) -> None:
    with page.open() as open_one:
        ask(open_one, "watch", channel="can0")
        ask(open_one, "trace", on=True, filters="not a filter")
        news: dict[str, object] = {}
        while "traced" not in news:
            news = told(open_one, "channel")
        assert "not a filter" in str(news["traced"])


def test_a_thousand_sockets(page: Site) -> None:
    cookie = page.cookie()
    process = psutil.Process(page.status.pid)
    wait_until(lambda: page.status.pages == 0, "all pages are closed")
    opened = []
    refused = 0
    try:
        for _ in range(1000):
            status, connection = page.raw_socket(cookie)
            opened.append(connection)
            assert status in {101, 503}
            refused += status == 503
        assert refused == 1000 - MAX_SOCKETS
        assert page.refusals("sockets", refused) >= refused
        assert process.num_fds() < MAX_SOCKETS + 100
    finally:
        for each in opened:
            each.close()
    wait_until(lambda: page.status.pages == 0, "all pages are closed")
    _still_works(page)


def test_a_thousand_connections_that_say_nothing(page: Site) -> None:
    process = psutil.Process(page.status.pid)
    opened: list[sockets.socket] = []
    try:
        opened += [sockets.create_connection(("127.0.0.1", page.port), 10) for _ in range(1000)]
        page.refusals("connections", 1000 - MAX_CONNECTIONS)
        assert process.num_fds() < MAX_CONNECTIONS + 100
    finally:
        for each in opened:
            each.close()
    wait_until(lambda: process.num_fds() < MAX_CONNECTIONS, "they are closed")
    _still_works(page)


def test_a_page_that_takes_nothing_costs_bounded_memory(page: Site) -> None:
    """A stopped browser: its socket stays open, and is not read."""
    process = psutil.Process(page.status.pid)
    stop = threading.Event()

    def traffic() -> None:
        with Bus("can0", broker=str(page.runtime.address)) as bus:
            number = 0
            while not stop.wait(0.002):
                bus.send(
                    Message(arbitration_id=number % 0x700, data=bytes(8), is_extended_id=False)
                )
                number += 1

    sender = threading.Thread(target=traffic)
    sender.start()
    cookie = page.cookie()
    stopped = [page.raw_socket(cookie)[1] for _ in range(8)]
    try:
        for each in stopped:
            each.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
            each.sendall(raw_message("watch", channel="can0"))
            each.sendall(raw_message("trace", on=True))
        with page.open() as other:
            ask(other, "watch", channel="can0")
            memory: list[int] = []
            while len(memory) < 30:
                if "rows" in told(other, "channel"):
                    memory.append(process.memory_info().rss)
        assert max(memory) - memory[10] < 16 << 20
    finally:
        stop.set()
        sender.join()
        for each in stopped:
            each.close()


def test_other_tokens_end_the_sockets_of_those_before(page: Site) -> None:
    old = page.cookie()
    with page.open() as open_one:
        told(open_one, "hello")
        tokens_path().unlink()
        with pytest.raises(ConnectionClosed):
            _until_ended(open_one)
    assert page.ask("GET", "/", cookie=old).status == 403
    load_or_create(tokens_path())
    wait_until(lambda: _opens(page), "the new token opens the page")
    assert page.ask("GET", "/", cookie=old).status == 403


def _opens(page: Site) -> bool:
    return page.ask("GET", f"/?token={page.token()}", cookie=None).status == 303


def _still_works(page: Site) -> None:
    with page.open() as open_one:
        assert told(open_one, "status")["broker"]["channels"][0]["name"] == "can0"
