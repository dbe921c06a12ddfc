"""``canbroker metrics`` of a real broker."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from canbroker import Bus, Message
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.commands import run

pytest.importorskip("prometheus_client", reason="needs the extra metrics")


def test_the_numbers_are_those_of_the_broker(runtime: Runtime) -> None:
    with Bus("x", "virtual", bitrate=500_000) as bus:
        message = Message(arbitration_id=0x100, is_extended_id=False)
        bus.send_batch([message] * 100, timeout=20)
        task = bus.send_periodic(message, 60)

        def is_counted() -> bool:
            (channel,) = status_of(runtime).channels
            return channel.state is not None and channel.state.transmitted == 101

        wait_until(is_counted, "the state tells of all frames")
        printed = run("metrics")
        task.stop()
    assert (printed.returncode, printed.stderr) == (0, "")
    lines = printed.stdout.splitlines()
    name = 'channel="virtual.x"'
    for line in (
        f'canbroker_frames_total{{{name},direction="transmitted"}} 101.0',
        f'canbroker_bus_state{{{name},state="active"}} 1.0',
        f'canbroker_bus_state{{{name},state="error"}} 0.0',
        f"canbroker_clients{{{name}}} 1.0",
        f"canbroker_tasks{{{name}}} 1.0",
    ):
        assert line in lines
    promtool = shutil.which("promtool")
    if promtool is not None:
        checked = subprocess.run(
            [promtool, "check", "metrics"],
            input=printed.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_without_a_broker(runtime: Runtime) -> None:
    printed = run("metrics")
    assert printed.returncode == 1
    assert "no broker" in printed.stderr


def test_without_the_extra_it_is_named(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = runtime.directory.parent / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: "
        "None if name == 'prometheus_client' else find(name, *rest)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(hidden), prepend=":")
    printed = run("metrics")
    assert printed.returncode == 1
    assert "pip install 'canbroker[metrics]'" in printed.stderr
