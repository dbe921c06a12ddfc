"""What every test gets: nothing may be left behind, and a broker of its own."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator

import can.util
import psutil
import pytest
from hypothesis import settings

from canbroker.configuration import sources
from canbroker.keys.identity import KEY_VARIABLE
from canbroker.transport.place import ADDRESS_VARIABLE
from canbroker.transport.runtime import Runtime
from tests.support.brokers import private_runtime
from tests.support.systems import open_descriptors

_SETTLE_S = 5.0

# How long an example takes says more of what else the machine does.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


@pytest.fixture(scope="session", autouse=True)
def nothing_configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A user who has configured nothing, whoever runs the tests.

    For child processes, too, but for the system's file, ``/etc/can.conf``.
    """
    home = tmp_path_factory.mktemp("home")
    system_file = str(sources.SYSTEM_FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("USERPROFILE", str(home))  # is asked for on Windows
        patch.setattr(sources, "SYSTEM_FILE", home / "system.conf")
        files = [name for name in can.util.CONFIG_FILES if name != system_file]
        patch.setattr(can.util, "CONFIG_FILES", files)
        configuring = (
            *(*sources.variables(None), ADDRESS_VARIABLE, "CANBROKER_AUTOSTART"),
            *(KEY_VARIABLE, "XDG_CONFIG_HOME"),
        )
        for name in [name for name in os.environ if name.startswith(configuring)]:
            patch.delenv(name)
        yield


def _leaks(before: tuple[set[int], set[threading.Thread], dict[str, str]]) -> list[str]:
    children, threads, descriptors = before
    return [
        *(
            f"process {child.pid}: {' '.join(child.cmdline())}"
            for child in psutil.Process().children(recursive=True)
            if child.pid not in children and child.is_running()
        ),
        *(f"thread {thread.name}" for thread in threading.enumerate() if thread not in threads),
        *(
            f"descriptor {number}: {target}"
            for number, target in open_descriptors().items()
            if descriptors.get(number) != target
        ),
    ]


def _safe_leaks(before: tuple[set[int], set[threading.Thread], dict[str, str]]) -> list[str]:
    try:
        return _leaks(before)
    except psutil.NoSuchProcess as ended:  # while we looked at it
        return [f"process {ended.pid} is just ending"]


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fails a test that leaves a process, a thread or, but on Windows, a descriptor behind."""
    before = (
        {child.pid for child in psutil.Process().children(recursive=True)},
        set(threading.enumerate()),
        open_descriptors(),
    )
    yield
    if not _safe_leaks(before):
        return
    gc.collect()
    deadline = time.monotonic() + _SETTLE_S
    while (leaks := _safe_leaks(before)) and time.monotonic() < deadline:
        threading.Event().wait(0.02)  # what was told to end may be about to
    assert not leaks, f"left behind: {leaks}"


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """As :func:`private_runtime`."""
    with private_runtime() as runtime:
        yield runtime
