"""``canbroker keys`` as users run it, and the question about a broker that is not known."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from canbroker.keys import authorized, identity, known_brokers
from canbroker.keys.offer import KeyOffer
from canbroker.model.key import PublicKey, SecretKey
from canbroker.system.entry_points import EntryPoint
from canbroker.transport import curve
from tests.support import commands

PATIENCE_S = 30.0
COMMAND = EntryPoint.COMMAND.command()

KEY = PublicKey(bytes([7]) * 32)
OTHER = PublicKey(bytes([9]) * 32)

#: What a client does before it connects.
CLIENT = """
import sys
from canbroker.errors import CanError
from canbroker.keys.first_use import keys_of
from canbroker.transport.address import parse_tcp
try:
    print(*keys_of(parse_tcp(sys.argv[1])))
except CanError as error:
    sys.exit(str(error))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of keys of this process and its children."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "canbroker"


run = partial(commands.run, "keys")


def succeed(*arguments: str) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fail(*arguments: str, code: int = 1) -> str:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


# ---------------------------------------------------------------------------------------- commands


def test_a_user_gets_a_key_once(folder: Path) -> None:
    made = PublicKey.parse(succeed("new").strip())
    assert identity.load_identity().public == made
    assert (folder / "identity").stat().st_mode & 0o777 == 0o600
    assert "identity is there already, and is not overwritten" in fail("new")
    assert succeed("show") == (
        f"this user    {made}\nthis broker  none; canbroker serve --listen makes one\n"
    )
    assert succeed("show", "--user") == f"{made}\n"
    assert fail("show", "--broker").startswith("canbroker: keys: this user's broker has no key yet")


