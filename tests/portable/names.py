"""Which names of the standard library Windows lacks, as the stubs of mypy's typeshed know it.

``python -m tests.portable.names`` writes them to ``names.json``, which ``start/sitecustomize.py``
reads in every process.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import mypy

PATH: Final = Path(__file__).with_name("names.json")

#: Modules that both systems have.
_SHARED: Final = ("_socket", "errno", "os", "select", "signal", "socket", "stat", "time")

#: Modules that Windows lacks.
MISSING: Final = (
    *("fcntl", "grp", "posix", "pty", "pwd", "resource", "readline", "syslog", "termios", "tty"),
)

_STUBS: Final = Path(mypy.__file__).parent / "typeshed" / "stdlib"


def missing_names() -> dict[str, list[str]]:
    """The names that Linux has and Windows lacks, by module."""
    return {module: sorted(_names(module, "linux") - _names(module, "win32")) for module in _SHARED}


def _names(module: str, platform: str) -> set[str]:
    path = _STUBS / f"{module}.pyi"
    if not path.exists():
        path = _STUBS / module / "__init__.pyi"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return set(_defined(tree.body, SimpleNamespace(platform=platform, version_info=(3, 11))))


def _defined(body: Iterable[ast.stmt], system: SimpleNamespace) -> Iterator[str]:
    for node in body:
        match node:
            case ast.If():
                yield from _defined(node.body if _holds(node.test, system) else node.orelse, system)
            case ast.FunctionDef() | ast.ClassDef():
                yield node.name
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign():
                yield from (each.id for each in node.targets if isinstance(each, ast.Name))
            case ast.ImportFrom() | ast.Import():
                yield from (each.asname or each.name for each in node.names)


def _holds(test: ast.expr, system: SimpleNamespace) -> bool:
    compiled = compile(ast.Expression(test), "stub", "eval")
    return bool(eval(compiled, {"sys": system, "TYPE_CHECKING": True}))  # noqa: S307 - of typeshed


if __name__ == "__main__":
    found = {"missing": MISSING, "names": missing_names()}
    PATH.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
