"""Where other projects' tests come from: a source distribution, or a checkout of python-can."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tarfile
from pathlib import Path


def fetch(distribution: str, folder: str, directory: Path) -> Path:
    """Downloads a source distribution, of the version that is installed.

    Returns ``directory``, with the distribution's ``folder`` in it and nothing else of it.

    :raises subprocess.CalledProcessError: pip cannot get it; it has said why.
    """
    version = importlib.metadata.version(distribution)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-binary", ":all:", "--dest", str(directory)),
            f"{distribution}=={version}",
        ],
        check=True,
    )
    [archive] = directory.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        for member in content.getmembers():
            _, _, path = member.name.partition("/")
            if member.isfile() and path.startswith(f"{folder}/"):
                member.name = path
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
