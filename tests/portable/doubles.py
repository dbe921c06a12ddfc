"""Doubles of what Windows does differently, for modules of canbroker: see ``start/``."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

#: Windows' number of "an operation was attempted on something that is not a socket".
_NO_SOCKET: Final = 10038

#: Windows' number of "an invalid argument was supplied": nothing to wait for.
_INVALID: Final = 10022

#: What this process has open.
_OPEN: Final = Path("/proc/self/fd")

#: What an eventfd is, there.
_EVENT: Final = "anon_inode:[eventfd]"

_Call = TypeVar("_Call", bound=Callable[..., Any])


# --------------------------------------------------------------------------- sockets, descriptors


def _is_socket(descriptor: int) -> bool:
    """Also true for an eventfd: canbroker's modules can make none here, so it is libzmq's, which
    has a socket there on Windows."""
    return _target(descriptor).startswith(("socket:", _EVENT))


def _target(descriptor: int) -> str:
    """What the descriptor is; empty if it is closed."""
    try:
        return str((_OPEN / str(descriptor)).readlink())
    except OSError:
        return ""


def _number(item: Any) -> int:
    return item if isinstance(item, int) else int(item.fileno())


def _require_sockets(items: Iterable[Any]) -> None:
    for number in map(_number, items):
        if not _is_socket(number):
            raise OSError(_NO_SOCKET, f"descriptor {number} is not a socket")


def _of_files(call: _Call) -> _Call:
    """A function of ``os`` for files alone: on Windows, a socket's number is none of a file's."""

    def checked(descriptor: int, *arguments: Any) -> Any:
        if _is_socket(descriptor):
            raise OSError(errno.EBADF, "the descriptor is a socket's, and no file's")
        return call(descriptor, *arguments)

    return checked  # type: ignore[return-value]


def _open(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
    if os.path.isdir(path):  # noqa: PTH112 - a path of whatever type
        raise PermissionError(errno.EACCES, "Windows opens no directory", os.fspath(path))
    return os.open(path, flags, *arguments, **options)


def _write(descriptor: int, data: Any) -> int:
    try:
        return _of_files(os.write)(descriptor, data)
    except BrokenPipeError:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from None


def _fsync(descriptor: int) -> None:
    import fcntl  # noqa: PLC0415

    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "the file cannot be written")
    os.fsync(descriptor)


def _socket_doubles() -> dict[str, object]:
    import socket  # noqa: PLC0415 - here and below: only when a module of canbroker imports it

    class Signaler:
        """A duplicate of libzmq's eventfd, where Windows has a socket."""

        _number = -1

        def __init__(self, descriptor: int) -> None:
            self._number = os.dup(descriptor)

        def fileno(self) -> int:
            return self._number

        def close(self) -> None:
            if self._number >= 0:
                os.close(self._number)
                self._number = -1

        def __del__(self) -> None:
            self.close()

    def fromfd(descriptor: int, *kind: int) -> object:
        _require_sockets([descriptor])
        is_event = _target(descriptor).startswith(_EVENT)
        return Signaler(descriptor) if is_event else socket.fromfd(descriptor, *kind)

    def socketpair() -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            one = socket.create_connection(listening.getsockname())
            try:
                return one, listening.accept()[0]
            except BaseException:
                one.close()
                raise

    return {"fromfd": fromfd, "socketpair": socketpair}


def _select_doubles() -> dict[str, object]:
    import select  # noqa: PLC0415

    def checked(
        reading: Sequence[Any],
        writing: Sequence[Any],
        failing: Sequence[Any],
        timeout: float | None = None,
    ) -> tuple[list[Any], list[Any], list[Any]]:
        if not (reading or writing or failing):
            raise OSError(_INVALID, "select() of Windows needs something to wait for")
        _require_sockets([*reading, *writing, *failing])
        return select.select(reading, writing, failing, timeout)

    return {"select": checked}


def _selectors_doubles() -> dict[str, object]:
    import selectors  # noqa: PLC0415

    class Sockets(selectors.SelectSelector):
        def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
            _require_sockets([fileobj])
            return super().register(fileobj, events, data)

    return {"DefaultSelector": Sockets, "SelectSelector": Sockets}


def _zmq_doubles() -> dict[str, object]:
    import zmq  # noqa: PLC0415

    class Poller(zmq.Poller):
        """Tells of what is no socket at once; of what was closed when it polls, as Windows."""

        def register(self, socket: Any, flags: int = zmq.POLLIN | zmq.POLLOUT) -> None:
            if not isinstance(socket, zmq.Socket) and _target(_number(socket)):
                _require_sockets([socket])
            super().register(socket, flags)

        def poll(self, timeout: int | None = None) -> list[tuple[Any, int]]:
            for item, _ in self.sockets:
                if not isinstance(item, zmq.Socket) and not _is_socket(_number(item)):
                    raise zmq.ZMQError(errno.ENOTSOCK)
            return super().poll(timeout)

    return {"Poller": Poller}


# ---------------------------------------------------------------------------------------- files


def _refuse_open(path: Any) -> None:
    """:raises PermissionError: this process has the file open, so Windows would not move it."""
    try:
        wanted = os.lstat(path)
    except OSError:
        return  # the call itself tells
    for descriptor in _OPEN.iterdir():
        try:
            found = descriptor.stat()
        except OSError:  # closed meanwhile, or that of the list
            continue
        if os.path.samestat(found, wanted):
            raise PermissionError(errno.EACCES, "this process has the file open", os.fspath(path))


def _removing(call: _Call) -> _Call:
    def checked(path: Any, *arguments: Any, **options: Any) -> Any:
        _refuse_open(path)
        return call(path, *arguments, **options)

    return checked  # type: ignore[return-value]


