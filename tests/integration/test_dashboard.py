"""The dashboard for Grafana with a real Prometheus, which reads the page of a real broker."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest

pytest.importorskip("uvicorn", reason="needs the extra web")

from canbroker import Bus, Message
from canbroker.keys.authorized import Role
from canbroker.transport.runtime import Runtime
from tests.docs.test_metrics_page import dashboard, expressions
from tests.support.brokers import wait_until
from tests.support.pages import Site, site
from tests.support.remote import free_port
from tests.support.simulated import Simulated

pytestmark = pytest.mark.long

_CONFIG: Final = """
[channels.car]
interface = "slcan"
channel = "{adapter}"
bitrate = 500000

[channels.bench]
interface = "virtual"
bitrate = 500000

[record.drive]
channels = ["bench"]
directory = "drives"

[web]
listen = "127.0.0.1:0"
"""

_PROMETHEUS: Final = """
global: {{ scrape_interval: 1s }}
scrape_configs:
  - job_name: canbroker
    authorization: {{ credentials_file: {token} }}
    static_configs: [{{ targets: ["{host}"] }}]
"""

#: What no adapter here tells, or what does not happen.
_EMPTY: Final = ("canbroker_controller_errors", "canbroker_adapter_events")

#: What Grafana puts in, for all channels.
_CHANNELS: Final = "(bench|car)"
_INTERVAL: Final = "5s"


class Prometheus:
    """One that asks a page every second."""

    def __init__(self, program: str, page: Site, directory: Path) -> None:
        token = directory / "token"
        token.write_text(page.token(Role.OBSERVE))
        config = directory / "prometheus.yml"
        config.write_text(_PROMETHEUS.format(token=token, host=page.host))
        self.port = free_port()
        with (directory / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={config}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)

    def is_ready(self) -> bool:
        try:
            return self._get("/-/ready")[0] == 200
        except ConnectionRefusedError:
            return False

    def ask(self, path: str, **fields: str) -> Any:
        """The data of an answer of its programming interface."""
        status, body = self._get(f"/api/v1/{path}?{urlencode(fields)}")
        assert status == 200, (fields, body)
        return json.loads(body)["data"]

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def results(self, expression: str) -> list[dict[str, Any]]:
        """The series that a panel shows now."""
        asked = expression.replace("$__rate_interval", _INTERVAL).replace("$channel", _CHANNELS)
        found: list[dict[str, Any]] = self.ask("query", query=asked)["result"]
        return found


@contextmanager
def traffic() -> Iterator[None]:
    """Frames and a periodic task."""
    message = Message(arbitration_id=0x123, data=bytes(8), is_extended_id=False)
    with Bus("car") as car, Bus("bench") as bench:
        tasks = [bus.send_periodic(message, 0.05) for bus in (car, bench)]
        yield
        for task in tasks:
            task.stop()


def test_every_panel_shows_something(runtime: Runtime, tmp_path: Path) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    with Simulated() as adapter:
        config = _CONFIG.format(adapter=adapter.path)
        with site(runtime, tmp_path, config) as page, traffic():
            prometheus = Prometheus(program, page, tmp_path)
            try:
                wait_until(prometheus.is_ready, "prometheus is ready", 60)
                _check(prometheus)
            finally:
                prometheus.close()


def _check(prometheus: Prometheus) -> None:
    for expression in expressions():
        if not any(name in expression for name in _EMPTY):
            wait_until(
                lambda expression=expression: prometheus.results(expression),  # type: ignore[misc]
                f"{expression} has results",
                60,
            )
    states = prometheus.results('canbroker_bus_state{channel=~"$channel"} == 1')
    assert {(each["metric"]["channel"], each["metric"]["state"]) for each in states} == {
        ("bench", "active"),
        ("car", "active"),
    }
    (variable,) = (each for each in dashboard()["templating"]["list"] if each["type"] == "query")
    assert variable["query"] == "label_values(canbroker_bus_state, channel)"
    found = prometheus.ask("label/channel/values", **{"match[]": "canbroker_bus_state"})
    assert found == ["bench", "car"]
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            _check_legend(target, prometheus.results(target["expr"]))


def _check_legend(target: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Each series has a name of its own, made of labels that it has."""
    names = set()
    for result in results:
        name = target["legendFormat"]
        for label, value in result["metric"].items():
            name = name.replace(f"{{{{{label}}}}}", value)
        assert "{{" not in name, (target, result)
        names.add(name)
    assert len(names) == len(results), target
