"""Hosts that a test makes: with a network of their own, and with a clock that counts from another
boot. Linux, and root."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

import pytest

_numbers = itertools.count()

#: What is allowed to take that long has failed.
_PATIENCE_S: Final = 20.0


@dataclass(frozen=True)
class Host:
    """A network namespace with one interface. ``command``: what begins a command that runs there;
    it keeps the process id and what a test's process has (environment, directory)."""

    namespace: str
    interface: str
    ipv4: str
    ipv6: str

    @property
    def command(self) -> tuple[str, ...]:
        return ("nsenter", f"--net=/run/netns/{self.namespace}")

    def set_link(self, state: str) -> None:
        """``up``, or ``down``: then every packet is dropped, and nobody is told."""
        _run("ip", "-n", self.namespace, "link", "set", self.interface, state)


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts with a cable between them and nothing else.

    Skips the test where network namespaces cannot be made.
    """
    _skip_without_network()
    number = next(_numbers)
    stem = f"cb-{os.getpid()}-{number}"
    hosts = [Host(f"{stem}{end}", "lan", f"10.77.0.{end}", f"fd77::{end}") for end in (1, 2)]
    with ExitStack() as stack:
        for host in hosts:
            _run("ip", "netns", "add", host.namespace)
            stack.callback(_run, "ip", "netns", "delete", host.namespace)
        near, far = hosts
        _run(
            *("ip", "link", "add", near.interface, "netns", near.namespace, "type", "veth"),
            *("peer", "name", far.interface, "netns", far.namespace),
        )
        for host in hosts:
            inside = ("ip", "-n", host.namespace)
            _run(*inside, "address", "add", f"{host.ipv4}/24", "dev", host.interface)
            # Without the seconds in which the address is not sure to be the only one.
            _run(*inside, "address", "add", f"{host.ipv6}/64", "dev", host.interface, "nodad")
            _run(*inside, "link", "set", "lo", "up")
            # As an interface does whose cable is pulled, other than one that is switched off.
            keep = "net.ipv6.conf.all.keep_addr_on_down=1"
            _run(*host.command, "sysctl", "--quiet", "--write", keep)
            host.set_link("up")
        yield near, far


def skip_without_time() -> None:
    """Skips the test where time namespaces cannot be made."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare, to make time namespaces")
    if not _tried(*booted_earlier(1), "true"):
        pytest.skip("needs root and a kernel with time namespaces")


def booted_earlier(seconds: int) -> tuple[str, ...]:
    """The beginning of a command that runs as on a host that booted that long ago: its monotonic
    clock is ahead by so much. Not later: no clock may be negative, and this host may be new."""
    return ("unshare", "--time", f"--monotonic={seconds}", f"--boottime={seconds}")


def _skip_without_network() -> None:
    for program in ("ip", "nsenter"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}, to make network namespaces")
    name = f"cb-probe-{os.getpid()}"
    if not _tried("ip", "netns", "add", name):
        pytest.skip("needs root, to make network namespaces")
    _run("ip", "netns", "delete", name)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout


def _tried(*command: str) -> bool:
    done = subprocess.run(command, capture_output=True, timeout=_PATIENCE_S, check=False)
    return done.returncode == 0