def _replacing(call: _Call) -> _Call:
    def checked(path: Any, target: Any, **options: Any) -> Any:
        _refuse_open(path)
        _refuse_open(target)
        return call(path, target, **options)

    return checked  # type: ignore[return-value]


def _renaming(call: _Call) -> _Call:
    def checked(path: Any, target: Any, **options: Any) -> Any:
        _refuse_open(path)
        if os.path.lexists(target):
            raise FileExistsError(
                errno.EEXIST, "Windows renames to no name that is taken", str(target)
            )
        return call(path, target, **options)

    return checked  # type: ignore[return-value]


def change_paths() -> None:
    """For all packages, as ``pathlib`` acts for canbroker's modules."""
    Path.unlink = _removing(Path.unlink)  # type: ignore[method-assign]
    Path.rename = _renaming(Path.rename)  # type: ignore[method-assign]
    Path.replace = _replacing(Path.replace)  # type: ignore[method-assign]


def _msvcrt() -> ModuleType:
    """Locks of open files. ``flock`` locks all of a file, and keeps nobody from reading it."""
    import fcntl  # noqa: PLC0415

    made = ModuleType("msvcrt")
    unlock, try_to_lock = 0, 2  # as Windows' sys/locking.h numbers them
    operations = {unlock: fcntl.LOCK_UN, try_to_lock: fcntl.LOCK_EX | fcntl.LOCK_NB}

    def locking(descriptor: int, mode: int, _count: int) -> None:
        if mode not in operations:
            raise NotImplementedError(f"the double of msvcrt.locking has no mode {mode}")
        try:
            fcntl.flock(descriptor, operations[mode])
        except BlockingIOError:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None

    made.__dict__.update(LK_UNLCK=unlock, LK_NBLCK=try_to_lock, locking=locking)
    return made


#: Windows' module, for :func:`canbroker.system.files.lock_now`.
MSVCRT: Final = _msvcrt()


# ------------------------------------------------------------------------------------ processes


def _kill(process: int, number: int) -> None:
    """Any signal but those of the console ends a process of Windows at once."""
    if number == 0:
        raise OSError(errno.EINVAL, "signal 0 is Ctrl-C on Windows, and asks nothing")
    os.kill(process, 9)


def _subprocess_doubles() -> dict[str, object]:
    import signal  # noqa: PLC0415
    import subprocess  # noqa: PLC0415

    refused = ("preexec_fn", "process_group", "user", "group", "extra_groups", "umask")
    usual = {**dict.fromkeys(refused), "pass_fds": (), "start_new_session": False}

    def known(options: dict[str, Any]) -> dict[str, Any]:
        for name, value in usual.items():
            if (options.get(name) or value) != value:  # nothing, of whatever type, is none
                raise ValueError(f"Windows has no {name} of subprocess.Popen")
        return {name: value for name, value in options.items() if name != "creationflags"}

    class Popen(subprocess.Popen[Any]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **known(options))

        def send_signal(self, sig: int) -> None:
            if sig not in {signal.SIGTERM, signal.SIGKILL}:
                raise ValueError(f"Windows sends no signal {sig}")
            super().send_signal(signal.SIGKILL)

    def checked(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **options: call(*arguments, **known(options))

    runs = ("run", "call", "check_call", "check_output")
    return {
        "Popen": Popen,
        "CREATE_NEW_PROCESS_GROUP": 0x0000_0200,
        "CREATE_BREAKAWAY_FROM_JOB": 0x0100_0000,
        "CREATE_NO_WINDOW": 0x0800_0000,
        **{name: checked(getattr(subprocess, name)) for name in runs},
    }


def _psutil_doubles() -> dict[str, object]:
    """Classes of priority, as the niceness that psutil takes on Linux."""
    return {"ABOVE_NORMAL_PRIORITY_CLASS": -5, "BELOW_NORMAL_PRIORITY_CLASS": 5}


def change_event_loops() -> bool:
    """For all packages but asyncio: the event loop of Windows watches no descriptors for others.

    :returns: whether it is done; ``False`` while asyncio is yet to be imported as a whole.
    """
    module = sys.modules.get("asyncio.selector_events")
    loops = getattr(module, "BaseSelectorEventLoop", None)
    if loops is None:
        return False

    def within_asyncio(method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            if not sys._getframe(1).f_globals["__name__"].startswith("asyncio."):
                raise NotImplementedError
            return method(*arguments)

        return call

    for name in ("add_reader", "remove_reader", "add_writer", "remove_writer"):
        setattr(loops, name, within_asyncio(getattr(loops, name)))
    return True


# ---------------------------------------------------------------------------------------- table

#: What to show instead of, or besides, the names of the real module.
DOUBLES: Final[dict[str, Callable[[], dict[str, object]]]] = {
    "os": lambda: {
        "fsync": _fsync,
        "kill": _kill,
        "name": "nt",
        "open": _open,
        "remove": _removing(os.remove),
        "unlink": _removing(os.unlink),
        "rename": _renaming(os.rename),
        "replace": _replacing(os.replace),
        "write": _write,
        **{name: _of_files(getattr(os, name)) for name in ("close", "dup", "read")},
    },
    "platform": lambda: {"system": lambda: "Windows"},
    "psutil": _psutil_doubles,
    "select": _select_doubles,
    "selectors": _selectors_doubles,
    "socket": _socket_doubles,
    "subprocess": _subprocess_doubles,
    "sys": lambda: {"platform": "win32"},
    "zmq": _zmq_doubles,
}
