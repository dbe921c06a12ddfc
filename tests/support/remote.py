"""A broker with a gateway, and what its remote clients need: addresses and keys."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import psutil
import pytest

from canbroker.keys import secret_file
from canbroker.keys.authorized import authorized_path
from canbroker.keys.broker_key import broker_key_path
from canbroker.keys.identity import identity_path
from canbroker.model.key import PublicKey
from canbroker.transport.curve import new_pair
from canbroker.transport.place import ADDRESS_VARIABLE
from canbroker.transport.runtime import Runtime
from tests.support.brokers import private_runtime, status_of, wait_until
from tests.support.ledger import serving
from tests.support.rough_link import RoughLink

#: Whether everybody's buses are remote.
BEHIND_GATEWAY: Final = "CANBROKER_BEHIND_GATEWAY"

_LOOPBACK: Final = "127.0.0.1"


class Lab:
    """A broker of this host that listens for remote clients, too. ``key`` is the broker's."""

    def __init__(self, runtime: Runtime, host: str, port: int, key: PublicKey) -> None:
        self.runtime = runtime
        self.key = key
        #: Where the gateway listens.
        self.endpoint = host, port

    @property
    def address(self) -> str:
        """What programs are told: ``Bus(broker=address)``."""
        return self._address(*self.endpoint)

    def through(self, link: RoughLink) -> str:
        """The address for programs that use this link."""
        return self._address(*link.address)

    @property
    def gateway(self) -> psutil.Process:
        """The gateway's process."""
        wait_until(self._gateway_pid, "the gateway runs", timeout=20)
        return psutil.Process(self._gateway_pid())

    def kill_gateway(self) -> None:
        """Kills it, and waits until another one runs."""
        killed = self.gateway
        os.kill(killed.pid, signal.SIGKILL)
        wait_until(lambda: self._gateway_pid() not in {None, killed.pid}, "it runs again", 20)

    def _gateway_pid(self) -> int | None:
        gateway = status_of(self.runtime).gateway
        return gateway.pid if gateway is not None and gateway.phase == "running" else None

    def _address(self, host: str, port: int) -> str:
        return f"tcp://{_bracketed(host)}:{port}?key={self.key}"


@contextmanager
def lab(
    runtime: Runtime, directory: Path, *within: str, config: str = "", host: str = _LOOPBACK
) -> Iterator[Lab]:
    """Starts a broker with a gateway; the programs of this process are its admins meanwhile.

    ``within`` begins its command (:mod:`tests.support.namespaces`); ``config`` is added to its
    configuration; ``host`` is the address that it listens at. Its keys, and those of the programs,
    are in ``directory``.
    """
    port = free_port()
    broker, broker_secret = new_pair()
    ours, secret = new_pair()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(directory))
        secret_file.create(broker_key_path(), broker_secret)
        secret_file.create(identity_path(), secret)
        authorize("tests", ours, "admin")
        remote = f'[remote]\nlisten = "tcp://{_bracketed(host)}:{port}"\n'
        with serving(runtime, directory, remote + config, within=within):
            opened = Lab(runtime, host, port, broker)
            assert opened.gateway.is_running()
            yield opened


@contextmanager
def own_broker() -> Iterator[Runtime]:
    """A private runtime directory. With ``CANBROKER_BEHIND_GATEWAY=1``, which ``make test-remote``
    sets, all buses of this process and of its children are remote clients of a broker there."""
    with private_runtime() as runtime, ExitStack() as stack:
        if os.environ.get(BEHIND_GATEWAY) == "1":
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="cb-keys-"))
            bench = stack.enter_context(lab(runtime, Path(directory)))
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setenv(ADDRESS_VARIABLE, bench.address)
        yield runtime


def authorize(name: str, key: PublicKey, role: str) -> None:
    """Grants a role to who has the key, beside those that have one."""
    with authorized_path().open("a") as file:
        file.write(f'[{name}]\nkeys = ["{key}"]\nrole = "{role}"\n')


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def free_port(host: str = _LOOPBACK) -> int:
    """A port of this host that nobody listens at."""
    with socket.create_server((host, 0)) as listening:
        number: int = listening.getsockname()[1]
    return number
