"""Finds the broker, starts one if there is none, and attaches to a channel."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import msgspec

from canbroker.bus.starting import is_running, no_broker, start_if_alone
from canbroker.configuration.devices import resolved
from canbroker.errors import CanError, CanInitializationError, CanTimeoutError
from canbroker.system import clock
from canbroker.system.undisturbed import undisturbed
from canbroker.transport import calls
from canbroker.transport.calls import (
    ControlClient,
    ControlError,
    NoAnswerError,
    Peer,
    ShuttingDownError,
)
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context, SharedContext
from canbroker.wire import WireError, control

#: A broker that runs answers at once; on a busy machine, starting one takes this long.
_START_S: Final = 15.0
_ASK_NS: Final = 250 * clock.MILLISECOND

#: The broker gives an adapter 20 s to open.
_OPEN_S: Final = 25.0

#: A broker that was killed meanwhile does not answer; the next request finds its successor.
_ASK_AGAIN_S: Final = 5.0

#: A broker answers a request to stop within this time; it then needs longer to leave.
_STOP_ANSWER_S: Final = 5.0
_STOP_LOOK_S: Final = 0.01

_T = TypeVar("_T")


def find_broker(
    context: Context, runtime: Runtime, *, autostart: bool, options: Sequence[str] = ()
) -> control.HelloResult:
    """The running broker; with ``autostart`` it is started if there is none.

    Of several processes that call this at the same time, one gets the lock and starts the broker.

    :param options: further arguments of ``python -m canbroker.broker``.
    :raises CanInitializationError: there is no broker, or it does not answer.
    """
    broker = _client(context, runtime)
    try:
        return _find(broker, runtime, autostart, options)
    finally:
        broker.close()


def _find(
    broker: ControlClient, runtime: Runtime, autostart: bool, options: Sequence[str] = ()
) -> control.HelloResult:
    """As :func:`find_broker`, over this connection, which is made while the lock is looked at."""
    deadline = clock.deadline_after(_START_S)
    if not autostart and not runtime.directory.exists():
        raise no_broker(runtime)
    runtime.prepare()
    start = functools.partial(start_if_alone, runtime, autostart, options)
    while clock.remaining_ns(deadline):
        undisturbed(start, _START_S)  # a lock lost by an exception keeps all others out
        hello = _hello(broker, runtime)
        if hello is not None:
            return hello
    raise CanInitializationError(
        f"{runtime.place.describe_broker()} does not answer; its log: {runtime.log_path}"
    )


def attach(
    context: Context,
    runtime: Runtime,
    request: control.Attach,
    *,
    autostart: bool,
    attaching: Callable[[bool], None],
) -> control.Attached:
    """Attaches to a channel, which is open when this returns; returns its addresses.

    If the broker is about to end, this waits for that and asks its successor. ``attaching`` is
    called with whether a broker may know this client from now on.

    :raises CanError: the broker refuses the request or cannot open the adapter, or there is no
        broker.
    """
    deadline = clock.deadline_after(_OPEN_S)
    while clock.remaining_ns(deadline):
        broker = _client(context, runtime)
        try:
            _find(broker, runtime, autostart)
            attaching(True)
            again = clock.deadline_after(_ASK_AGAIN_S)
            try:
                return broker.ask("attach", request, control.Attached, again)
            except (NoAnswerError, ShuttingDownError):
                continue
            except CanError:
                attaching(False)
                raise
        finally:
            broker.close()
    raise CanInitializationError(
        f"the broker at {runtime.address} did not open channel {request.channel!r} in time"
    )


def ask(
    context: Context,
    runtime: Runtime,
    method: str,
    params: control.Params,
    result: type[_T],
    timeout: float,
) -> _T:
    """The broker's answer.

    :raises NoAnswerError: there is none within ``timeout`` seconds.
    :raises CanError: the answer is an error.
    """
    return calls.ask(context, _peer(runtime), method, params, result, timeout)


def stop_broker(runtime: Runtime, timeout: float) -> None:
    """Stops the broker, if one runs; returns when it has left.

    A broker that is just starting may not answer, and is asked again.

    :param timeout: seconds until it must have left.
    :raises CanTimeoutError: it has not.
    """
    deadline = clock.deadline_after(timeout)
    nothing = control.Params()
    is_told = False
    context = SharedContext()
    try:
        while is_running(runtime):
            if not clock.remaining_ns(deadline):
                raise CanTimeoutError(f"the broker at {runtime.address} does not leave")
            if not is_told:
                with suppress(NoAnswerError):
                    ask(context, runtime, "shutdown", nothing, control.Nothing, _STOP_ANSWER_S)
                    is_told = True
            time.sleep(_STOP_LOOK_S)
    finally:
        context.close()


def _peer(runtime: Runtime) -> Peer:
    return Peer(runtime.address, f"the broker at {runtime.address}")


def _client(context: Context, runtime: Runtime) -> ControlClient:
    return ControlClient(context, _peer(runtime))


def _hello(broker: ControlClient, runtime: Runtime) -> control.HelloResult | None:
    deadline = clock.monotonic_ns() + _ASK_NS
    try:
        return broker.call("hello", control.Params(), control.HelloResult, deadline)
    except (ControlError, WireError) as error:
        raise CanInitializationError(
            f"{runtime.place.describe_broker()} is not of this version: {error}"
        ) from error


def program() -> str:
    """The command of this process, for people."""
    command = " ".join(sys.argv)[:200] or sys.executable
    return command.encode(errors="replace").decode()


def request(
    client_id: str, channel: str, interface: str | None, parameters: Mapping[str, Any]
) -> control.Attach:
    """The request of a client for a channel.

    :raises CanInitializationError: a parameter cannot be sent to the broker.
    """
    for key, value in parameters.items():
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise CanInitializationError(
                f"parameter {key!r} must be a text, a number or a bool, got {value!r}"
            )
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
            raise CanInitializationError(
                f"{key} is {value}, which is out of range for every parameter"
            )
    for name, value in {"channel": channel, "interface": interface, **parameters}.items():
        if isinstance(value, str) and len(value) > control.MAX_TEXT:
            raise CanInitializationError(
                f"{name} {value[:32]!r}… has {len(value):,} characters; "
                f"{control.MAX_TEXT:,} are the most"
            )
    attach = control.Attach(
        client_id=client_id,
        pid=os.getpid(),
        program=program(),
        channel=resolved(interface, channel),
        interface=interface,
        parameters=dict(parameters),
    )
    try:
        msgspec.msgpack.encode(attach)
    except (UnicodeEncodeError, OverflowError) as error:
        raise CanInitializationError(f"cannot ask for channel {channel!r}: {error}") from error
    return attach
