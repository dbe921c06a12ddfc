"""The table of actor kinds."""

from __future__ import annotations

import importlib
import inspect

import pytest

from canbroker.actors.kinds import KINDS, Demand


@pytest.mark.parametrize("name", KINDS)
def test_each_row_names_what_there_is(name: str) -> None:
    kind = KINDS[name]
    assert kind.spec.__struct_config__.tag == name
    assert kind.runs_for
    module, _, class_name = kind.actor.partition(":")
    actor = getattr(importlib.import_module(module), class_name)
    assert list(inspect.signature(actor).parameters) == ["spec"]
    parameters = list(inspect.signature(actor.run).parameters.values())
    assert [parameter.kind for parameter in parameters] == [parameters[0].kind] * 3
    assert parameters[1].name == "lifelines"


def test_who_wants_which_kind() -> None:
    assert KINDS["channel"].runs_for == Demand.CONFIGURED | Demand.CLIENTS
    assert KINDS["scheduler"].runs_for == Demand.REQUESTED
    assert KINDS["recorder"].runs_for == Demand.CONFIGURED | Demand.REQUESTED
