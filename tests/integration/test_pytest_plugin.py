"""The pytest plugin, in sessions of its own: fixtures, reports, and workers that are killed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.brokers import wait_until

pytest_plugins = ["pytester"]

#: Of the plugins that are installed only this one: others need a second to be imported.
PLAIN = ("-p", "canbroker", "-p", "no:cacheprovider", "-q")

TWO_ADAPTERS = """
[channels.body]
interface = "virtual"

[channels.powertrain]
interface = "virtual"
bitrate = 500_000
"""


def _processes_below(place: Path) -> list[psutil.Process]:
    """Every process, anybody's child, whose temporary directory is ``place``."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == str(place):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where sessions put their broker's directory. No process of theirs may be left."""
    place = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place / "user"))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    try:
        yield place
        wait_until(lambda: not _processes_below(place), "the broker of the session ends")
        assert not (place / "user").exists(), "a broker of the user's own was started"
    finally:
        for process in _processes_below(place):
            process.kill()
        shutil.rmtree(place)


def configure(pytester: pytest.Pytester, text: str | None) -> None:
    """The broker of the session is given this configuration; ``None``: a file that is not there."""
    pytester.makeini("[pytest]\ncanbroker_config = bench/broker.toml\n")
    if text is not None:
        pytester.mkdir("bench").joinpath("broker.toml").write_text(text)


def test_a_suite_that_does_not_use_it_pays_nothing(
    pytester: pytest.Pytester, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    pytester.makepyfile(
        """
        import sys, threading

        def test_nothing(pytestconfig):
            assert pytestconfig.pluginmanager.hasplugin("canbroker")
            assert "canbroker.integrations.pytest_plugin" in sys.modules
            heavy = {"zmq", "can", "msgspec", "canbroker.client", "canbroker.bus.discovery"}
            assert not heavy & set(sys.modules)
            assert threading.active_count() == 1
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    assert not list(place.iterdir())


def test_fixtures_are_described(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(*PLAIN, "--fixtures")
    for line in (
        "canbroker_broker*session*",
        "    ``canbroker_config`` names *",
        "canbroker_channel*",
        '    ``canbroker_channel(pool="bench", timeout=30)`` *',
        "canbroker_bus*",
    ):
        result.stdout.fnmatch_lines([line])


def test_each_test_has_a_channel_of_its_own(pytester: pytest.Pytester, place: Path) -> None:
    pytester.makepyfile(
        """
        import pytest
        from canbroker import Bus, Message

        seen = set()

        @pytest.fixture
        def other_node(canbroker_channel):
            with Bus(canbroker_channel()) as bus:
                yield bus

        @pytest.mark.parametrize("number", [1, 2])
        def test_bus(canbroker_bus, other_node, canbroker_channel, number):
            assert canbroker_channel() not in seen
            seen.add(canbroker_channel())
            canbroker_bus.send(Message(arbitration_id=number))
            assert other_node.recv(10).arbitration_id == number
            other_node.send(Message(arbitration_id=10 + number))
            assert canbroker_bus.recv(10).arbitration_id == 10 + number

        def test_several(canbroker_bus, canbroker_channel):
            rear = canbroker_channel("rear")
            assert rear == canbroker_channel("rear") != canbroker_channel()
            with Bus(rear) as one, Bus(rear) as other:
                canbroker_bus.send(Message(arbitration_id=1), timeout=10)
                other.send(Message(arbitration_id=2))
                assert one.recv(10).arbitration_id == 2
        """
    )
    pytester.runpytest_subprocess(*PLAIN).assert_outcomes(passed=3)
    assert not list(place.iterdir()), "the directory of the broker is removed"


def test_everything_finds_the_broker_until_the_session_ends(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeconftest(
        """
        import os, pytest

        @pytest.hookimpl(trylast=True)
        def pytest_sessionfinish():
            assert "CANBROKER_ADDRESS" not in os.environ
            assert os.environ["CANBROKER_AUTOSTART"] == "yes"
        """
    )
    pytester.makepyfile(
        """
        import subprocess, sys
        import can
        from canbroker import Bus

        def run(*arguments):
            command = [sys.executable, "-m", "canbroker.cli", *arguments]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

        def test_them(canbroker_bus, canbroker_channel, canbroker_broker, monkeypatch):
            run("send", canbroker_channel(), "123#11")
            assert canbroker_bus.recv(10).arbitration_id == 0x123
            assert canbroker_broker in run("status", "--json")
            with can.Bus(canbroker_channel(), interface="canbroker") as bus:
                bus.send(can.Message(arbitration_id=7))
            assert canbroker_bus.recv(10).arbitration_id == 7
        """
    )
    monkeypatch.setenv("CANBROKER_AUTOSTART", "yes")
    result = pytester.runpytest_subprocess(*PLAIN)
    result.assert_outcomes(passed=1)
    assert result.ret == 0


def test_the_broker_opens_what_is_configured(pytester: pytest.Pytester) -> None:
    configure(pytester, TWO_ADAPTERS)
    pytester.mkdir("tests").joinpath("test_bench.py").write_text(
        "from canbroker import Bus, Message\n"
        "def test_body(canbroker_broker):\n"
        "    with Bus('body') as bus, Bus('body', broker=canbroker_broker) as other:\n"
        "        bus.send(Message(arbitration_id=5))\n"
        "        assert other.recv(10).arbitration_id == 5\n"
    )
    pytester.runpytest_subprocess(*PLAIN, "tests").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (TWO_ADAPTERS.replace("500_000", "'fast'"), "*broker.toml, line 7, *bitrate*"),
        (None, f"*cannot read the configuration */broker.toml: {os.strerror(errno.ENOENT)}"),
    ],
)
def test_a_wrong_configuration_is_an_error_of_each_test(
    pytester: pytest.Pytester, text: str | None, fault: str
) -> None:
    configure(pytester, text)
    pytester.makepyfile(
        """
        def test_one(canbroker_broker): pass
        def test_two(canbroker_bus): pass
        def test_three(): pass
        """
    )
    result = pytester.runpytest_subprocess(*PLAIN)
    result.assert_outcomes(errors=2, passed=1)
    result.stdout.fnmatch_lines([f"E *{fault}"])


