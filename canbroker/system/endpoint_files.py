"""Files that say on which port of this host a process listens, in the place of Unix sockets.

The file has the name that a Unix socket would have, and only its owner may read it. It is replaced
in one step, so nobody reads half of it.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from canbroker.errors import CanInitializationError, CanOperationError
from canbroker.system.files import BINARY, TRIES, TRY_AGAIN_S, is_full, move
from canbroker.system.handles import Handle
from canbroker.system.processes import Process, start_of

#: Only this host reaches it.
LOOPBACK: Final = "127.0.0.1"

_ENDPOINT: Final = re.compile(rf"tcp://{re.escape(LOOPBACK)}:([1-9][0-9]{{0,4}})")

#: The file with the key of a directory's sockets.
KEY_FILE: Final = "fabric.key"

#: Ends the name of the file of a socket that nobody listens at now. Its port is taken again.
FORMER: Final = ".was"

#: A larger file is something else.
_MAX_BYTES: Final = 4096


@dataclass(frozen=True)
class EndpointFile:
    """What such a file says: where a process listens, and which.

    ``endpoint`` is as ZeroMQ spells it. ``started`` is as :func:`start_of` says.
    """

    endpoint: str
    pid: int
    started: int

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])

    @property
    def is_listening(self) -> bool:
        """Whether the process still runs."""
        return Process(self.pid, self.started).runs


def read(path: Path) -> EndpointFile | None:
    """What the file says; ``None`` if there is no file.

    :raises CanInitializationError: it says something else, or cannot be read.
    """
    import msgspec  # noqa: PLC0415 - not loaded by suites that only have the pytest plugin

    content = content_of(path, _MAX_BYTES)
    if content is None:
        return None
    try:
        found = msgspec.json.decode(content, type=EndpointFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CanInitializationError(f"{path} does not say where something listens: {error}") from (
            error
        )
    if not _ENDPOINT.fullmatch(found.endpoint) or found.port > 65_535:
        raise CanInitializationError(f"{path}: {found.endpoint!r} is not a port of this host")
    return found


def publish(path: Path, endpoint: str) -> None:
    """Writes that this process listens at ``endpoint``.

    :raises OSError: it cannot be written.
    """
    import msgspec  # noqa: PLC0415 - as above

    started = start_of(os.getpid()) or 0
    content = msgspec.json.encode(EndpointFile(endpoint, os.getpid(), started))
    try:
        write_private(path, content)
    except OSError as error:
        if not is_full(error) or not _write_over(path, content):
            raise


def _write_over(path: Path, content: bytes) -> bool:
    """Writes to the file of the predecessor, which has its place on the disk. Nobody connects by it
    meanwhile, as it has its former name. Returns whether there is such a file."""
    former = path.with_name(path.name + FORMER)
    if path.exists():
        move(path, former)
    try:
        descriptor = os.open(former, os.O_WRONLY | BINARY)
    except FileNotFoundError:
        return False
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(content)
        file.truncate()
    move(former, path)
    return True


def listener(path: Path) -> int | None:
    """The id of the process that listens as the file says; ``None`` if there is none."""
    try:
        found = read(path)
    except CanInitializationError:  # whoever wants to connect there is told
        return None
    return found.pid if found is not None and found.is_listening else None


def retire(path: Path) -> None:
    """Nobody listens there any more. The port is remembered for who comes next.

    :raises OSError: the file cannot be renamed.
    """
    if path.suffix != FORMER:
        move(path, path.with_name(path.name + FORMER))


def is_endpoint(path: Path) -> bool:
    """Whether the file at ``path`` says where something listens, or listened."""
    try:
        return path.is_file() and read(path) is not None
    except CanInitializationError:
        return False


def content_of(path: Path, at_most: int) -> bytes | None:
    """The first ``at_most`` bytes of a file that others may replace; ``None``: there is none.

    :raises CanInitializationError: it is not a file, or cannot be read.
    """
    for left in reversed(range(TRIES)):
        try:
            if path.is_socket():
                raise CanInitializationError(
                    f"{path} belongs to a broker that was started without CANBROKER_PORTABLE=1"
                )
            return _content_of(path, at_most)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            return None
        except OSError as error:
            if not left or not isinstance(error, PermissionError):
                raise CanInitializationError(f"cannot read {path}: {error.strerror}") from error
            time.sleep(TRY_AGAIN_S)
    raise AssertionError("unreachable")


def _content_of(path: Path, at_most: int) -> bytes:
    """The first bytes. A signal handler may raise anywhere: the handle closes the file even so."""
    try:
        file = Handle(os.open, os.fspath(path), os.O_RDONLY | BINARY)
    except CanOperationError as error:
        raise error.__cause__ or error from None
    try:
        content = b""
        while data := os.read(file.fileno(), at_most - len(content)):
            content += data
        return content
    finally:
        file.close()


def write_private(path: Path, content: bytes) -> None:
    """Replaces a file, which only its owner may read.

    :raises OSError: it cannot be written.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | BINARY, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(content)
        move(fresh, path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
