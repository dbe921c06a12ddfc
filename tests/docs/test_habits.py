"""CI, pre-commit, issue forms, Makefile and CHANGELOG are well formed and fit each other."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(
    set((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) - {GITHUB / "ISSUE_TEMPLATE/config.yml"}
)
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def commands(workflow: Path) -> list[str]:
    """The shell commands of all steps of all jobs."""
    jobs = loaded(workflow)["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def targets_named(text: str) -> set[str]:
    return set(re.findall(r"^\s*(?:run: )?make ([a-z-]+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_targets_and_scripts_that_exist(workflow: Path) -> None:
    named = set().union(*map(targets_named, commands(workflow)))
    assert named
    assert named <= TARGETS
    for command in commands(workflow):
        program = command.split()[0]
        if "/" in program:
            assert (ROOT / program).exists(), program


def test_the_script_of_ci_calls_targets_that_exist() -> None:
    named = targets_named((ROOT / ".ci" / "run").read_text())
    assert {"check", "test", "ecosystem", "test-newest"} <= named <= TARGETS


def test_ci_has_each_supported_python_on_each_system() -> None:
    jobs = loaded(GITHUB / "workflows" / "ci.yml")["jobs"]
    pythons = ["3.11", "3.12", "3.13", "3.14"]
    assert jobs["linux"]["strategy"]["matrix"]["python"] == pythons
    assert jobs["elsewhere"]["strategy"]["matrix"] == {
        "os": ["macos-latest", "windows-latest"],
        "python": pythons,
    }
    assert "continue-on-error" not in jobs["linux"]


def test_pre_commit_runs_what_make_check_runs() -> None:
    (local,) = loaded(ROOT / ".pre-commit-config.yaml")["repos"]
    recipe = MAKEFILE.partition("\ncheck:")[2].partition("\n\n")[0]
    checked = re.findall(r"^\t\$\(BIN\)/(.*)", recipe, flags=re.MULTILINE)
    hooked = [hook["entry"].removeprefix(".venv/bin/") for hook in local["hooks"]]
    assert [entry.removesuffix(" --force-exclude") for entry in hooked] == [
        command.removesuffix(" .") for command in checked
    ]


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.name)
def test_an_issue_form_is_one(form: Path) -> None:
    content = loaded(form)
    assert content["name"]
    assert content["description"]
    fields = content["body"]
    assert {field["type"] for field in fields} <= {"textarea", "input", "dropdown", "checkboxes"}
    names = [field["id"] for field in fields]
    assert len(set(names)) == len(names)
    for field in fields:
        assert field["attributes"]["label"]
        assert (field["type"] == "dropdown") == ("options" in field["attributes"])


def test_a_bug_report_asks_for_status_adapter_and_versions() -> None:
    fields = {field["id"]: field for field in loaded(GITHUB / "ISSUE_TEMPLATE" / "bug.yml")["body"]}
    for name in ("what", "program", "status", "adapter", "versions"):
        assert fields[name]["validations"]["required"], name
    assert "canbroker status" in fields["status"]["attributes"]["label"]


# ---------------------------------------------------------------------------------------- Makefile


def test_make_shows_every_target_under_a_heading() -> None:
    make = shutil.which("make")
    assert make is not None
    shown = subprocess.run([make], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^  make ([a-z-]+)\s+\S", shown, flags=re.MULTILINE)
    assert listed[:5] == ["demo", "test", "check", "bench", "docs"]
    assert set(listed) == TARGETS
    assert len(re.findall(r"^\S.*$", shown, flags=re.MULTILINE)) > 1


def test_every_target_is_phony() -> None:
    """None makes a file of its name, and a folder of its name must not stop it: ``docs``."""
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)", MAKEFILE, flags=re.MULTILINE)
    assert phony is not None
    assert set(phony[1].replace("\\\n", " ").split()) == TARGETS


# --------------------------------------------------------------------------------------- CHANGELOG


def test_the_changelog_has_the_version_of_the_package() -> None:
    """In the form of Keep a Changelog: known headings, and versions with a date."""
    text = (ROOT / "CHANGELOG.md").read_text()
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    headings = re.findall(r"^## (.*)", text, flags=re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(version[1])}\] - \d{{4}}-\d\d-\d\d", headings[1])
    kinds = set(re.findall(r"^### (.*)", text, flags=re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
