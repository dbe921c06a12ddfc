"""Every snippet of the documentation is run, in the order of its page, as a reader would."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from canbroker.actors import sections
from canbroker.backends import configured
from canbroker.configuration.broker_file import parse
from canbroker.keys import authorized
from canbroker.transport.runtime import Runtime
from tests.docs.pages import GOLDEN, PAGES, Block, blocks, fences
from tests.support.remote import free_port

pytestmark = pytest.mark.long

#: What snippets name, and the packages for it that a plain development environment does not have.
_EXTRAS = {
    **{name: name for name in ("cantools", "duckdb", "pandas", "polars")},
    **dict.fromkeys((".signals(", "--dbc", "--decode", "database ="), "cantools"),
    "parquet": "pyarrow",
    "to_arrow": "pyarrow",
}

#: Pages without a snippet that works without a package.
_PAGES_THAT_NEED = {"guides/signals.md": "cantools"}

#: Files that no other snippet of their page names, and what makes up for it.
_NAMED_BY_NOBODY = {
    "rules.yml": "Prometheus reads it; tests/docs/test_metrics_page.py has promtool check it",
    "pytest.ini": "pytest finds it by its name; the channels of the test are those that it says",
    "canbroker.service": "systemd-analyze checks it, where there is one; its command is run",
    "compose.yaml": "tests/docs/test_pipelines_page.py checks it, and runs what it starts",
    "nats.service": "likewise",
    **dict.fromkeys(("hub.conf", "leaf.conf", "hub_streams.py"), "likewise"),
}

_WITH_SNIPPETS = [page for page in PAGES if page != GOLDEN and blocks(page)]


@pytest.fixture(autouse=True)
def keys_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.timeout(240)  # each block is a process, some with much to import
@pytest.mark.parametrize("page", _WITH_SNIPPETS)
def test_the_snippets_of(page: str, runtime: Runtime, tmp_path: Path) -> None:
    if not _has(needed := _PAGES_THAT_NEED.get(page, "canbroker")):
        pytest.skip(f"the page needs {needed}: make ecosystem")
    missing: set[str] = set()
    left_out: set[str] = set()  # files
    ports = {"5655": free_port(), "4222": free_port()}  # of a gateway, and of NATS
    with ExitStack() as stack:
        for block in (on_this_host(block, ports) for block in blocks(page)):
            if absent := {
                package
                for name, package in _EXTRAS.items()
                if name in block.text and not _has(package)
            }:
                missing |= absent
                if block.title is not None:
                    left_out.add(block.title)
            elif any(title in block.text for title in left_out):
                continue  # it needs that file
            elif block.title is not None:
                _check(block)
                (tmp_path / block.title).write_text(_without_hardware(block))
            elif block.background:
                stack.enter_context(_in_background(block.text, tmp_path))
            else:
                _run(_command(block), tmp_path)
    if missing:
        pytest.skip(f"a snippet needs {', '.join(missing)}: make ecosystem; the others have run")


@pytest.mark.parametrize("page", _WITH_SNIPPETS)
def test_every_block_is_run_or_is_a_file_for_one_that_is(page: str) -> None:
    found = blocks(page)
    assert fences(page) == 2 * len(found), "a block that is not read as one"
    for number, block in enumerate(found):
        if block.title is None:
            assert block.language in {"python", "sh"}, f"nobody runs {block.text!r}"
        elif block.title not in _NAMED_BY_NOBODY:
            later = [other.text for other in found[number + 1 :]]
            assert any(block.title in text for text in later), f"nobody uses {block.title}"


def test_the_blocks_of_the_protocol_are_golden_vectors() -> None:
    found = blocks(GOLDEN)
    assert fences(GOLDEN) == 2 * len(found), "a block that is not read as one"
    assert {block.language for block in found} == {"hex"}
    assert all(block.title for block in found)


def on_this_host(block: Block, ports: Mapping[str, int]) -> Block:
    """With this host as the bench in the lab, at ports that are free."""
    text = block.text.replace("tcp://bench1:", "tcp://localhost:")
    for port, free in ports.items():
        text = text.replace(f":{port}", f":{free}")
    return dataclasses.replace(block, text=text)


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _command(block: Block) -> list[str]:
    if block.language == "python":
        return [sys.executable, "-W", "error", "-c", block.text]
    return ["/bin/bash", "-eu", "-c", block.text]


def _run(command: list[str], place: Path) -> str:
    """Runs it to its end, which must be a good one; returns what it wrote to standard error."""
    done = subprocess.run(
        command,
        cwd=place,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
    return done.stderr


@contextmanager
def _in_background(command: str, place: Path) -> Iterator[None]:
    with subprocess.Popen(
        ["/bin/bash", "-c", f"exec {command}"],
        cwd=place,
        env=_environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert any("ready at" in line or "Server is ready" in line for line in process.stderr)
        try:
            yield
        finally:
            process.terminate()


def _environment() -> dict[str, str]:
    """That of a user who has canbroker installed."""
    here = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{here}:{os.environ['PATH']}"}


def _check(block: Block) -> None:
    """That a file which is shown is what it says, before anything is put in place of hardware."""
    if block.title == "authorized.toml":
        assert authorized.parse(block.text, block.title).grants
    elif block.language == "toml":
        config = parse(block.text, str(block.title))
        assert configured.check(config)
        sections.check(config)
    elif block.language == "python":
        compile(block.text, str(block.title), "exec")


def _without_hardware(block: Block) -> str:
    """A bench whose channels are virtual, as programs see it the same."""
    if block.language != "toml":
        return block.text
    return re.sub(r'interface = "pcan"\nchannel = ".*"\n', 'interface = "virtual"\n', block.text)


@pytest.mark.parametrize("page", ["guides/systemd.md", "guides/remote.md"])
def test_a_unit_of_systemd_is_one(page: str, runtime: Runtime, tmp_path: Path) -> None:
    unit = unit_of(page)
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, flags=re.MULTILINE)
    program, *arguments = command.split()
    assert arguments[:2] == ["serve", "-c"]
    config = tmp_path / "bench.toml"
    config.write_text('[channels.body]\ninterface = "virtual"\n')
    with _in_background(f"canbroker serve -c {config}", tmp_path):
        _run(["canbroker", "dump", "body", "-T", "1"], tmp_path)
    analyze = _analyze()
    installed = Path(sys.executable).with_name("canbroker")
    path = tmp_path / "canbroker.service"
    path.write_text(unit.replace(program, str(installed)))
    whose = ["--user"] if "default.target" in unit else []
    # What it does not know is worth a line to it, not a status.
    assert str(path) not in _run([analyze, *whose, "verify", str(path)], tmp_path)


def test_the_unit_of_a_bench_leaves_the_broker_few_rights(tmp_path: Path) -> None:
    """By the judgement of systemd: 0 is nothing at all, 9.6 a service that says nothing."""
    path = tmp_path / "canbroker.service"
    path.write_text(unit_of("guides/remote.md"))
    _run([_analyze(), "security", "--offline=yes", "--threshold=25", str(path)], tmp_path)


def unit_of(page: str) -> str:
    (unit,) = [block.text for block in blocks(page) if block.title == "canbroker.service"]
    return unit


def _analyze() -> str:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze to check the rest of the unit")
    return analyze
