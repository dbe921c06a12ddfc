"""Where python-can's tests come from: its source distribution, or a checkout."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tarfile
from pathlib import Path


def fetch(directory: Path) -> Path:
    """Downloads python-can's source distribution, of the version that is installed.

    Returns ``directory``, with the package ``test`` in it and nothing else of python-can.

    :raises subprocess.CalledProcessError: pip cannot get it; it has said why.
    """
    version = importlib.metadata.version("python-can")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-binary", ":all:", "--dest", str(directory)),
            f"python-can=={version}",
        ],
        check=True,
    )
    [archive] = directory.glob("python_can-*.tar.gz")
    with tarfile.open(archive) as content:
        top = f"python_can-{version}/"
        for member in content.getmembers():
            if member.isfile() and member.name.startswith(f"{top}test/"):
                member.name = member.name.removeprefix(top)
                content.extract(member, directory, filter="data")
    archive.unlink()
    return directory


def checkout(path: Path) -> Path:
    """A checkout of python-can.

    :raises SystemExit: there are no tests in it.
    """
    if not (path / "test" / "back2back_test.py").is_file():
        raise SystemExit(f"no tests of python-can in {path}")
    return path.resolve()
