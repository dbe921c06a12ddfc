"""Shows Windows' Python to the modules of canbroker, on Linux: see docs/design/systems.md.

With this folder and the repository in ``PYTHONPATH``, Python imports this module first of all. If
``CANBROKER_AS_WINDOWS`` is 1, import statements in modules of canbroker get other modules than
those everywhere else: each is a view of the real one, without the names that Windows lacks, and
with doubles of what Windows does differently. All other packages see Linux. If it is ``tests``, the
tests see Windows, too: which of them need more than it has?
"""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType


class View(ModuleType):
    """A module as Windows has it. What is assigned to it goes to the real one, but for doubles."""

    def __init__(
        self, real: ModuleType, hidden: Iterable[str], doubles: Mapping[str, object]
    ) -> None:
        """
        :param hidden: names that Windows lacks.
        :param doubles: what to show instead of, or besides, the real module's, by name.
        """
        super().__init__(real.__name__, real.__doc__)
        self.__dict__.update(doubles, _real=real, _hidden=frozenset(hidden), _replaced={})

    def __getattr__(self, name: str) -> object:
        real = self.__dict__["_real"]
        if name in self.__dict__["_hidden"]:
            raise AttributeError(f"Windows has no {real.__name__}.{name}")
        return getattr(real, name)

    def __setattr__(self, name: str, value: object) -> None:
        real = self.__dict__["_real"]
        if name in self.__dict__:
            self.__dict__[name] = value
            return
        if hasattr(real, name):
            self.__dict__["_replaced"].setdefault(name, getattr(real, name))
        setattr(real, name, value)

    def __delattr__(self, name: str) -> None:
        """What was replaced is as before: pytest deletes what it has not found in ``__dict__``."""
        real, replaced = self.__dict__["_real"], self.__dict__["_replaced"]
        if name in replaced:
            setattr(real, name, replaced.pop(name))
        else:
            delattr(real, name)


class Importer:
    """Takes the place of ``__import__``, which import statements call."""

    def __init__(
        self,
        packages: Iterable[str],
        missing: Iterable[str],
        hidden: Mapping[str, Sequence[str]],
    ) -> None:
        """
        :param packages: whose modules see Windows.
        :param missing: modules that Windows lacks.
        :param hidden: names that it lacks, by module.
        """
        self._packages = frozenset(packages)
        self._missing = frozenset(missing)
        self._hidden = hidden
        self._views: dict[str, ModuleType] = {}
        self._real = builtins.__import__
        self._has_changed_loops = False

    def __call__(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 - as of the built-in function
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = None,
        level: int = 0,
    ) -> ModuleType:
        package = str((globals or {}).get("__package__"))
        is_ours = package.partition(".")[0] in self._packages and not level
        is_ours = is_ours and not package.startswith(_OWN)
        if is_ours and name == "msvcrt":
            return MSVCRT
        if is_ours and name.partition(".")[0] in self._missing:
            raise ModuleNotFoundError(f"Windows has no module {name!r}", name=name)
        found: ModuleType = self._real(name, globals, locals, fromlist or (), level)
        if name.partition(".")[0] == "asyncio" and not self._has_changed_loops:
            self._has_changed_loops = change_event_loops()
        return self._view(found) if is_ours else found

    def _view(self, real: ModuleType) -> ModuleType:
        """``real`` as canbroker's modules see it; itself if Windows has the same."""
        name = real.__name__
        if name not in DOUBLES and name not in self._hidden:
            return real
        if name not in self._views:
            doubles = DOUBLES[name]() if name in DOUBLES else {}
            self._views[name] = View(real, self._hidden.get(name, ()), doubles)
        return self._views[name]


_PACKAGES = {"1": ["canbroker"], "tests": ["canbroker", "tests"]}
_OWN = "tests.portable"  # these modules

if (_who := os.environ.get("CANBROKER_AS_WINDOWS")) in _PACKAGES:
    # Here: processes that do not ask for it need not pay for it.
    from pathlib import Path

    from tests.portable.doubles import DOUBLES, MSVCRT, change_event_loops, change_paths

    _names = json.loads(Path(__file__).parents[1].joinpath("names.json").read_bytes())
    change_paths()
    builtins.__import__ = Importer(_PACKAGES[_who], _names["missing"], _names["names"])
