"""canbroker's modules with Windows' Python, on Linux: see tests/portable/start."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.portable import names
from tests.support.simulated import Simulated, opened_slcan, read_count

_START = Path(names.__file__).with_name("start")
_REPOSITORY = _START.parents[2]

#: The package that a module of an extra imports first, and the extra.
_EXTRAS = {
    "asammdf": "mf4",
    "can": "python-can",
    "cantools": "signals",
    "prometheus_client": "metrics",
    "pyarrow": "parquet",
    "pytest": "pytest",
    "starlette": "web",
    "textual": "top",
    "uvicorn": "web",
}

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="Windows itself shows it"),
]


@pytest.fixture(autouse=True)
def as_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the processes that a test starts."""
    monkeypatch.setenv("CANBROKER_AS_WINDOWS", "1")
    monkeypatch.setenv("PYTHONPATH", f"{_START}{os.pathsep}{_REPOSITORY}")


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


@pytest.mark.parametrize("without", [(), tuple(_EXTRAS)], ids=["as it is", "without extras"])
def test_every_module_can_be_imported(without: tuple[str, ...]) -> None:
    """Left out is only what needs a package of an extra that is not installed."""
    code = f"""
import importlib, pkgutil, sys
import canbroker

class Hiding:
    def find_spec(name, path=None, target=None):
        if name in {without!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Hiding)
for module in pkgutil.walk_packages(canbroker.__path__, "canbroker."):
    if not module.name.endswith("__main__") and ".demo.programs" not in module.name:
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name not in {_EXTRAS!r}:
                raise
            print(error.name, "is missing for", module.name)
        else:
            print(module.name)
"""
    lines = _run(code).splitlines()
    left_out = [line for line in lines if " is missing for " in line]
    assert len(lines) > 300
    assert len(left_out) < 50, left_out
    assert "canbroker.system.files" in lines
    missing = {line.partition(" ")[0] for line in left_out}
    assert missing >= set(without), left_out
    for package in missing.difference(without):
        assert importlib.util.find_spec(package) is None, f"of canbroker[{_EXTRAS[package]}]"


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
def test_a_broker_has_periodic_tasks_recordings_and_actors_that_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import os, subprocess, sys
from canbroker import Bus, CanOperationError, Message
from canbroker.bus.discovery import stop_broker
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until

def command(*words):
    program = "from canbroker.cli import main; main()"
    return subprocess.run([sys.executable, "-c", program, *words], check=True, timeout=60)

def hears(bus):
    try:
        message = bus.recv(0.1)
    except CanOperationError:
        return False
    return message is not None and message.arbitration_id == 0x123

with Bus("x", "virtual") as bus, Bus("x", "virtual") as receiver:
    message = Message(arbitration_id=0x123, data=[1], is_extended_id=False)
    task = bus.send_periodic(message, 0.01)
    wait_until(lambda: hears(receiver), "the task runs", timeout=20)
    command("record", "start", "drive", "-c", "virtual.x", "-f", "log", "-o", "recordings")
    status = status_of(Runtime.at())
    os.kill(status.channels[0].pid, 9)
    wait_until(lambda: hears(receiver) and receiver.stats.restarts, "another actor", timeout=20)
    wait_until(lambda: hears(receiver), "the task goes on", timeout=20)
    os.kill(status.scheduler.pid, 9)
    wait_until(lambda: status_of(Runtime.at()).scheduler.restarts, "another scheduler serves")
    wait_until(lambda: hears(receiver), "the task goes on", timeout=20)
    command("record", "stop", "drive")
    command("status")
    task.stop()
stop_broker(Runtime.at(), 20)
"""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    _run(code)
    (recorded,) = (tmp_path / "recordings").glob("*.log")
    assert len(recorded.read_text().splitlines()) > 10
    assert " 123#01" in recorded.read_text()


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


def test_what_windows_refuses_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import os, sys
from pathlib import Path
from canbroker.broker import portable_child
from canbroker.system import handles

def tell(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except (OSError, ValueError) as error:
        print(type(error).__name__, error)
    else:
        print("done")

command = [sys.executable, "-c", ""]
Popen = portable_child.subprocess.Popen
tell(Popen, command, start_new_session=True)
tell(Popen, command, pass_fds=(1,))
tell(Popen, command, preexec_fn=print)
with Popen(command, creationflags=portable_child.subprocess.CREATE_NO_WINDOW) as child:
    print(child.wait())
tell(handles.os.kill, os.getpid(), 0)
one, other = handles.socket.socketpair()
tell(handles.os.read, one.fileno(), 1)
tell(handles.os.open, ".", os.O_RDONLY)
reading, writing = os.pipe()
os.close(reading)
tell(handles.os.write, writing, b"x")
with open("one", "w") as file, open("one") as read:
    tell(handles.os.fsync, file.fileno())
    tell(handles.os.fsync, read.fileno())
    tell(Path("one").unlink)
    tell(handles.os.remove, "one")
    tell(Path("one").replace, "other")
Path("other").touch()
tell(Path("one").rename, "other")
tell(Path("one").unlink)
"""
    monkeypatch.chdir(tmp_path)
    assert _run(code).splitlines() == [
        "ValueError Windows has no start_new_session of subprocess.Popen",
        "ValueError Windows has no pass_fds of subprocess.Popen",
        "ValueError Windows has no preexec_fn of subprocess.Popen",
        "0",
        "OSError [Errno 22] signal 0 is Ctrl-C on Windows, and asks nothing",
        "OSError [Errno 9] the descriptor is a socket's, and no file's",
        "PermissionError [Errno 13] Windows opens no directory: '.'",
        "OSError [Errno 22] Invalid argument",
        "done",
        "OSError [Errno 9] the file cannot be written",
        "PermissionError [Errno 13] this process has the file open: 'one'",
        "PermissionError [Errno 13] this process has the file open: 'one'",
        "PermissionError [Errno 13] this process has the file open: 'one'",
        "FileExistsError [Errno 17] Windows renames to no name that is taken: 'other'",
        "done",
    ]


@pytest.mark.parametrize("name", ["fcntl", "pwd", "resource", "pty", "termios"])
def test_a_module_that_windows_lacks_is_missing_for_canbroker_alone(name: str) -> None:
    code = f"""
import {name}
try:
    exec("import {name}", {{"__package__": "canbroker.system"}})
except ModuleNotFoundError as error:
    print(error)
"""
    assert _run(code) == f"Windows has no module '{name}'\n"