def test_a_session_that_is_killed_leaves_no_broker(pytester: pytest.Pytester, place: Path) -> None:
    pytester.makepyfile(
        """
        import os

        def test_dies(canbroker_bus):
            os.kill(os.getpid(), 9)
        """
    )
    assert pytester.runpytest_subprocess(*PLAIN).ret == -signal.SIGKILL
    [left] = place.iterdir()
    wait_until(
        lambda: [path.name for path in left.iterdir()] == ["broker.log"], "the broker ends in order"
    )


# ------------------------------------------------------------------------------------- reports


def test_a_failed_test_shows_the_traffic_of_its_channels(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from canbroker import Bus, Message

        def exchange(bus, channel, identifier):
            with Bus(channel) as other:
                other.send(Message(arbitration_id=identifier, data=b"ab", is_extended_id=False))
                assert bus.recv(10)

        def test_fails(canbroker_bus, canbroker_channel):
            exchange(canbroker_bus, canbroker_channel(), 0x111)
            canbroker_channel("rear")
            raise RuntimeError("as wanted")

        @pytest.fixture
        def broken(canbroker_bus, canbroker_channel):
            exchange(canbroker_bus, canbroker_channel(), 0x222)
            raise RuntimeError("too early")

        def test_fails_before_it_begins(broken):
            pass

        def test_passes(canbroker_bus, canbroker_channel):
            exchange(canbroker_bus, canbroker_channel(), 0x333)

        def test_fails_without_channels():
            raise RuntimeError
        """
    )
    result = pytester.runpytest_subprocess(*PLAIN, "-p", "xdist", "-n", "1", "-rP")
    result.assert_outcomes(failed=2, passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*_ ERROR at setup of test_fails_before_it_begins _*",
            "-* Traffic of virtual.pytest-*, last 10 s -*",
            "([0-9]*.[0-9]*) virtual.pytest-* 222#6162",
            "*_ test_fails _*",
            "-* Traffic of virtual.pytest-*, last 10 s -*",
            "([0-9]*.[0-9]*) virtual.pytest-* 111#6162",
            "-* Traffic of virtual.pytest-*, last 10 s -*",
            "no frame",
        ]
    )
    result.stdout.no_fnmatch_line("*333#6162*")
    assert result.stdout.str().count("Traffic of") == 3


def test_a_channel_that_is_gone_does_not_hide_the_failure(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import subprocess, sys

        def test_fails(canbroker_channel):
            canbroker_channel()
            subprocess.run([sys.executable, "-m", "canbroker.cli", "stop"], check=True)
            raise RuntimeError("as wanted")
        """
    )
    result = pytester.runpytest_subprocess(*PLAIN)
    result.stdout.fnmatch_lines(
        ["E *RuntimeError: as wanted", "-* Traffic of *", "cannot be read: *does not answer"]
    )


