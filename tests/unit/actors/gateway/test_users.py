"""Who users are at each moment, and what is written down of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from canbroker.actors.gateway.audit import Audit
from canbroker.actors.gateway.policy import Refused
from canbroker.actors.gateway.users import UNENCRYPTED, Users
from canbroker.keys.authorized import AuthorizedFile, Role
from canbroker.model.key import PublicKey
from canbroker.transport.zap import Peer

BOB, BOBS_OTHER, EVE = (PublicKey(bytes([n]) * 32) for n in (5, 6, 7))


class House:
    """Users, their file, and the audit log."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "authorized.toml"
        self.log = directory / "audit.log"
        self.grant(f'[bob]\nkeys = ["{BOB}", "{BOBS_OTHER}"]\nrole = "transmit"\n')
        self.users = self.made()

    def made(self, *, encrypted: bool = True) -> Users:
        return Users(AuthorizedFile(self.file), Audit(self.log), encrypted=encrypted)

    def grant(self, text: str) -> None:
        self.file.write_text(text)
        self.file.chmod(0o600)

    def follow(self) -> bool:
        return any(self.users.follow() for _ in range(3))

    def events(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.users.close()


def peer(key: PublicKey | None, name: str = "bob") -> Peer:
    return Peer(name, 3, key, "192.0.2.1")


def test_a_peer_is_its_text() -> None:
    for one in (peer(BOB), peer(None), Peer("a.b-c@d", 10**9, EVE, "fe80::1%eth0")):
        assert Peer.parse(str(one)) == one
    assert len(str(Peer("n" * 64, 10**9, EVE, "f" * 45))) < 256  # as ZeroMQ limits it


def test_a_key_says_who_it_is(house: House) -> None:
    assert house.users.admit(BOB, "192.0.2.1") == "bob"
    user = house.users.of(peer(BOB))
    assert user is not None
    assert (user.grant.name, user.grant.role) == ("bob", Role.TRANSMIT)
    assert house.users.admit(EVE, "192.0.2.1") is None
    assert house.users.of(peer(EVE)) is None


def test_two_keys_of_a_user_do_not_share_ids(house: House) -> None:
    one, other = house.users.of(peer(BOB)), house.users.of(peer(BOBS_OTHER))
    assert one is not None
    assert other is not None
    assert one.owner != other.owner


def test_rights_are_those_of_this_moment(house: House) -> None:
    house.grant(f'[bob]\nkeys = ["{BOB}"]\nrole = "observe"\nchannels = ["can0"]\n')
    assert house.follow()
    user = house.users.of(peer(BOB))
    assert user is not None
    assert user.grant.role is Role.OBSERVE
    assert house.users.of(peer(BOBS_OTHER)) is None  # a connection of it may be open
    (line,) = house.events()
    assert (line["event"], line["user"], line["role"]) == ("rights", "bob", "observe")
    assert (line["keys"], line["channels"]) == (str(BOB), "can0")
    assert not house.follow()


def test_whoever_is_revoked_is_written_down(house: House) -> None:
    house.grant("")
    assert house.follow()
    assert house.users.of(peer(BOB)) is None
    (line,) = house.events()
    assert (line["user"], line["role"]) == ("bob", "none")


def test_a_file_with_a_fault_changes_nothing(house: House) -> None:
    house.grant("[bob\n")
    assert not house.follow()
    assert house.users.of(peer(BOB)) is not None
    assert "authorized.toml" in house.users.fault


def test_strangers_are_written_down_once(house: House) -> None:
    for _ in range(200):
        assert house.users.admit(EVE, "192.0.2.9") is None
    house.users.step(0)
    (line,) = house.events()
    assert (line["event"], line["key"], line["address"]) == ("unauthorized", str(EVE), "192.0.2.9")


def test_refusals_are_counted_by_user_and_kind(house: House) -> None:
    for user, kind in [("bob", "transmit")] * 3 + [("bob", "role"), ("eve", "client")]:
        house.users.refuse(user, Refused(kind, f"{user} may not"), "can0.tx")
    assert house.users.refusals() == {"bob": {"transmit": 3, "role": 1}, "eve": {"client": 1}}


def test_without_encryption_everybody_is_one_user(house: House) -> None:
    plain = house.made(encrypted=False)
    assert plain.admit(None, "127.0.0.1") == "unencrypted"
    assert plain.of(peer(None)) is UNENCRYPTED
    assert house.users.admit(None, "127.0.0.1") is None
    assert house.users.of(peer(None)) is None
    plain.close()
