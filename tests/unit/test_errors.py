from __future__ import annotations

import pickle

import can
import pytest

from canbroker import errors

NAMES = [
    "CanError",
    "CanInterfaceNotImplementedError",
    "CanInitializationError",
    "CanOperationError",
    "CanTimeoutError",
]


@pytest.mark.parametrize("name", NAMES)
def test_each_exception_is_what_python_cans_is(name: str) -> None:
    ours, theirs = getattr(errors, name), getattr(can, name)

    def bases(kind: type) -> set[str]:
        return {base.__name__ for base in kind.__mro__}

    assert bases(theirs) <= bases(ours)
    assert issubclass(ours, errors.CanError)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arguments", [(), ("broken",), ("broken", 5), ("broken", 0)])
def test_text_and_code_are_python_cans(name: str, arguments: tuple[str | int, ...]) -> None:
    ours, theirs = getattr(errors, name)(*arguments), getattr(can, name)(*arguments)
    assert str(ours) == str(theirs)
    assert ours.error_code == theirs.error_code


def test_an_error_survives_the_way_to_another_process() -> None:
    sent = errors.CanOperationError("broken", 5)
    received = pickle.loads(pickle.dumps(sent))  # noqa: S301 - made in the line above
    assert type(received) is errors.CanOperationError
    assert str(received) == str(sent)
    assert received.error_code == 5
