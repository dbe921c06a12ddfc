"""authorized.toml: what it yields, errors that say where they are, and what is in force."""

from __future__ import annotations

import logging
from pathlib import Path
from textwrap import dedent

import pytest

from canbroker.errors import CanInitializationError
from canbroker.keys import authorized
from canbroker.keys.authorized import AuthorizedFile, Grant, IdentifierRange, Role
from canbroker.model.key import PublicKey
from tests.support.systems import modes

ALICE, BOB, BOBS_OTHER = (PublicKey(bytes([number]) * 32) for number in (1, 2, 3))
SECRET = "cb1-secret:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"  # noqa: S105 - of nobody

FILE = f"""\
# The bench.
[alice]
keys = ["{ALICE}"]
role = "admin"

[bob]
keys = [
    "{BOB}",  # laptop
    "{BOBS_OTHER}",
]
role = "transmit"
channels = ["can0"]
transmit = ["100-1FF", "x18DA0000-18DAFFFF", "7e0"]
"""


def error_of(text: str) -> str:
    with pytest.raises(CanInitializationError) as caught:
        authorized.parse(dedent(text), "a.toml")
    return str(caught.value)


# --------------------------------------------------------------------------------------- contents


def test_a_file_yields_grants_by_name_and_by_key() -> None:
    found = authorized.parse(FILE, "a.toml")
    bob = Grant(
        "bob",
        (BOB, BOBS_OTHER),
        Role.TRANSMIT,
        ("can0",),
        (
            IdentifierRange(0x100, 0x1FF, False),
            IdentifierRange(0x18DA0000, 0x18DAFFFF, True),
            IdentifierRange(0x7E0, 0x7E0, False),
        ),
    )
    alice = Grant("alice", (ALICE,), Role.ADMIN)
    assert found.grants == {"alice": alice, "bob": bob}
    assert found.by_key == {ALICE: alice, BOB: bob, BOBS_OTHER: bob}


def test_what_a_user_may() -> None:
    grants = authorized.parse(FILE, "a.toml").grants
    alice, bob = grants["alice"], grants["bob"]
    assert alice.may_use("anything")
    assert alice.may_transmit(0x123, False)
    assert alice.may_transmit(0x1FFFFFFF, True)
    assert bob.may_use("can0")
    assert not bob.may_use("can1")
    for identifier, extended in (
        (0x100, False),
        (0x1FF, False),
        (0x7E0, False),
        (0x18DA1234, True),
    ):
        assert bob.may_transmit(identifier, extended)
    for identifier, extended in ((0xFF, False), (0x200, False), (0x100, True), (0x7E1, False)):
        assert not bob.may_transmit(identifier, extended)


def test_an_observer_transmits_nothing() -> None:
    assert not Grant("eve", (BOB,), Role.OBSERVE).may_transmit(0x123, False)


def test_empty_lists_allow_nothing() -> None:
    text = f'[a]\nkeys = ["{BOB}"]\nrole = "transmit"\nchannels = []\ntransmit = []\n'
    grant = authorized.parse(text, "a.toml").grants["a"]
    assert not grant.may_use("can0")
    assert not grant.may_transmit(0x123, False)


def test_roles_include_those_before() -> None:
    assert Role.OBSERVE < Role.TRANSMIT < Role.ADMIN
    assert [str(role) for role in Role] == ["observe", "transmit", "admin"]
    assert f"{Role.ADMIN}" == "admin"
    assert [Role.parse(str(role)) for role in Role] == list(Role)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("100-1ff", "100-1FF"), ("0", "000"), ("7FF", "7FF"), ("x0-1fffffff", "x00000000-1FFFFFFF")],
)
def test_ranges_as_text(text: str, canonical: str) -> None:
    assert str(IdentifierRange.parse(text)) == canonical
    assert IdentifierRange.parse(canonical) == IdentifierRange.parse(text)


# ----------------------------------------------------------------------------------------- errors