def test_a_key_for_ci_is_a_file_and_then_a_variable(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = succeed("new", str(tmp_path / "ci.key"))
    assert not folder.exists()
    secret = (tmp_path / "ci.key").read_text()
    monkeypatch.setenv(identity.KEY_VARIABLE, secret)
    assert succeed("show", "--user") == made


def test_no_command_shows_a_secret(folder: Path, tmp_path: Path) -> None:
    made = run("new"), run("new", str(folder / "broker.key")), run("show"), run("list")
    said = "".join(done.stdout + done.stderr for done in made)
    for name in ("identity", "broker.key"):
        secret = (folder / name).read_text().splitlines()[-1]
        assert SecretKey.parse(secret).reveal_text() == secret
        assert secret.partition(":")[2] not in said
    assert len(re.findall("cb1:", said)) == 4
    assert "secret:" not in said


def test_a_secret_in_place_of_a_public_key_is_refused_and_not_repeated() -> None:
    _, secret = curve.new_pair()
    said = fail("authorize", "bob", secret.reveal_text(), code=2)
    assert "this is a secret key, which only its owner may have" in said
    assert secret.reveal_text().partition(":")[2] not in said


def test_names_come_and_go(folder: Path) -> None:
    assert succeed("authorize", "bob", str(KEY)) == "bob: observe\n"
    given = ("--role", "transmit", "--channel", "can0", "--channel", "can1")
    ranges = ("--transmit", "100-1ff", "--transmit", "x18DA0000-18DAFFFF")
    line = "bob: transmit, channels can0 can1, identifiers 100-1FF x18DA0000-18DAFFFF"
    assert succeed("authorize", "bob", str(OTHER), *given, *ranges) == f"{line}\n"
    path = authorized.authorized_path()
    assert succeed("list") == (
        f"authorized to use this user's broker ({path}):\n"
        f"  {line}\n    {KEY}\n    {OTHER}\n"
        f"known brokers ({known_brokers.known_brokers_path()}):\n  none\n"
    )
    assert "is a key of 'bob' already" in fail("authorize", "eve", str(KEY))
    assert succeed("revoke", "bob", str(KEY)) == f"bob: revoked {KEY}\n"
    assert succeed("revoke", "bob") == f"bob: revoked {OTHER}\n"
    assert fail("revoke", "bob") == f"canbroker: keys: 'bob' is not in {path}\n"
    assert "  nobody\n" in succeed("list")


def test_a_broker_is_trusted() -> None:
    assert succeed("trust", "tcp://Bench1:5655", str(KEY)) == "tcp://bench1:5655: trusted\n"
    succeed("trust", "tcp://bench1:5655", str(OTHER))
    assert f"  tcp://bench1:5655\n    {KEY}\n    {OTHER}\n" in succeed("list")
    succeed("trust", "tcp://bench1:5655", str(OTHER), "--only")
    path = known_brokers.known_brokers_path()
    assert known_brokers.load(path) == {"tcp://bench1:5655": (OTHER,)}


def test_commands_at_once_lose_nothing() -> None:
    keys = [PublicKey(bytes([number]) * 32) for number in range(1, 7)]
    running = [
        subprocess.Popen([*COMMAND, "keys", "authorize", f"user{number}", str(key)])
        for number, key in enumerate(keys)
    ]
    assert [process.wait(PATIENCE_S) for process in running] == [0] * 6
    assert set(authorized.load(authorized.authorized_path()).by_key) == set(keys)


def test_a_file_with_a_fault_is_named_with_its_line(folder: Path) -> None:
    succeed("authorize", "bob", str(KEY))
    path = authorized.authorized_path()
    path.write_text(path.read_text().replace('"observe"', '"obsrve"'))
    for command in (["list"], ["revoke", "bob"], ["authorize", "eve", str(OTHER)]):
        assert fail(*command) == (
            f"canbroker: keys: {path}, line 6, bob.role: must be observe, transmit or admin, "
            "got 'obsrve'\n"
        )


# --------------------------------------------------------------------------------------- first use


@contextmanager
def offering(key: PublicKey) -> Iterator[str]:
    """A broker, as far as it says its key; yields its address."""
    end = threading.Event()

    def serve(made: KeyOffer) -> None:
        while not end.is_set():
            if select.select([made], [], [], 0.05)[0]:
                made.answer()

    with KeyOffer("127.0.0.1", 0, key) as made:
        thread = threading.Thread(target=serve, args=[made])
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{made.port}"
        finally:
            end.set()
            thread.join()


class Terminal:
    """A client in the foreground of a terminal of its own."""

    def __init__(self, address: str) -> None:
        self._screen, terminal = pty.openpty()
        # The first terminal that the leader of a session opens is that of the session.
        program = f"import os\nos.open(os.ttyname(0), os.O_RDWR)\n{CLIENT}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, address],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)

    def read_until(self, text: str) -> str:
        """What is on the screen once ``text`` is."""
        shown = b""
        while text.encode() not in shown:
            assert select.select([self._screen], [], [], PATIENCE_S)[0], shown
            shown += os.read(self._screen, 1 << 16)
        return shown.decode().replace("\r\n", "\n")

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def end(self) -> tuple[int, str]:
        """The exit code, and what else was on the screen."""
        shown = b""
        while True:
            try:
                part = os.read(self._screen, 1 << 16)
            except OSError:  # nobody has the terminal open any more, which Linux calls an error
                break
            if not part:
                break
            shown += part
        os.close(self._screen)
        return self._process.wait(PATIENCE_S), shown.decode().replace("\r\n", "\n")


def client(address: str) -> subprocess.CompletedProcess[str]:
    """A client without a terminal."""
    return subprocess.run(
        [sys.executable, "-c", CLIENT, address],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_person_is_asked_once(folder: Path) -> None:
    with offering(KEY) as address:
        terminal = Terminal(address)
        shown = terminal.read_until("(yes/no)? ")
        assert (
            f"the broker at {address} is not known here. It says that its key is\n{KEY}\n" in shown
        )
        terminal.type("yes\n")
        code, shown = terminal.end()
        assert (code, shown) == (0, f"yes\n{KEY}\n")
        terminal = Terminal(address)
        assert terminal.end() == (0, f"{KEY}\n")
    assert known_brokers.load(known_brokers.known_brokers_path()) == {address: (KEY,)}


def test_a_person_says_no(folder: Path) -> None:
    with offering(KEY) as address:
        terminal = Terminal(address)
        terminal.read_until("(yes/no)? ")
        terminal.type("no\n")
        code, shown = terminal.end()
    assert (code, shown) == (1, f"no\nthe key of the broker at {address} was not accepted\n")
    assert not folder.exists()


def test_a_person_ends_the_input(folder: Path) -> None:
    with offering(KEY) as address:
        terminal = Terminal(address)
        terminal.read_until("(yes/no)? ")
        terminal.type("\x04")
        assert terminal.end()[0] == 1
    assert not folder.exists()


def test_a_script_is_told_the_command_which_makes_the_broker_known(folder: Path) -> None:
    with offering(KEY) as address:
        done = client(address)
        assert (done.returncode, done.stdout) == (1, "")
        assert not folder.exists()
        (command,) = re.findall(r"canbroker keys (trust \S+ \S+)$", done.stderr.strip())
        succeed(*command.split())
        assert client(address).stdout == f"{KEY}\n"


def test_a_key_in_the_address_needs_no_file(folder: Path) -> None:
    assert client(f"tcp://127.0.0.1:1?key={KEY}").stdout == f"{KEY}\n"
    assert not folder.exists()


def test_a_broker_with_a_new_key_is_found_among_those_that_are_known() -> None:
    with offering(OTHER) as address:
        succeed("trust", address, str(KEY))
        assert client(address).stdout == f"{KEY}\n", "the only one is not asked for"
        succeed("trust", address, str(OTHER))
        assert client(address).stdout == f"{OTHER} {KEY}\n"
