"""pytest's part: puts canbroker in python-can's place before its tests are imported.

``--way plugin``: python-can's interface ``virtual`` is canbroker's plugin; the rest is python-can.
``--way names``: every public class of python-can that canbroker has is canbroker's.

Python-can is imported as late as its tests would do it, when pytest captures the standard output:
a ``Printer`` remembers the one that there is then, and closes any other.
"""

from __future__ import annotations

import json
from collections import Counter
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.known import KNOWN, NOT_OURS

_tally: dict[str, Counter[str]] = {}
_taken: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--way", choices=sorted(KNOWN), required=True)
    parser.addoption("--tally", type=Path, required=True, help="File for the counts (JSON).")


def pytest_make_collect_report(collector: pytest.Collector) -> None:
    if isinstance(collector, pytest.File) and not _taken:
        from tests.conformance import ways  # noqa: PLC0415 - imports python-can

        way = collector.config.getoption("--way")
        _taken.append(way)
        ways.WAYS[way]()


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: Any) -> None:
    if name == "CyclicSocketCan":  # is about periodic sending, and needs no SocketCAN
        obj.INTERFACE_1 = obj.INTERFACE_2 = "virtual"
        obj.__unittest_skip__ = False
    elif name == "SimpleSerialLoopTest":
        from tests.conformance import ways  # noqa: PLC0415 - as above

        kind = ways.SERIAL[collector.config.getoption("--way")]

        def set_up(self: Any) -> None:
            self.bus = kind("loop")
            self.preserves_channel = False  # our messages have one, and serial's have none

        obj.setUp = set_up


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    known = KNOWN[config.getoption("--way")]
    unused = set(known)
    not_ours = NOT_OURS[config.getoption("--way")]
    strangers = tuple(f"[{name}]" for name in _other_plugins())
    others = [
        item
        for item in items
        if item.nodeid.startswith(not_ours) or item.nodeid.endswith(strangers)
    ]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]
    for item in items:
        name = item.nodeid.removeprefix("test/")
        for prefix, reason in known.items():
            if name == prefix or name.startswith((f"{prefix}::", f"{prefix}[")):
                unused.discard(prefix)
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    if unused and not config.getoption("keyword"):
        raise pytest.UsageError(f"on the list, but no tests: {', '.join(sorted(unused))}")


def _other_plugins() -> set[str]:
    """Interfaces of python-can that other packages bring, which happen to be installed here."""
    return {point.name for point in entry_points(group="can.interface")} - {"canbroker"}


def pytest_report_teststatus(report: pytest.TestReport) -> None:
    if report.when != "call" and report.passed:
        return
    outcome = "listed" if hasattr(report, "wasxfail") and not report.passed else report.outcome
    name = Path(report.nodeid.partition("::")[0]).name
    _tally.setdefault(name, Counter())[outcome] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.getoption("--tally").write_text(json.dumps(_tally))
