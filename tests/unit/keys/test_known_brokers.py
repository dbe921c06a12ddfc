"""known_brokers.toml, and what happens at the first use of a broker."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from canbroker.errors import CanInitializationError
from canbroker.keys import first_use, known_brokers
from canbroker.keys.first_use import keys_of
from canbroker.model.key import PublicKey
from canbroker.transport.address import parse_tcp

FIRST, SECOND = (PublicKey(bytes([number]) * 32) for number in (1, 2))
BENCH = parse_tcp("tcp://bench1:5655")


def error_of(text: str) -> str:
    with pytest.raises(CanInitializationError) as caught:
        known_brokers.parse(dedent(text), "k.toml")
    return str(caught.value)


def test_a_file_yields_the_keys_of_each_address() -> None:
    text = f'"tcp://Bench1:5655" = ["{FIRST}", "{SECOND}"]\n"tcp://[fe80::A]:1" = ["{FIRST}"]\n'
    assert known_brokers.parse(text, "k.toml") == {
        "tcp://bench1:5655": (FIRST, SECOND),
        "tcp://[fe80::a]:1": (FIRST,),
    }


def test_an_address_is_known_whatever_else_it_names() -> None:
    for text in ("tcp://BENCH1:5655", f"tcp://bench1:5655?key={FIRST}#can0.rx"):
        assert known_brokers.name_of(parse_tcp(text)) == "tcp://bench1:5655"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "k.toml: not valid TOML: "),
        (f'bench1 = ["{FIRST}"]\n', 'k.toml, line 1, bench1: must be an address: "tcp://bench1'),
        (f'\n"tcp://bench1" = ["{FIRST}"]\n', "k.toml, line 2, tcp://bench1: address 'tcp://bench1'"),
        (f'"tcp://b:1#can0" = ["{FIRST}"]\n', 'must be the address alone: "tcp://b:1"'),
        (f'"tcp://b:01" = ["{FIRST}"]\n', 'must be the address alone: "tcp://b:1"'),
        (f'"tcp://b:1" = ["{FIRST}"]\n"tcp://B:1" = ["{FIRST}"]\n', 'line 2, tcp://B:1: "tcp:'),
        (f'"tcp://b:1" = "{FIRST}"\n', "line 1, tcp://b:1: must be a list of keys"),
        ('"tcp://b:1" = []\n', "line 1, tcp://b:1: must be a list of keys"),
        ('"tcp://b:1" = ["cb1:x"]\n', "after cb1: a key has 43 characters, got 1"),
        (f'[tcp]\nx = ["{FIRST}"]\n', "line 1, tcp: must be an address"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_file_line_and_address(text: str, said: str) -> None:
    assert said in error_of(text)


# -------------------------------------------------------------------------------------- first use


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[PublicKey | None]:
    """What the broker says when it is asked; a test changes it. One item for each question."""
    answers: list[PublicKey | None] = []

    def ask(host: str, port: int, timeout: float) -> PublicKey | None:
        assert (host, port) == ("bench1", 5655)
        assert timeout > 0
        return answers.pop(0)

    monkeypatch.setattr(first_use, "ask_for_key", ask)
    return answers


@pytest.fixture
def path(folder: Path) -> Path:
    assert known_brokers.known_brokers_path().parent == folder
    return known_brokers.known_brokers_path()


def put(path: Path, *keys: PublicKey) -> None:
    path.write_text(f'"tcp://bench1:5655" = [{", ".join(f"{str(key)!r}" for key in keys)}]\n')
    path.chmod(0o600)


def test_a_key_in_the_address_is_enough(folder: Path, offered: list[PublicKey | None]) -> None:
    assert keys_of(parse_tcp(f"tcp://bench1:5655?key={FIRST}")) == (FIRST,)
    assert list(folder.iterdir()) == []


def test_a_connection_without_encryption_needs_no_key(
    folder: Path, offered: list[PublicKey | None]
) -> None:
    assert keys_of(parse_tcp("tcp://127.0.0.1:5655?key=none")) == ()


def test_a_known_broker_is_not_asked(path: Path, offered: list[PublicKey | None]) -> None:
    put(path, FIRST)
    assert keys_of(parse_tcp("tcp://BENCH1:5655")) == (FIRST,)


def test_of_several_known_keys_the_offered_one_is_first(
    path: Path, offered: list[PublicKey | None]
) -> None:
    put(path, FIRST, SECOND)
    offered += [SECOND, FIRST, None, PublicKey(bytes([3]) * 32)]
    assert keys_of(BENCH) == (SECOND, FIRST)
    assert [keys_of(BENCH) for _ in range(3)] == [(FIRST, SECOND)] * 3


def test_without_a_terminal_an_unknown_broker_is_refused_with_its_key_and_the_command(
    path: Path, offered: list[PublicKey | None]
) -> None:
    offered.append(FIRST)
    with pytest.raises(CanInitializationError) as caught:
        keys_of(BENCH)
    assert str(caught.value) == (
        f"the broker at tcp://bench1:5655 is not known here; it says that its key is {FIRST}; if "
        "canbroker keys show prints the same on its machine: "
        f"canbroker keys trust tcp://bench1:5655 {FIRST}"
    )
    assert not path.exists()


def test_a_broker_that_does_not_say_its_key(path: Path, offered: list[PublicKey | None]) -> None:
    offered.append(None)
    with pytest.raises(CanInitializationError) as caught:
        keys_of(BENCH)
    assert "does not say its key (UDP port 5655)" in str(caught.value)
    assert str(caught.value).endswith("here: canbroker keys trust tcp://bench1:5655 KEY")


@pytest.mark.parametrize("said", ["yes\n", "  YES\n", "yes"])
def test_a_key_that_the_user_accepts_is_known_from_then_on(
    path: Path,
    offered: list[PublicKey | None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    said: str,
) -> None:
    monkeypatch.setattr(first_use, "_terminal", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    offered.append(FIRST)
    assert keys_of(BENCH) == (FIRST,)
    assert f"\n{FIRST}\n" in capsys.readouterr().err
    assert keys_of(BENCH) == (FIRST,), "nobody is asked again"
    assert known_brokers.load(path) == {"tcp://bench1:5655": (FIRST,)}


@pytest.mark.parametrize("said", ["no\n", "\n", "", "y\n", "yes please\n"])
def test_whatever_is_not_yes_is_no(
    path: Path, offered: list[PublicKey | None], monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(first_use, "_terminal", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    offered.append(FIRST)
    with pytest.raises(CanInitializationError, match="was not accepted"):
        keys_of(BENCH)
    assert not path.exists()


def test_a_process_without_standard_input_has_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert not first_use._terminal()
