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


def test_a_missing_right_is_an_error_of_opening_and_of_an_open_bus() -> None:
    error = errors.CanPermissionError("'bob' may not transmit 223", "bob", "transmit", 0x223)
    assert isinstance(error, errors.CanOperationError)
    assert isinstance(error, errors.CanInitializationError)
    received = pickle.loads(pickle.dumps(error))  # noqa: S301 - made in the line above
    assert str(received) == "'bob' may not transmit 223"
    assert (received.name, received.role, received.identifier) == ("bob", "transmit", 0x223)


def test_an_error_survives_the_way_to_another_process() -> None:
    sent = errors.CanOperationError("broken", 5)
    received = pickle.loads(pickle.dumps(sent))  # noqa: S301 - made in the line above
    assert type(received) is errors.CanOperationError
    assert str(received) == str(sent)
    assert received.error_code == 5
