"""canbroker's modules with Windows' Python, on Linux: see tests/portable/site."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.portable import names
from tests.support.simulated import Simulated, opened_slcan, read_count

_SITE = Path(names.__file__).with_name("site")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="Windows itself shows it"),
]


@pytest.fixture(autouse=True)
def as_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the processes that a test starts."""
    monkeypatch.setenv("CANBROKER_AS_WINDOWS", "1")
    monkeypatch.setenv("PYTHONPATH", f"{_SITE}{os.pathsep}{Path.cwd()}")


def _run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_names_are_those_of_typeshed() -> None:
    missing = names.missing_names()
    assert {"fork", "pidfd_open", "geteuid", "eventfd"} <= set(missing["os"])
    assert {"SIGHUP", "SIGKILL", "SIGUSR1"} <= set(missing["signal"])
    assert {"AF_UNIX", "AF_CAN"} <= set(missing["socket"])
    assert {"poll", "epoll"} <= set(missing["select"])


def test_a_module_of_canbroker_sees_windows_and_others_see_linux() -> None:
    code = """
import os, sys
from canbroker.system import handles, portable
print(sys.platform, handles.sys.platform, portable.PORTABLE, hasattr(os, "fork"))
try:
    handles.os.fork
except AttributeError as error:
    print(error)
"""
    assert _run(code).splitlines() == ["linux win32 True True", "Windows has no os.fork"]


def test_every_module_can_be_imported() -> None:
    code = """
import importlib, pkgutil, canbroker
for module in pkgutil.walk_packages(canbroker.__path__, "canbroker."):
    if not module.name.endswith("__main__") and ".demo.programs" not in module.name:
        importlib.import_module(module.name)
        print(module.name)
"""
    assert len(_run(code).splitlines()) > 300


def test_a_descriptor_that_is_no_socket_cannot_be_waited_for() -> None:
    code = """
import os
from canbroker.system.wake import Wake
from canbroker.transport.waiter import Waiter
wake, waiter = Wake(), Waiter()
waiter.add(wake)
wake.set()
assert waiter.wait(0) == {wake}
try:
    waiter.add(os.pipe()[0])
except OSError as error:
    print(error.errno)
"""
    assert _run(code) == "10038\n"


def test_an_event_loop_without_readers_is_called_back_by_a_thread() -> None:
    code = """
import asyncio
from canbroker.bus.watching import add_reader, remove_reader, watch
from canbroker.system.wake import Wake

async def main():
    loop, wake, calls = asyncio.get_running_loop(), Wake(), asyncio.Queue()
    try:
        loop.add_reader(wake.fileno(), print)
    except NotImplementedError:
        print("none")
    def called():
        wake.clear()
        calls.put_nowait(None)
    add_reader(loop, wake.fileno(), called)
    for _ in range(3):
        wake.set()
        await calls.get()
    remove_reader(loop, wake.fileno())
    print(calls.qsize())
    wake.close()

asyncio.run(main())
watch().join(20)
"""
    assert _run(code) == "none\n0\n"


def test_a_signal_makes_it_readable() -> None:
    code = """
import signal
from canbroker.system.service import Terminated, ending_signals
from canbroker.transport.waiter import Waiter
print([number.name for number in ending_signals()])
terminated, waiter = Terminated(*ending_signals()), Waiter()
waiter.add(terminated)
assert not waiter.wait(0)
signal.raise_signal(signal.SIGINT)
assert waiter.wait(0) == {terminated}
"""
    assert _run(code) == "['SIGINT', 'SIGTERM']\n"


def test_programs_share_a_bus_and_wait_for_it_in_event_loops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import asyncio
from canbroker import Bus, Message
from canbroker.bus.discovery import stop_broker
from canbroker.transport.runtime import Runtime

def message(number):
    return Message(arbitration_id=number, is_extended_id=False)

async def main():
    waiting = asyncio.create_task(receiver.arecv(20))
    await asyncio.sleep(0.3)
    sender.send(message(2))
    print((await waiting).arbitration_id)

with Bus("x", "virtual") as sender, Bus("x", "virtual") as receiver:
    sender.send(message(1))
    print(receiver.recv(20).arbitration_id)
    asyncio.run(main())
stop_broker(Runtime.at(), 20)
"""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert _run(code) == "1\n2\n"


@pytest.mark.timeout(120)
def test_the_demonstration_is_exact() -> None:
    code = "from canbroker.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "demo", "--speed", "0"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "ledger exact" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_the_simulated_adapter_runs() -> None:
    with Simulated() as adapter, opened_slcan(adapter.path) as backend:
        adapter.command("receive 123#11")
        assert len(read_count(backend, 1)) == 1
        assert adapter.stop()["event"] == "exit"


def test_a_file_is_locked_by_one_process() -> None:
    code = """
import os, sys, tempfile
from canbroker.system.files import lock_now, open_private, effective_user
path = os.path.join(tempfile.mkdtemp(), "lock")
one, other = (open_private(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
os.write(one, b"text")
print(lock_now(one), lock_now(other), os.lseek(one, 0, os.SEEK_CUR), effective_user())
"""
    assert _run(code) == "True False 4 None\n"
