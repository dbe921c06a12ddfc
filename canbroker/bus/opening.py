"""From the settings of a bus to its open connection."""

from __future__ import annotations

from canbroker.bus.connection import Connection, Wanted, connect
from canbroker.bus.life import Life
from canbroker.bus.values import CanProtocol, Receiving
from canbroker.configuration.bus_settings import Settings
from canbroker.errors import CanInitializationError, CanInterfaceNotImplementedError
from canbroker.model.filters import listed, validate
from canbroker.model.message import Message


def wanted_by(settings: Settings, message_type: type[Message]) -> Wanted:
    """What the settings ask for; messages will be of the class ``message_type``.

    :raises ValueError: a filter, or another argument, is not valid.
    """
    can_filters = listed(settings.get("can_filters"))
    validate(can_filters)  # before a broker is started for it
    return Wanted(
        label=settings.get("channel"),
        interface=settings.get("interface"),
        parameters=settings.parameters(),
        can_filters=can_filters,
        receiving=Receiving(
            own=bool(settings.get("receive_own_messages")),
            on_loss=settings.get("on_loss") or "count",
            on_slow=settings.get("on_slow") or "repair",
            history=settings.get("history") or 0.0,
            message_type=message_type,
        ),
        broker=settings.get("broker"),
        exclusive=bool(settings.get("exclusive")),
    )


def open_connection(life: Life, wanted: Wanted, settings: Settings) -> Connection:
    """As :func:`connect`. Errors name the file or variable that a wrong setting comes from."""
    try:
        connection = connect(life, wanted)
        if settings.get("preserve_timestamps"):
            _check_virtual(connection)
    except (CanInitializationError, CanInterfaceNotImplementedError) as error:
        error.args = (settings.explain(str(error)),)
        raise
    return connection


def protocol_of(connection: Connection, settings: Settings) -> CanProtocol:
    """The protocol that the channel was opened for.

    A virtual channel accepts CAN FD frames by default. Programs decide by the protocol whether
    to send them, and python-can's virtual bus reports CAN 2.0. So does ours, unless ``fd`` or
    ``data_bitrate`` was given, or the channel was opened by its name.
    """
    attached = connection.attached
    is_plain = (
        attached.interface == "virtual"
        and settings.get("interface") is not None
        and not settings.get("fd")
        and attached.parameters.get("data_bitrate") is None
    )
    return CanProtocol.CAN_FD if connection.opening.fd and not is_plain else CanProtocol.CAN_20


def _check_virtual(connection: Connection) -> None:
    """:raises CanInitializationError: the channel belongs to an adapter."""
    attached = connection.attached
    if attached.interface != "virtual":
        raise CanInitializationError(
            f"preserve_timestamps is for interface virtual; {attached.name!r} is a channel of "
            f"{attached.interface}"
        )
