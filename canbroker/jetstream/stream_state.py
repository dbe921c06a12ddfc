"""Which stream of a server has the messages of a subject, and what it has of them."""

from __future__ import annotations

from typing import Final, NamedTuple

from canbroker.errors import CanInitializationError, CanPermissionError
from canbroker.jetstream.link import Link, NoAnswerError, RefusalError

_GONE: Final = 404


class StreamState(NamedTuple):
    """``created``: when the stream was made, as text; a new one counts from 1 again. ``first`` and
    ``last``: sequences of its messages; without any, ``first`` is that of the next one."""

    name: str
    created: str
    first: int
    last: int


async def find_stream(link: Link, subject: str, usual: str) -> str:
    """The name of the only stream that keeps messages of a subject, which may have wildcards.

    :param usual: what a stream is called that has them from other streams: the server does not know
        its subjects.
    :raises CanInitializationError: there is none, or several; or the server has no JetStream.
    :raises CanPermissionError: we may not ask.
    """
    shown = link.server.shown
    try:
        answer = await link.request("STREAM.NAMES", {"subject": subject}, "to list streams")
    except NoAnswerError as error:
        raise CanInitializationError(
            f"{error} (is JetStream on, for this account, too?)"
        ) from error
    except RefusalError as error:
        raise CanInitializationError(f"NATS at {shown}: {error}") from error
    names = [str(name) for name in answer.get("streams") or ()]
    if not names and await _is_copy(link, usual):
        return usual
    if not names:
        raise CanInitializationError(
            f"NATS at {shown} has no stream with {subject}: no bridge has been there yet, or the "
            "stream is in another account"
        )
    if len(names) > 1:
        raise CanInitializationError(
            f"several streams of NATS at {shown} have {subject}: {', '.join(names)}; name one of "
            "them with stream="
        )
    return names[0]


async def _is_copy(link: Link, name: str) -> bool:
    """Whether there is a stream that has its messages from others, as at the hub of leaf nodes."""
    try:
        answer = await link.request(f"STREAM.INFO.{name}", {}, f"to look at stream {name!r}")
    except (NoAnswerError, RefusalError, CanPermissionError):
        return False
    return not answer["config"].get("subjects")


async def state_of(link: Link, name: str) -> StreamState:
    """What a stream has now.

    :raises CanInitializationError: there is no such stream.
    :raises NoAnswerError: nobody answers now.
    :raises CanPermissionError: we may not ask.
    """
    what = f"to see what stream {name!r} has"
    try:
        answer = await link.request(f"STREAM.INFO.{name}", {}, what)
    except RefusalError as error:
        text = f"no stream {name!r}" if error.code == _GONE else str(error)
        raise CanInitializationError(f"NATS at {link.server.shown}: {text}") from error
    state = answer["state"]
    return StreamState(name, answer["created"], state["first_seq"], state["last_seq"])