# ------------------------------------------------------------------------------------- workers

BENCH = "".join(f'[channels.can{n}]\ninterface = "virtual"\npool = "bench"\n' for n in range(3))

#: When the workers have ended, each channel of the pool can be had at once.
AFTERWARDS = """
    from contextlib import ExitStack
    from pathlib import Path
    import pytest
    from canbroker.bus.lease import lease

    def pytest_sessionfinish(session):
        if hasattr(session.config, "workerinput"):
            return
        broker = Path("broker").read_text()
        with ExitStack() as leases:
            free = {leases.enter_context(lease("bench", 10, broker=broker)).channel for _ in "123"}
        Path("free").write_text(" ".join(sorted(free)))
"""

#: Some frames, and who is on the channel at the same time; the system unlocks what the dead held.
ON_THE_BENCH = """
    import fcntl, os
    from pathlib import Path
    import pytest
    from canbroker import Bus, Message

    FRAMES = 20
    DEADLY = [int(number) for number in os.environ["DEADLY"].split()]

    @pytest.mark.parametrize("number", range(200))
    def test_alone(canbroker_broker, canbroker_channel, number):
        Path("broker").write_text(canbroker_broker)
        channel = canbroker_channel(pool="bench", timeout=60)
        with open(channel, "w") as mark, Bus(channel, receive_own_messages=True) as bus:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for count in range(FRAMES):
                bus.send(Message(arbitration_id=number, data=[count]))
            if number in DEADLY:
                os.kill(os.getpid(), 9)
            own = [bus.recv(30) for _ in range(FRAMES)]
            assert [(m.arbitration_id, m.data[0]) for m in own] == [
                (number, count) for count in range(FRAMES)
            ]
            assert bus.recv(0) is None
"""


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("deadly", [(), (40, 90)], ids=["all-live", "two-killed"])
def test_eight_workers_share_three_channels(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, deadly: tuple[int, ...]
) -> None:
    monkeypatch.setenv("DEADLY", " ".join(map(str, deadly)))
    configure(pytester, BENCH)
    pytester.makeconftest(AFTERWARDS)
    pytester.makepyfile(ON_THE_BENCH)
    result = pytester.runpytest_subprocess(*PLAIN, "-p", "xdist", "-n", "8")
    result.assert_outcomes(passed=200 - len(deadly), failed=len(deadly))
    for number in deadly:
        result.stdout.fnmatch_lines([f"*test_alone[[]{number}[]]*"])
    assert (pytester.path / "free").read_text() == "can0 can1 can2"


def test_what_others_sent_before_a_lease_is_not_shown(pytester: pytest.Pytester) -> None:
    configure(pytester, '[channels.can0]\ninterface = "virtual"\npool = "single"\n')
    pytester.makepyfile(
        """
        from canbroker import Bus, Message

        def use(channel, identifier):
            with Bus(channel) as bus:
                bus.send(Message(arbitration_id=identifier, is_extended_id=False), timeout=10)

        def test_passes(canbroker_channel):
            use(canbroker_channel(pool="single"), 0x111)

        def test_fails(canbroker_channel):
            use(canbroker_channel(pool="single"), 0x222)
            raise RuntimeError
        """
    )
    result = pytester.runpytest_subprocess(*PLAIN)
    result.stdout.fnmatch_lines(["-* Traffic of can0, last 10 s -*", "([0-9]*) can0 222[#]"])
    result.stdout.no_fnmatch_line("*can0 111*")


def test_who_waits_for_a_lease_in_vain_is_told(pytester: pytest.Pytester) -> None:
    configure(pytester, BENCH)
    pytester.makepyfile(
        """
        import pytest
        from canbroker import CanInitializationError, CanTimeoutError

        def test_the_fourth(canbroker_channel):
            three = {canbroker_channel(str(n), pool="bench") for n in range(3)}
            assert three == {"can0", "can1", "can2"}
            with pytest.raises(CanTimeoutError, match="bench"):
                canbroker_channel("fourth", pool="bench", timeout=0.1)
            assert canbroker_channel("0", pool="bench") in three

        def test_they_are_back(canbroker_channel):
            assert canbroker_channel(pool="bench", timeout=1)
            with pytest.raises(CanInitializationError, match="shelf"):
                canbroker_channel(pool="shelf")
        """
    )
    pytester.runpytest_subprocess(*PLAIN).assert_outcomes(passed=2)
