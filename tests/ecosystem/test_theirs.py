"""What passes on python-can's virtual bus passes on ours: canopen's, can-isotp's, udsoncan's and
cantools' own tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from canbroker.transport.runtime import Runtime
from tests.conformance import source
from tests.ecosystem.theirs.projects import PROJECTS, Project

_ROOT: Final = Path(__file__).parents[2]
_TEST_S: Final = 60
_PROJECT_S: Final = 200
_TRIES: Final = 2


@pytest.mark.timeout(3 * _PROJECT_S)
@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.distribution)
def test_what_passes_on_python_cans_bus_passes_on_ours(
    runtime: Runtime, tmp_path: Path, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    source.fetch(project.distribution, project.folder, tmp_path)
    marker = tmp_path / project.folder / "__init__.py"
    if project.is_package:
        marker.touch()  # some leave that out, too
    else:
        marker.unlink(missing_ok=True)
    files = [str(Path(project.folder, name)) for name in project.files]
    theirs = _outcomes("virtual", tmp_path, files)
    ours = _outcomes("canbroker", tmp_path, files)
    passed = {name for name, outcome in theirs.items() if outcome == "passed"}
    assert passed, "nothing has run"
    failed = {name for name in passed - set(project.racing) if ours.get(name) != "passed"}
    for _ in range(_TRIES):  # they wait 0.3 s for other threads, and this machine may be busy
        if failed:
            again = _outcomes("canbroker", tmp_path, sorted(failed))
            failed = {name for name in failed if again.get(name) != "passed"}
    with capsys.disabled():
        print(f"\n{project.distribution}: {_counts(theirs)} on virtual, {_counts(ours)} on ours")  # noqa: T201
    assert failed == set()
    assert set(project.racing) <= set(theirs), "on the list, but no tests"


def _outcomes(bus: str, directory: Path, tests: Sequence[str]) -> Mapping[str, str]:
    """How each of these tests, or of those in these files, ends on this bus."""
    found = directory / f"{bus}.json"
    found.unlink(missing_ok=True)
    (directory / "pytest.ini").write_text("[pytest]\n")
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    environment.pop("PYTHONWARNINGS", None)  # not all of them close what they open
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--rootdir", ".", "-c", "pytest.ini"),
            *("--timeout", str(_TEST_S), "-p", "no:cacheprovider", "-p", "no:randomly"),
            *("-p", "tests.ecosystem.theirs.plugin", "--bus", bus, "--outcomes", str(found)),
            *("-q", "-rfE", "--no-header", *tests),
        ],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PROJECT_S,
        check=False,
    )
    print(f"--- on {bus}\n{done.stdout}")  # noqa: T201
    assert found.exists()
    outcomes: dict[str, str] = json.loads(found.read_text())
    return outcomes


def _counts(outcomes: Mapping[str, str]) -> str:
    counts = Counter(outcomes.values())
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in sorted(counts))
