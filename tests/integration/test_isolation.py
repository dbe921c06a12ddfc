"""What the developer has configured on this machine is nothing to the tests."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import can

import canbroker
from canbroker import Bus
from canbroker.configuration import sources
from canbroker.configuration.bus_settings import gather
from canbroker.transport.runtime import Runtime
from tests.support.processes import Program

ROOT = Path(__file__).parents[2]


def test_nothing_is_configured() -> None:
    found = gather({}, {}, "bench")
    assert not found.values
    assert Path.home() != Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert all(Path.home() in path.parents for path in sources.config_files())
    assert can.util.load_file_config() == {}


def test_programs_that_tests_start_find_nothing_either(runtime: Runtime) -> None:
    with Program(
        """
        from canbroker.configuration import sources
        files = [str(path) for path in sources.config_files() if path != sources.SYSTEM_FILE]
        say([files, sources.from_environment(None)])
        """
    ) as program:
        files, values = program.said()
        assert program.end() == 0
    assert values == {}
    assert {Path(name).parent for name in files} == {Path(os.environ["HOME"])}


def test_the_tests_pass_for_who_has_configured_nonsense(tmp_path: Path) -> None:
    for name in ("can.conf", ".can", ".canrc"):
        tmp_path.joinpath(name).write_text("this is no configuration\n")
    environment = os.environ | {
        "HOME": str(tmp_path),
        "CAN_INTERFACE": "nonsense",
        "CAN_CONFIG": "{",
        "CAN_BITRATE_bench": "fast",
        "CANBROKER_ADDRESS": "ipc:///nowhere",
        "CANBROKER_AUTOSTART": "0",
    }
    others = (__file__, "-k", "not nonsense")
    report = ("--junitxml", str(tmp_path / "report.xml"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *report, *others],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    suites = ET.parse(tmp_path / "report.xml").getroot()  # noqa: S314 - pytest wrote it
    assert len(suites.findall(".//testcase")) == 3


def test_a_bus_is_what_its_arguments_say(runtime: Runtime) -> None:
    with Bus("x", "virtual") as bus, can.Bus("virtual.x", interface="canbroker") as theirs:
        assert bus.channel_info == theirs.channel_info == "virtual.x: virtual bus x"
        assert canbroker.rc == {}
