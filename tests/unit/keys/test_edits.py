"""Commands change files of keys and keep what a person wrote there."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canbroker.errors import CanInitializationError
from canbroker.keys import authorized, edits, known_brokers
from canbroker.keys.authorized import Grant, IdentifierRange, Role
from canbroker.keys.edits import Rights
from canbroker.model.key import PublicKey
from canbroker.transport.address import parse_tcp

KEYS = [PublicKey(bytes([number]) * 32) for number in range(1, 8)]
ALICE, BOB, EVE = KEYS[:3]

FILE = f"""\
# Bench 1.

[alice]   # of the other team
role = "admin"
keys = [ "{ALICE}" ]  # laptop

# Bob is here until May.
[bob]
keys = [
    "{BOB}",  # old
    # and to come
]
transmit = ["100"]
role = "transmit"
# The end.
"""


@pytest.fixture
def path(folder: Path) -> Path:
    made = authorized.authorized_path()
    made.write_text(FILE)
    made.chmod(0o640)
    return made


def changed(path: Path) -> set[str]:
    """The lines that are new, and those that are gone."""
    before, after = FILE.splitlines(), path.read_text().splitlines()
    return {f"-{line}" for line in before if line not in after} | {
        f"+{line}" for line in after if line not in before
    }


def test_a_new_key_of_a_name_is_added_to_its_list(path: Path) -> None:
    grant = edits.authorize(path, "bob", EVE, Rights())
    assert grant == Grant(
        "bob", (BOB, EVE), Role.TRANSMIT, None, (IdentifierRange(0x100, 0x100, False),)
    )
    assert changed(path) == {f'+    "{EVE}"'}
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_key_that_is_there_changes_nothing(path: Path) -> None:
    edits.authorize(path, "bob", BOB, Rights())
    assert path.read_text() == FILE


def test_only_what_is_told_changes(path: Path) -> None:
    edits.authorize(path, "bob", BOB, Rights(channels=["can0"]))
    assert changed(path) == {'+channels = ["can0"]'}
    edits.authorize(path, "bob", BOB, Rights(transmit=[IdentifierRange.parse("x1-2")]))
    assert authorized.load(path).grants["bob"].transmit == (IdentifierRange(1, 2, True),)


def test_an_observer_loses_the_identifiers(path: Path) -> None:
    grant = edits.authorize(path, "bob", BOB, Rights(Role.OBSERVE))
    assert (grant.role, grant.transmit) == (Role.OBSERVE, None)
    with pytest.raises(CanInitializationError, match="which transmits nothing: give it another"):
        edits.authorize(path, "bob", BOB, Rights(transmit=[IdentifierRange.parse("1")]))


def test_a_new_name_observes_unless_more_is_said(path: Path) -> None:
    assert edits.authorize(path, "eve", EVE, Rights()).role is Role.OBSERVE
    assert edits.authorize(path, "eve", EVE, Rights(Role.ADMIN)).role is Role.ADMIN
    assert changed(path) == {"+[eve]", f'+keys = ["{EVE}"]'}
    assert set(authorized.load(path).grants) == {"alice", "bob", "eve"}


def test_the_key_of_another_name_is_refused(path: Path) -> None:
    with pytest.raises(CanInitializationError, match="is a key of 'alice' already"):
        edits.authorize(path, "bob", ALICE, Rights())
    assert path.read_text() == FILE


def test_a_new_file_says_what_it_is(path: Path) -> None:
    path.unlink()
    edits.authorize(path, "eve", EVE, Rights(Role.TRANSMIT, ["can0"], []))
    assert path.read_text().startswith("# Who may use this user's canbroker")
    assert path.stat().st_mode & 0o777 == 0o600
    grant = authorized.load(path).grants["eve"]
    assert grant == Grant("eve", (EVE,), Role.TRANSMIT, ("can0",), ())


def test_a_name_that_is_revoked_leaves_the_comments_of_the_next_one(path: Path) -> None:
    assert edits.revoke(path, "alice", None) == (ALICE,)
    text = path.read_text()
    assert text.startswith("# Bench 1.\n")
    assert FILE[FILE.index("# Bob is here") :] in text
    assert edits.revoke(path, "bob", None) == (BOB,)
    assert "# The end." in path.read_text()
    assert authorized.load(path).grants == {}


def test_one_key_of_several_is_revoked(path: Path) -> None:
    edits.authorize(path, "bob", EVE, Rights())
    assert edits.revoke(path, "bob", BOB) == (BOB,)
    assert authorized.load(path).grants["bob"].keys == (EVE,)
    assert edits.revoke(path, "bob", EVE) == (EVE,)
    assert set(authorized.load(path).grants) == {"alice"}


def test_what_is_not_there_cannot_be_revoked(path: Path) -> None:
    with pytest.raises(CanInitializationError, match="'eve' is not in "):
        edits.revoke(path, "eve", None)
    with pytest.raises(CanInitializationError, match="is not a key of 'bob' in "):
        edits.revoke(path, "bob", EVE)
    assert path.read_text() == FILE


def test_a_file_with_a_fault_is_left_alone(path: Path) -> None:
    broken = FILE.replace('"admin"', '"root"')
    path.write_text(broken)
    with pytest.raises(CanInitializationError, match=r"line 4, alice\.role: must be observe"):
        edits.authorize(path, "eve", EVE, Rights())
    with pytest.raises(CanInitializationError, match=r"line 4, alice\.role"):
        edits.revoke(path, "bob", None)
    assert path.read_text() == broken


def test_brokers_that_are_trusted(folder: Path) -> None:
    path, bench = known_brokers.known_brokers_path(), parse_tcp("tcp://Bench1:5655")
    edits.trust(path, bench, ALICE)
    path.write_text(f"{path.read_text().rstrip()}  # the lab's\n")
    edits.trust(path, bench, BOB)
    edits.trust(path, parse_tcp("tcp://[::1]:1"), EVE)
    assert known_brokers.load(path) == {
        "tcp://bench1:5655": (ALICE, BOB),
        "tcp://[::1]:1": (EVE,),
    }
    assert "# the lab's" in path.read_text()
    edits.trust(path, bench, EVE, only=True)
    assert known_brokers.load(path)["tcp://bench1:5655"] == (EVE,)


def test_of_commands_at_once_none_is_lost(path: Path) -> None:
    def add(number: int) -> None:
        edits.authorize(path, f"user{number}", KEYS[number], Rights())

    threads = [threading.Thread(target=add, args=[number]) for number in range(2, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(authorized.load(path).grants) == 7


# ---------------------------------------------------------------------------- any file, any change

_SPACE = st.sampled_from(["", "\n", "# a comment\n", "\n\n# another\n"])


@st.composite
def documents(draw: st.DrawFn) -> str:
    """authorized.toml as people write it: tables, dotted keys, inline tables, comments."""
    text = draw(_SPACE)
    for name, key in draw(st.permutations(list(zip("abcd", KEYS, strict=False))))[
        : draw(st.integers(0, 4))
    ]:
        role = draw(st.sampled_from(["observe", "transmit", "admin"]))
        keys = draw(st.sampled_from([f'["{key}"]', f'[ "{key}" , ]', f'[\n"{key}", # x\n]']))
        inline = f'{name} = {{ role = "{role}", keys = ["{key}"] }}\n'
        dotted = f'{name}.role = "{role}"\n{draw(_SPACE)}{name}.keys = {keys}\n'
        table = f'[{name}] # {name}\nrole = "{role}"\n{draw(_SPACE)}keys = {keys}\n'
        inside = "[" in text.replace('["', "").replace("[\n", "").replace("[ ", "")
        text += draw(st.sampled_from([table] if inside else [table, dotted, inline]))
        text += draw(_SPACE)
    return draw(st.sampled_from([text, text.rstrip("\n"), text.replace("\n", "\r\n")]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents(), st.sampled_from("abcde"), st.sampled_from(KEYS), st.sampled_from(list(Role)))
def test_a_change_changes_what_it_says_and_no_comment(
    path: Path, text: str, name: str, key: PublicKey, role: Role
) -> None:
    path.write_bytes(text.encode())
    before = authorized.load(path)
    owner = before.by_key.get(key)
    if owner is not None and owner.name != name:
        with pytest.raises(CanInitializationError, match="already"):
            edits.authorize(path, name, key, Rights(role))
        return
    edits.authorize(path, name, key, Rights(role, ["can0"]))
    after = dict(authorized.load(path).grants)
    mine = after.pop(name)
    keys = before.grants[name].keys if name in before.grants else ()
    assert (mine.role, mine.channels) == (role, ("can0",))
    assert set(mine.keys) == {*keys, key}
    others = {each: grant for each, grant in before.grants.items() if each != name}
    assert after == others
    assert path.read_text().count("#") >= text.count("#")
    edits.revoke(path, name, None)
    assert authorized.load(path).grants == others
