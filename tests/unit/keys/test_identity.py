"""Secret keys in files and in the environment: found, refused, and never shown."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path

import pytest

from canbroker.errors import CanInitializationError
from canbroker.keys import identity, secret_file
from canbroker.keys.broker_key import broker_key_path, load_broker_key
from canbroker.keys.identity import KEY_VARIABLE, find_identity, load_identity
from canbroker.model.key import SecretKey
from canbroker.transport import curve
from tests.support.systems import modes

KEY = SecretKey(bytes(range(32)))  # the same in each process: it names tests
PUBLIC = curve.public_of(KEY)
DIGITS = KEY.reveal_text().partition(":")[2]


def put(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_pairs_of_keys_are_new_and_belong_together() -> None:
    public, secret = curve.new_pair()
    assert curve.public_of(secret) == public
    assert public != PUBLIC


def test_a_key_survives_its_file(folder: Path) -> None:
    secret_file.create(folder / "deeper" / "x", KEY)
    assert secret_file.load(folder / "deeper" / "x") == KEY
    assert str(PUBLIC) in (folder / "deeper" / "x").read_text()


def test_the_identity_is_that_of_the_variable_or_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_identity() is None
    with pytest.raises(CanInitializationError) as caught:
        load_identity()
    assert str(caught.value) == (
        f"this user has no key for remote brokers, neither in {folder / 'identity'} nor in "
        f"{KEY_VARIABLE}; make one: canbroker keys new"
    )
    secret_file.create(identity.identity_path(), KEY)
    found = load_identity()
    assert (found.secret, found.public, found.origin) == (KEY, PUBLIC, f"{folder / 'identity'}")
    other_public, other = curve.new_pair()
    for text in (f" {other.reveal_text()}\n", f"# as in a file\n{other.reveal_text()}\n"):
        monkeypatch.setenv(KEY_VARIABLE, text)
        found = load_identity()
        assert found.public == other_public
        assert found.origin == f"environment variable {KEY_VARIABLE}"
    monkeypatch.setenv(KEY_VARIABLE, "")
    assert load_identity().public == PUBLIC


def test_an_identity_shows_its_public_key_alone(folder: Path) -> None:
    secret_file.create(identity.identity_path(), KEY)
    found = load_identity()
    assert str(PUBLIC) in repr(found)
    assert DIGITS[:8] not in repr(found)
    with pytest.raises(TypeError):
        pickle.dumps(found)


def test_comments_and_empty_lines_are_passed_over() -> None:
    text = f"\n# mine\n  {KEY.reveal_text()}  \r\n\n"
    assert secret_file.parse(text.encode(), "x") == KEY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "key.file: contains no key"),
        ("# nothing\n", "key.file: contains no key"),
        (f"# two\n{KEY.reveal_text()}\n{KEY.reveal_text()}\n", "key.file, line 3: a second key"),
        (f"\n{DIGITS}\n", "key.file, line 2: a secret key starts with cb1-secret:"),
        (f"cb1-secret:{DIGITS[:-1]}\n", "key.file, line 1: after cb1-secret: a key has 43"),
        (f"cb1-secret:\N{SNOWMAN}{DIGITS}\n", "key.file, line 1: after cb1-secret: a key has lett"),
        (f"{PUBLIC}\n", "key.file, line 1: this is a public key; a secret one starts with"),
        (f"key = {KEY.reveal_text()}\n", "key.file, line 1: a secret key starts with cb1-secret:"),
    ],
)
def test_a_fault_of_a_file_is_told_without_the_secret(text: str, said: str) -> None:
    with pytest.raises(CanInitializationError) as caught:
        secret_file.parse(text.encode(), "key.file")
    assert str(caught.value).startswith(said)
    _shows_nothing(caught.value)


def test_a_file_that_is_not_text_is_told_without_the_secret() -> None:
    with pytest.raises(CanInitializationError) as caught:
        secret_file.parse(b"\xff" + KEY.reveal_text().encode(), "key.file")
    _shows_nothing(caught.value)


@pytest.mark.parametrize(
    "text", [DIGITS, f"cb1-secret:{DIGITS}x", f"cb1-secret:{DIGITS[:30]}", f"\udcff{DIGITS}"]
)
def test_a_fault_of_the_variable_is_told_without_the_secret(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, text)
    with pytest.raises(CanInitializationError) as caught:
        load_identity()
    assert str(caught.value).startswith(f"environment variable {KEY_VARIABLE}, line 1: ")
    _shows_nothing(caught.value)


def _shows_nothing(error: BaseException) -> None:
    """Neither its text, nor that of others in its chain, nor what they carry has the secret."""
    chain: BaseException | None = error
    while chain is not None:
        for told in (str(chain), repr(chain.args), repr(vars(chain))):
            assert DIGITS[:12] not in told
        chain = chain.__cause__ or chain.__context__
    assert DIGITS[:12] not in "".join(traceback.format_exception(error))


@modes
def test_a_secret_that_others_may_read_is_refused(folder: Path) -> None:
    path = put(identity.identity_path(), f"{KEY.reveal_text()}\n")
    path.chmod(0o640)
    with pytest.raises(CanInitializationError, match=r"mode 640, must be 600\): chmod 600 "):
        load_identity()


# ------------------------------------------------------------------------------------ broker's key


def test_a_broker_makes_its_key_once(folder: Path) -> None:
    made = load_broker_key()
    assert load_broker_key() == made
    assert broker_key_path() == folder / "broker.key"
    assert broker_key_path().stat().st_mode & 0o777 == 0o600


def test_of_two_brokers_that_make_a_key_at_once_both_have_the_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beaten(path: Path, secret: SecretKey) -> None:
        monkeypatch.undo()
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder.parent))
        secret_file.create(path, KEY)
        secret_file.create(path, secret)

    monkeypatch.setattr(secret_file, "create", beaten)
    assert load_broker_key() == KEY


def test_a_key_that_cannot_be_written_is_an_error(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("a file is in the way")
    with pytest.raises(CanInitializationError, match=r"cannot make .*canbroker: File exists"):
        load_broker_key()
