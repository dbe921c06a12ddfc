"""Which tests of which projects use a bus, and which of them cannot be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Project(NamedTuple):
    """A distribution on the package index, and what its source distribution has to run.

    ``folder`` is copied out of it, a package if ``is_package`` (one of our own name cannot be);
    ``files`` are paths in that folder that pytest is given.
    ``racing``: tests that race with themselves, so that they may fail on either bus, each with
    its reason.
    """

    distribution: str
    folder: str
    is_package: bool
    files: tuple[str, ...]
    racing: Mapping[str, str]


_TWO_RECEIVERS: Final = (
    "its network's Notifier and it receive from one bus, and either may be first"
)

PROJECTS: Final = (
    Project(
        "canopen",
        "test",
        True,
        (".",),
        {
            "test/test_network.py::TestScanner::test_scanner_search_limit": _TWO_RECEIVERS,
            "test/test_time.py::TestTime::test_time_producer": _TWO_RECEIVERS,
        },
    ),
    Project("can-isotp", "test", True, ("test_can_stack.py",), {}),
    Project("udsoncan", "test", True, ("test_connection.py",), {}),
    Project("cantools", "tests", False, ("test_tester.py", "test_monitor.py"), {}),
)
