"""The text of keys; secrets show nowhere."""

from __future__ import annotations

import copy
import logging
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canbroker.model.key import PublicKey, SecretKey

RAW = bytes(range(32))
DIGITS = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


@given(st.binary(min_size=32, max_size=32))
def test_a_key_survives_its_text(raw: bytes) -> None:
    secret = SecretKey(raw)
    assert SecretKey.parse(secret.reveal_text()) == secret
    assert SecretKey.parse(secret.reveal_text()).reveal() == raw
    try:
        key = PublicKey(raw)
    except ValueError:  # one of the few that stand for no secret
        return
    assert PublicKey.parse(str(key)) == key
    assert PublicKey.parse(str(key)).raw == raw


def test_the_text_of_a_key() -> None:
    assert str(PublicKey(RAW)) == f"cb1:{DIGITS}"
    assert repr(PublicKey(RAW)) == f"<PublicKey cb1:{DIGITS}>"
    assert SecretKey(RAW).reveal_text() == f"cb1-secret:{DIGITS}"
    assert {PublicKey(RAW), PublicKey.parse(f"cb1:{DIGITS}")} == {PublicKey(RAW)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a key starts with cb1:, this one with ''"),
        (DIGITS, "a key starts with cb1:, this one with 'AAEC'"),
        (f"cb1-secret:{DIGITS}", "this is a secret key, which only its owner may have"),
        ("cb1:", "after cb1: a key has 43 characters, got 0; was it copied whole?"),
        (f"cb1:{DIGITS[:-1]}", "after cb1: a key has 43 characters, got 42; was it copied whole?"),
        (f"cb1:{DIGITS}A", "after cb1: a key has 43 characters, got 44; was it copied whole?"),
        (f"cb1:{DIGITS}=", "character 44 is '='"),
        (f"cb1:+{DIGITS[1:]}", "letters, digits, - and _ only; character 1 is '+'"),
        (f"cb1:{DIGITS[:5]}/", "character 6 is '/'"),
        (f"cb1:{DIGITS} ", "character 44 is ' '"),
        (f"cb1:{DIGITS}\n", r"character 44 is '\n'"),
        (f"cb1:{DIGITS[:-1]}\N{LATIN SMALL LETTER A WITH DIAERESIS}", "character 43 is 'ä'"),
        (f"cb1:{DIGITS[:-1]}9", "the last character of the key cannot be '9'; was it mistyped?"),
        ("cb1:" + "A" * 43, "a placeholder is not a key"),
    ],
)
def test_what_is_not_a_public_key(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared
        PublicKey.parse(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "low",
    [
        0,
        1,
        2**255 - 19 - 1,
        2**255 - 19,
        2**255 - 19 + 1,
        2**255,  # the highest bit does not count
        int.from_bytes(
            bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
            "little",
        ),
        int.from_bytes(
            bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
            "little",
        ),
    ],
)
def test_a_key_that_anybody_can_use_is_refused(low: int) -> None:
    with pytest.raises(ValueError, match="anybody has the secret key to it"):
        PublicKey(low.to_bytes(32, "little"))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_has_32_bytes(length: int) -> None:
    for kind in (PublicKey, SecretKey):
        with pytest.raises(ValueError, match=f"a key has 32 bytes, got {length}"):
            kind(bytes(length))


@pytest.mark.parametrize(
    "text",
    [
        DIGITS,
        f"cb1:{DIGITS}",
        f"cb1_secret:{DIGITS}",
        f"cb1-secret:{DIGITS[:-1]}",
        f"cb1-secret:{DIGITS}{DIGITS}",
        f"cb1-secret:{DIGITS[:-1]}9",
        f"cb1-secret:{DIGITS[:20]}%{DIGITS[20:]}",
    ],
)
def test_what_is_not_a_secret_key_is_not_quoted(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared
        SecretKey.parse(text)
    told = f"{caught.value!r} {caught.value.__context__!r} {caught.value.__cause__!r}"
    assert DIGITS[:8] not in told
    assert DIGITS[20:28] not in told


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        format,
        "{}".format,
        "%r".__mod__,
        lambda secret: repr([secret]),
        lambda secret: logging.LogRecord("x", 20, "x", 1, "%s", (secret,), None).getMessage(),
    ],
)
def test_a_secret_key_does_not_show(show: Any) -> None:
    shown = show(SecretKey(RAW))
    assert "<SecretKey>" in shown
    assert DIGITS[:8] not in shown
    assert "\\x01\\x02" not in shown


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy, msgspec.msgpack.encode])
def test_a_secret_key_is_neither_pickled_nor_copied(copied: Any) -> None:
    with pytest.raises(TypeError):
        copied(SecretKey(RAW))
    if copied is not copy.copy:  # which does not look into the dict
        with pytest.raises(TypeError):
            copied({"identity": SecretKey(RAW)})


def test_a_secret_key_has_no_dict_and_no_hash() -> None:
    with pytest.raises(TypeError):
        vars(SecretKey(RAW))
    with pytest.raises(TypeError):
        hash(SecretKey(RAW))
    assert SecretKey(RAW) != SecretKey(bytes(32))
    assert SecretKey(RAW) != RAW