GOOD = f'keys = ["{BOB}"]\nrole = "transmit"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[bob", "a.toml: not valid TOML: "),
        (f"[bob]\n{GOOD}rol = 1\n", "a.toml, line 4, bob.rol: unknown key; known are keys, role, "),
        ('[bob]\nrole = "admin"\n', 'a.toml, line 1, bob: has no keys; add them: keys = ["cb1:…"]'),
        ('[bob]\nkeys = []\nrole = "admin"\n', "a.toml, line 2, bob.keys: must be a list of keys"),
        (f'[bob]\nkeys = "{BOB}"\nrole = "admin"\n', "line 2, bob.keys: must be a list of keys"),
        ('[bob]\nkeys = [1]\nrole = "admin"\n', 'line 2, bob.keys: must be a text, "cb1:…", got 1'),
        (
            f'[bob]\nkeys = ["{BOB}", "cb1:x"]\nrole = "admin"\n',
            "line 2, bob.keys: key 2: after cb1: a key has 43 characters, got 1",
        ),
        (f'[bob]\nkeys = ["{BOB}", "{BOB}"]\nrole = "admin"\n', "key 2: cb1:AgIC"),
        (f'[bob]\nkeys = ["{BOB}"]\n', "line 1, bob: has no role; add one: role = "),
        (
            f'[bob]\nkeys = ["{BOB}"]\nrole = "trasmit"\n',
            "a.toml, line 3, bob.role: must be observe, transmit or admin, got 'trasmit'",
        ),
        (f'[bob]\nkeys = ["{BOB}"]\nrole = 3\n', "line 3, bob.role: must be observe, "),
        (f'[bob]\n{GOOD}channels = "can0"\n', "line 4, bob.channels: must be a list of texts"),
        (f"[bob]\n{GOOD}channels = [0]\n", "line 4, bob.channels: must be a list of texts"),
        (f"[bob]\n{GOOD}transmit = [256]\n", "line 4, bob.transmit: must be a list of texts"),
        (f'[bob]\n{GOOD}transmit = ["0x1"]\n', "line 4, bob.transmit: '0x1' is not FIRST-LAST in"),
        (f'[bob]\n{GOOD}transmit = ["200-1FF"]\n', "'200-1FF' ends before it begins"),
        (f'[bob]\n{GOOD}transmit = ["18DA0000"]\n', "goes beyond 7FF; 29-bit identifiers have x"),
        (f'[bob]\n{GOOD}transmit = ["x20000000"]\n', "'x20000000' goes beyond 1FFFFFFF"),
        (f'[bob]\n{GOOD}transmit = ["x1-x2"]\n', "'x1-x2' is not FIRST-LAST"),
        (
            f'[bob]\nkeys = ["{BOB}"]\nrole = "observe"\ntransmit = ["1"]\n',
            "line 4, bob.transmit: role observe transmits nothing; remove this key",
        ),
        (f'["bob smith"]\n{GOOD}', "line 1, bob smith: a name has 1 to 64 letters, digits and"),
        (f"[-rf]\n{GOOD}", "a name has 1 to 64 letters"),
        (f"[bob]\n{GOOD}[eve]\n{GOOD}", "line 5, eve.keys: cb1:AgIC"),
        ("bob = 1\n", "a.toml, line 1, bob: must be a table: [bob]"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_file_line_and_key(text: str, said: str) -> None:
    assert said in error_of(text)


@pytest.mark.parametrize(
    "text",
    [
        f'[bob]\nkeys = ["{SECRET}"]\nrole = "admin"\n',
        f'[bob]\nkeys = "{SECRET}"\nrole = "admin"\n',
        f'[bob]\nkeys = ["{SECRET.removeprefix("cb1-")}"]\nrole = "admin"\n',
        f'bob = "{SECRET}"\n',
        f"[bob]\nkeys = [{SECRET}]\n",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_quoted(text: str) -> None:
    assert SECRET[11:20] not in error_of(text)


# --------------------------------------------------------------------------------------- in force


@pytest.fixture
def path(folder: Path) -> Path:
    assert authorized.authorized_path().parent == folder
    return authorized.authorized_path()


def put(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def test_a_change_is_taken_over_when_it_was_seen_twice(path: Path) -> None:
    put(path, FILE)
    file = AuthorizedFile(path)
    assert set(file.current.grants) == {"alice", "bob"}
    assert not file.poll()
    put(path, FILE.partition("[bob]")[0])
    assert not file.poll()
    assert set(file.current.grants) == {"alice", "bob"}
    assert file.poll()
    assert set(file.current.grants) == {"alice"}
    assert not file.poll()


def test_a_file_that_is_empty_for_a_moment_ends_nothing(path: Path) -> None:
    put(path, FILE)
    file = AuthorizedFile(path)
    put(path, "")
    assert not file.poll()
    put(path, FILE + "# saved\n")
    assert not file.poll()
    assert not file.poll(), "the grants are the same"
    assert set(file.current.grants) == {"alice", "bob"}


def test_a_broken_file_keeps_the_former_grants_and_says_so_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(path, FILE)
    file = AuthorizedFile(path)
    put(path, FILE.replace('"admin"', '"root"'))
    assert [file.poll() for _ in range(4)] == [False] * 4
    assert set(file.current.grants) == {"alice", "bob"}
    fault = f"{path}, line 4, alice.role: must be observe, transmit or admin, got 'root'"
    assert file.fault == fault
    assert [
        record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR
    ] == [f"{fault}; what was authorized before stays in force"]
    put(path, FILE.replace('"admin"', '"observe"'))
    assert [file.poll() for _ in range(2)] == [False, True]
    assert file.fault is None
    assert file.current.grants["alice"].role is Role.OBSERVE


@modes
def test_a_file_that_others_may_write_from_now_on_keeps_the_former_grants(path: Path) -> None:
    put(path, FILE)
    file = AuthorizedFile(path)
    path.chmod(0o666)
    assert [file.poll() for _ in range(2)] == [False, False]
    assert file.fault is not None
    assert "chmod 644" in file.fault
    assert set(file.current.grants) == {"alice", "bob"}
    path.chmod(0o644)
    assert [file.poll() for _ in range(2)] == [False, False]
    assert file.fault is None


def test_a_file_that_is_removed_authorizes_nobody(path: Path) -> None:
    put(path, FILE)
    file = AuthorizedFile(path)
    path.unlink()
    assert [file.poll() for _ in range(3)] == [False, True, False]
    assert file.current.grants == {}
    assert file.fault is None
    put(path, FILE)
    assert [file.poll() for _ in range(2)] == [False, True]


def test_a_file_that_is_broken_from_the_beginning_authorizes_nobody_until_it_is_mended(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(path, "[")
    file = AuthorizedFile(path)
    assert file.current.grants == {}
    assert "nobody is authorized" in caplog.text
    put(path, FILE)
    assert [file.poll() for _ in range(2)] == [False, True]


def test_without_a_file_nobody_is_authorized(path: Path) -> None:
    file = AuthorizedFile(path)
    assert (file.current.grants, file.fault) == ({}, None)
    assert repr(file) == f"<AuthorizedFile {path} names=0>"
