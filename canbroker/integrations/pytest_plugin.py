"""Fixtures for tests that use CAN, in any number of parallel processes (pytest-xdist).

A session has a broker of its own. With ``canbroker_config = FILE`` in pytest's configuration it
opens the channels of that file, adapters of a bench for instance. If ``CANBROKER_ADDRESS`` names a
broker on another host, tests use that one. ``pytest --fixtures`` describes what tests are given.
Every pytest of an environment loads this module, so it imports and does
next to nothing before a fixture is used.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from canbroker.system import clock

if TYPE_CHECKING:
    from canbroker.client import Bus

_CONFIG: Final = "canbroker_config"
_WORKER_KEY: Final = "canbroker"

#: How far back the traffic goes that a failed test shows.
_SHOWN_S: Final = 10.0

_numbers = itertools.count()


class _Place(NamedTuple):
    """Where the broker of a session is, or will be, and the process that it ends with."""

    directory: str
    owner: int


_PLACE: Final = pytest.StashKey[_Place]()
_CHANNELS: Final = pytest.StashKey["Channels"]()


class Channels:
    """The channels of one test; what the fixture ``canbroker_channel`` is."""

    def __init__(self, broker: str) -> None:
        """``broker``: the address."""
        self.broker = broker
        self._names: dict[tuple[str, str | None], str] = {}
        #: When the test was given each channel, by the broker's name for it; wall clock.
        self.since_ns: dict[str, int] = {}
        self._held = ExitStack()

    def __call__(self, name: str = "", *, pool: str | None = None, timeout: float = 30.0) -> str:
        """The broker's name for a channel of this test, for ``Bus(...)`` in any process.

        The same arguments are the same channel, so that a test and its fixtures agree.

        :param name: tells channels of one test apart, for one that needs several.
        :param pool: leases a free channel of this pool, until the test ends. ``None`` makes a
            virtual channel that nobody else has.
        :param timeout: seconds to wait for a free one.
        :raises CanTimeoutError: none has become free.
        :raises CanInitializationError: there is no such pool, or the broker does not answer.
        """
        key = (name, pool)
        if key not in self._names:
            channel = self._make() if pool is None else self._lease(pool, timeout)
            self._names[key] = channel
            self.since_ns[channel] = clock.wall_ns()
        return self._names[key]

    def close(self) -> None:
        """Gives all of them back."""
        self._names.clear()
        self.since_ns.clear()
        self._held.close()

    def _make(self) -> str:
        from canbroker.client import Bus  # noqa: PLC0415 - imports ZeroMQ

        channel = f"pytest-{os.getpid()}-{next(_numbers)}"
        # A bus that is there keeps the channel; it need not receive what the test sends.
        hardly_any = [{"can_id": 0x1FFFFFFF, "can_mask": 0x1FFFFFFF, "extended": True}]
        keeper = Bus(
            channel, "virtual", ignore_config=True, can_filters=hardly_any, broker=self.broker
        )
        self._held.enter_context(keeper)
        return f"virtual.{channel}"

    def _lease(self, pool: str, timeout: float) -> str:
        from canbroker.bus.lease import lease  # noqa: PLC0415 - imports ZeroMQ

        leased = lease(pool, timeout, broker=self.broker)
        return self._held.enter_context(leased).channel


@pytest.fixture(scope="session")
def canbroker_broker(pytestconfig: pytest.Config) -> Iterator[str]:
    """Address of the session's own broker, which all workers of pytest-xdist share.
    From its first use until the end of the session it is also the one that ``Bus()``, python-can's
    plugin and the command line find, in this process and those that it starts. The ini option
    ``canbroker_config`` names its configuration file, relative to pytest's own. If the variable
    ``CANBROKER_ADDRESS`` names a broker on another host, the session uses that one.
    """
    from canbroker.integrations import private_broker  # noqa: PLC0415 - imports ZeroMQ
    from canbroker.transport.place import ADDRESS_VARIABLE, remote_address  # noqa: PLC0415 - msgspec
    from canbroker.transport.runtime import Runtime  # noqa: PLC0415 - msgspec

    gateway = remote_address(None)
    if gateway is not None:
        yield str(gateway)
        return

    place = pytestconfig.stash[_PLACE]
    runtime = Runtime(Path(place.directory))
    private_broker.start(runtime, place.owner, _configuration(pytestconfig))
    address = str(runtime.address)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ADDRESS_VARIABLE, address)
        # If it is gone, one without configuration would be no help.
        patch.setenv("CANBROKER_AUTOSTART", "0")
        yield address


@pytest.fixture
def canbroker_channel(canbroker_broker: str, request: pytest.FixtureRequest) -> Iterator[Channels]:
    """Call it for a channel that is this test's alone until it ends; returns its name for ``Bus``.
    ``canbroker_channel()`` is a virtual one, ``canbroker_channel("rear")`` another;
    ``canbroker_channel(pool="bench", timeout=30)`` is leased from a pool of the configuration,
    as soon as one is free, within 30 s. The same call returns the same channel again.
    If the test fails, its report has the last traffic of them, as of ``candump -L``.
    """
    channels = request.node.stash[_CHANNELS] = Channels(canbroker_broker)
    try:
        yield channels
    finally:
        channels.close()


@pytest.fixture
def canbroker_bus(canbroker_broker: str, canbroker_channel: Channels) -> Iterator[Bus]:
    """A ``Bus`` on the virtual channel of this test, ``canbroker_channel()``; others may join."""
    from canbroker.client import Bus  # noqa: PLC0415 - imports ZeroMQ

    with Bus(canbroker_channel(), ignore_config=True, broker=canbroker_broker) as bus:
        yield bus


# -------------------------------------------------------------------------------------- hooks


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(_CONFIG, "canbroker: configuration file of the broker of the test session")


def pytest_configure(config: pytest.Config) -> None:
    """[controller and workers] Settles where the broker of the session is; touches nothing."""
    given = getattr(config, "workerinput", None)
    if given is not None:
        config.stash[_PLACE] = _Place(*given[_WORKER_KEY])
        return
    # Not below pytest's temporary directory: the paths of Unix sockets are short.
    name = f"canbroker-pytest-{os.urandom(6).hex()}"
    config.stash[_PLACE] = _Place(str(Path(tempfile.gettempdir(), name)), os.getpid())


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """[controller] Tells a worker of pytest-xdist, also one that replaces another."""
    node.workerinput[_WORKER_KEY] = tuple(node.config.stash[_PLACE])


def pytest_unconfigure(config: pytest.Config) -> None:
    """[controller] Ends the broker, if the session has used one."""
    place = config.stash.get(_PLACE, None)
    if place is None or place.owner != os.getpid():
        return
    if Path(place.directory).exists():
        from canbroker.integrations import private_broker  # noqa: PLC0415 - imports ZeroMQ
        from canbroker.transport.runtime import Runtime  # noqa: PLC0415 - imports msgspec

        runtime = Runtime(Path(place.directory))
        private_broker.stop(runtime)
        private_broker.remove(runtime)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the traffic of a test's channels to the report that it has failed."""
    report = yield
    channels = item.stash.get(_CHANNELS, None)
    if report.failed and channels is not None:
        from canbroker.integrations import recent_traffic  # noqa: PLC0415 - imports ZeroMQ

        for name, since_ns in channels.since_ns.items():
            text = recent_traffic.candump(channels.broker, name, _SHOWN_S, since_ns)
            report.sections.append((f"Traffic of {name}, last {_SHOWN_S:g} s", text))
    return report


def _configuration(config: pytest.Config) -> Path | None:
    """Absolute path of what the ini option names."""
    name: str = config.getini(_CONFIG)
    base = config.rootpath if config.inipath is None else config.inipath.parent
    return base / name if name else None
