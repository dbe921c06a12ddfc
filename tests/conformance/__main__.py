"""``python -m tests.conformance``: runs python-can's tests in both ways, and prints counts."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from canbroker.system.entry_points import EntryPoint
from tests.conformance import source
from tests.conformance.known import KNOWN

FILES: Final = (
    "back2back_test.py",
    "contextmanager_test.py",
    "listener_test.py",
    "network_test.py",
    "notifier_test.py",
    "serial_test.py",
    "simplecyclic_test.py",
    "test_bus.py",
    "test_cyclic_socketcan.py",
    "test_detect_available_configs.py",
    "test_interface.py",
    "test_interface_virtual.py",
    "test_load_config.py",
    "test_load_file_config.py",
    "test_message_class.py",
    "test_message_filtering.py",
    "test_message_sync.py",
    "zero_dlc_test.py",
)

_ROOT: Final = Path(__file__).parents[2]
_TEST_S: Final = 60
_OUTCOMES: Final = ("passed", "listed", "skipped", "failed")

#: There is a channel at any time, as some test of detection expects.
_CONFIGURATION: Final = '[channels.conformance]\ninterface = "virtual"\n'


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument(
        "--checkout",
        type=Path,
        default=os.environ.get("CANBROKER_PYTHON_CAN"),
        help="python-can's source tree; default: $CANBROKER_PYTHON_CAN, or its distribution",
    )
    parser.add_argument("--way", choices=sorted(KNOWN), action="append", dest="ways")
    parser.add_argument("arguments", nargs="*", help="for pytest, after --")
    options = parser.parse_args()
    # Not the default one: the paths of Unix sockets are short.
    with tempfile.TemporaryDirectory(prefix="cb-", dir="/tmp") as name:
        directory = Path(name)
        if options.checkout is not None:
            tests = source.checkout(Path(options.checkout))
        else:
            tests = source.fetch("python-can", "test", directory)
        failed = False
        for way in options.ways or ("plugin", "names"):
            failed |= run(way, tests, directory / way, options.arguments) != 0
    return int(failed)


def run(way: str, tests: Path, directory: Path, arguments: list[str]) -> int:
    """Runs all files in one way, and prints the counts; returns pytest's exit code."""
    directory.mkdir()
    tally = directory / "tally.json"
    (directory / "pytest.ini").write_text("[pytest]\n")
    with broker(directory) as environment:
        code = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "--rootdir", str(tests)),
                *("-c", str(directory / "pytest.ini"), "--timeout", str(_TEST_S)),
                *("-p", "no:cacheprovider", "-p", "no:randomly", "-p", "tests.conformance.plugin"),
                *("--way", way, "--tally", str(tally), "-q", "-rfE", "--no-header", *arguments),
                *(str(tests / "test" / name) for name in FILES),
            ],
            cwd=_ROOT,
            env=environment,
            check=False,
        ).returncode
    if tally.exists():
        show(way, json.loads(tally.read_text()))
    return code


@contextmanager
def broker(directory: Path) -> Iterator[dict[str, str]]:
    """The environment of a process that shall use a broker of its own, and no configuration."""
    environment = {key: text for key, text in os.environ.items() if not key.startswith("CAN")}
    environment |= {"XDG_RUNTIME_DIR": str(directory), "HOME": str(directory)}
    environment["CANBROKER_AUTOSTART"] = "0"
    configuration = directory / "channels.toml"
    configuration.write_text(_CONFIGURATION)
    command = EntryPoint.COMMAND.command("serve", "-c", str(configuration))
    with subprocess.Popen(command, cwd=_ROOT, env=environment) as process:
        try:
            yield environment
        finally:
            process.terminate()


def show(way: str, tally: Mapping[str, Mapping[str, int]]) -> None:
    rows = [
        (name, [tally.get(name, {}).get(outcome, 0) for outcome in _OUTCOMES]) for name in FILES
    ]
    sums = [sum(counts[index] for _, counts in rows) for index in range(len(_OUTCOMES))]
    rows.append(("all", sums))
    lines = [f"{way:36}" + "".join(f"{outcome:>9}" for outcome in _OUTCOMES)]
    lines += [f"{name:36}" + "".join(f"{count:9}" for count in counts) for name, counts in rows]
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
