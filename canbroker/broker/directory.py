"""The channels of a broker, and which of them a client means."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from canbroker.backends import Options, identity_of, parse_options
from canbroker.broker.callers import Callers
from canbroker.broker.channel_slot import ChannelSlot
from canbroker.broker.flight_records import FlightRecords
from canbroker.broker.register import Entry
from canbroker.configuration.broker_file import BrokerConfig
from canbroker.errors import CanError, CanInitializationError
from canbroker.system import clock
from canbroker.transport.place import Place
from canbroker.wire import control
from canbroker.wire.replay import Hold

_logger = logging.getLogger(__name__)


class Directory:
    """The slots of all channels, by name. Used by the broker's one thread."""

    def __init__(
        self,
        place: Place,
        config: BrokerConfig,
        records: FlightRecords,
        callers: Callers,
        holds: Callable[[str], list[Hold]],
    ) -> None:
        """
        :param config: has options of all channels.
        :param callers: the clients that wait for a channel.
        :param holds: the routes of a channel that are open from its beginning.
        """
        self.slots: dict[str, ChannelSlot] = {}
        self._place = place
        self._config = config
        self._records = records
        self._callers = callers
        self._holds = holds

    def __repr__(self) -> str:
        return f"<Directory {', '.join(self.slots)}>"

    def add(
        self, name: str, interface: str, options: Options, *, configured: bool = False
    ) -> ChannelSlot:
        """Adds a channel that does not exist yet.

        :param configured: the configuration file has it.
        :raises CanInitializationError: there are too many channels, another one would have the same
            files, or the runtime directory is too long for its sockets.
        """
        self._callers.check_room(len(self.slots))
        for other in self.slots:
            if self._place.shares_files(name, other):
                raise CanInitializationError(
                    f"channel {name!r} cannot be open beside {other!r}: this system does not tell"
                    " capital letters from small ones in names of files"
                )
        slot = self.slots[name] = ChannelSlot(
            self._place,
            name,
            interface,
            options,
            configured=configured,
            broker=self._config,
            records=self._records,
        )
        slot.holds = self._holds
        return slot

    def find(self, request: control.Attach) -> ChannelSlot:
        """The channel that a client asks for; adds it if it does not exist yet.

        :raises CanError: there is no such channel or interface, or the channel is open with other
            parameters.
        """
        if request.interface is None:
            slot = self.slots.get(request.channel)
            if slot is None:
                visible = (name for name in self.slots if control.is_visible(name, request))
                known = ", ".join(map(repr, visible)) or "none"
                raise CanInitializationError(
                    f"no channel {request.channel!r}; channels of this broker: {known}"
                )
            return self._agreed(slot, request)
        identity = identity_of(request.interface, request.channel, request.parameters)
        for slot in self.slots.values():
            if (slot.interface, slot.options.identity) == (request.interface, identity):
                return self._agreed(slot, request)
        options = parse_options(
            request.interface, {"channel": request.channel, **request.parameters}
        )
        name = f"{request.interface}.{request.channel}"
        if name in self.slots:
            name = f"{request.interface}.{identity}"
        if name in self.slots:
            raise CanInitializationError(f"channel {name!r} is another adapter already")
        return self.add(name, request.interface, options)

    def resume(self, entries: Iterable[Entry]) -> None:
        """Takes over the channels of a broker that was killed. Its clients live on, and find our
        sockets where those of the other broker were."""
        for entry in entries:
            clients = entry.client_table()
            slot = self.slots.get(entry.name)
            if not clients or (slot is not None and slot.interface != entry.interface):
                continue
            try:
                if slot is None:
                    options = parse_options(entry.interface, entry.parameters)
                    slot = self.add(entry.name, entry.interface, options)
            except CanError as error:
                _logger.warning("channel %r of the last broker: %s", entry.name, error)
                continue
            slot.resume(clients, entry.listen_only)
            _logger.warning("channel %r still has %d clients", entry.name, len(clients))

    def forget_unused(self) -> None:
        """Removes the channels that existed for clients only, which are gone."""
        for slot in list(self.slots.values()):
            if slot.idle and not self._callers.is_awaited(slot):
                del self.slots[slot.name]

    def _agreed(self, slot: ChannelSlot, request: control.Attach) -> ChannelSlot:
        """``slot``, if the client's parameters agree with it; changes the slot's if it may.

        The parameters of a channel that nobody uses may change; so may those of one whose adapter
        is closed, unless a client that asked for them is still there.

        :raises CanInitializationError: they do not agree.
        """
        given: Mapping[str, Any] = request.parameters
        options = parse_options(slot.interface, slot.parameters | dict(given))
        has = slot.options.written()
        conflicts = [key for key in given if _differs(key, options, slot.options)]
        if not conflicts:
            return slot
        is_bound = slot.clients and (not slot.is_closed or slot.insists(conflicts))
        is_bound = is_bound or self._callers.is_awaited(slot)
        if slot.configured or is_bound or request.as_it_is:
            conflict = conflicts[0]
            is_what = "wanted" if slot.is_closed else "open"
            raise CanInitializationError(
                f"channel {slot.name!r} is {is_what} with {conflict}="
                f"{has.get(conflict)!r}, not {conflict}={given[conflict]!r}"
            )
        slot.options = options
        if slot.clients:
            slot.replace(clock.monotonic_ns())
        elif slot.child is not None:
            slot.stop(clock.monotonic_ns(), "it is opened with other parameters")
        return slot


def _differs(key: str, asked: Options, has: Options) -> bool:
    """Whether a parameter conflicts with the channel's.

    If both identify the same adapter, one of them may give a name of it that the other leaves out.
    """
    ours, theirs = asked.written(), has.written()
    if asked.identity == has.identity and key in asked.identifying and key not in theirs:
        return False
    return bool(ours.get(key) != theirs.get(key))
