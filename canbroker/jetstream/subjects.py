"""Subjects: ``can.v1.<site>.<bench>.<channel>.<kind>``, and for signals two names more.

A name is one token: letters, digits, ``_`` and ``-`` stay, each other byte becomes ``%XX``. So a
name may have dots, blanks and the wildcards of NATS.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

PREFIX: Final = "can.v1"

#: Kinds of subjects: frames, requests to transmit, the channel's state, values of signals.
FRAMES: Final = "rx"
COMMANDS: Final = "tx"
STATE: Final = "state"
SIGNAL: Final = "signal"

#: The longest name, in characters; channels' are shorter.
MAX_NAME: Final = 128

_TOKEN: Final = re.compile(r"(?:[A-Za-z0-9_-]|%[0-9A-F]{2})+")


class Subject(NamedTuple):
    """What a subject names; ``message`` and ``signal`` are empty if it is not that of a signal."""

    site: str
    bench: str
    channel: str
    kind: str
    message: str = ""
    signal: str = ""

    def __str__(self) -> str:
        """The subject in NATS."""
        names = (self.message, self.signal) if self.kind == SIGNAL else ()
        return _join(self.site, self.bench, self.channel, self.kind, *map(encode_name, names))


def encode_name(name: str) -> str:
    """A name as a token of subjects.

    :raises ValueError: it is empty, too long, or not printable.
    """
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(f"a name has 1 to {MAX_NAME} printable characters, got {name[:200]!r}")
    return quote(name, safe="").replace(".", "%2E").replace("~", "%7E")


def decode_name(token: str) -> str:
    """The name that a token stands for.

    :raises ValueError: :func:`encode_name` does not make such a token.
    """
    if not _TOKEN.fullmatch(token):
        raise ValueError(f"{token[:200]!r} is not a name as subjects have it")
    try:
        name = unquote(token, errors="strict")
        is_canonical = encode_name(name) == token
    except (UnicodeDecodeError, ValueError):
        is_canonical = False
    if not is_canonical:
        raise ValueError(f"{token[:200]!r} is not a name as subjects have it")
    return name


def frames(site: str | None = None, bench: str | None = None, channel: str | None = None) -> str:
    """The subject of a channel's frames; ``None`` stands for any name."""
    return _join(site, bench, channel, FRAMES)


def state(site: str | None = None, bench: str | None = None, channel: str | None = None) -> str:
    """The subject of a channel's state; ``None`` stands for any name."""
    return _join(site, bench, channel, STATE)


def commands(site: str | None = None, bench: str | None = None, channel: str | None = None) -> str:
    """The subject of requests to transmit on a channel; ``None`` stands for any name."""
    return _join(site, bench, channel, COMMANDS)


def signals(
    site: str | None = None,
    bench: str | None = None,
    channel: str | None = None,
    message: str | None = None,
    signal: str | None = None,
) -> str:
    """The subject of a signal's values; ``None`` stands for any name."""
    return _join(site, bench, channel, SIGNAL, _token(message), _token(signal))


def parse(subject: str) -> Subject:
    """What a subject without wildcards names.

    :raises ValueError: it is not one of ours.
    """
    if not subject.startswith(f"{PREFIX}."):
        raise ValueError(f"subject {subject[:300]!r} does not begin with {PREFIX}.")
    site, bench, channel, kind, *more = [*subject[len(PREFIX) + 1 :].split("."), "", "", "", ""]
    names = more[: len(more) - 4]
    if kind not in {FRAMES, COMMANDS, STATE, SIGNAL} or len(names) != 2 * (kind == SIGNAL):
        raise ValueError(f"subject {subject[:300]!r} is not {_FORM}")
    try:
        site, bench, channel = map(decode_name, (site, bench, channel))
        message, signal = map(decode_name, names) if names else ("", "")
        return Subject(site, bench, channel, kind, message, signal)
    except ValueError as error:
        raise ValueError(f"subject {subject[:300]!r}: {error}") from error


def covers(pattern: str, subject: str) -> bool:
    """Whether a subject is one of those that a pattern stands for, as NATS understands it."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(given) <= len(wanted):
            return False
        del given[len(wanted) :]
    return len(wanted) == len(given) and all(
        one in {"*", other} for one, other in zip(wanted, given, strict=True)
    )


_FORM: Final = f"{PREFIX}.SITE.BENCH.CHANNEL with rx, tx, state or signal.MESSAGE.SIGNAL"


def _token(name: str | None) -> str:
    return "*" if name is None else encode_name(name)


def _join(site: str | None, bench: str | None, channel: str | None, kind: str, *tokens: str) -> str:
    return ".".join((PREFIX, _token(site), _token(bench), _token(channel), kind, *tokens))
