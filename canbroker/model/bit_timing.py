"""Bit timing given as registers: by python-can's ``BitTiming`` and ``BitTimingFd``, or as numbers.

Registers are plain numbers here. They travel to the broker as they are where a driver of
python-can takes them. An adapter behind ``slcan`` is told them as its protocol writes them, if it
can; the others are told the rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from canbroker.model.plain_numbers import plain

#: What python-can's BitTiming is made of, in its names; ``f_clock`` in Hz.
CLASSIC: Final = ("f_clock", "brp", "tseg1", "tseg2", "sjw", "nof_samples")

#: What python-can's BitTimingFd is made of.
FD: Final = (
    "f_clock",
    *("nom_brp", "nom_tseg1", "nom_tseg2", "nom_sjw"),
    *("data_brp", "data_tseg1", "data_tseg2", "data_sjw"),
)

_LAWICEL_CLOCK_HZ: Final = 8_000_000


def registers(timing: Any) -> dict[str, int]:
    """The registers of a ``timing``: one of python-can's objects, or a mapping like them.

    :raises ValueError: it is neither.
    """
    if isinstance(timing, Mapping):
        for names in (CLASSIC, FD):
            if set(timing) == set(names):
                return {name: _positive(name, timing[name]) for name in names}
    raise ValueError(
        f"timing must be a BitTiming, a BitTimingFd or a mapping of {', '.join(CLASSIC)}, "
        f"or of {', '.join(FD)}; got {timing!r}"
    )


def complete(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the registers, if ``parameters`` has all of a kind; else none."""
    return next((names for names in (FD, CLASSIC) if parameters.keys() >= set(names)), ())


def rates(parameters: Mapping[str, Any]) -> dict[str, int | bool]:
    """``bitrate`` of complete registers, in bit/s; of FD ones ``data_bitrate`` and ``fd``, too.

    :raises ValueError: a register is not a number above 0; the message names it.
    """
    names = complete(parameters)
    found = {name: _positive(name, parameters[name]) for name in names}
    if names == CLASSIC:
        return {"bitrate": _rate(found, "")}
    return {"bitrate": _rate(found, "nom_"), "data_bitrate": _rate(found, "data_"), "fd": True}


def btr(parameters: Mapping[str, Any]) -> str | None:
    """Complete classic registers as ``slcan`` writes them: BTR0 and BTR1, four hex digits.

    ``None`` if there are none, or other ones than these have room for. Registers of the SJA1000
    (Philips, data sheet, 6.5.1 and 6.5.2), whose quanta are those of a clock of 8 MHz there
    (LAWICEL AB, "CANUSB Manual").

    :raises ValueError: a register is not a number above 0; the message names it.
    """
    if complete(parameters) != CLASSIC:
        return None
    found = {name: _positive(name, parameters[name]) for name in CLASSIC}
    brp, rest = divmod(found["brp"] * _LAWICEL_CLOCK_HZ, found["f_clock"])
    fits = found["tseg1"] <= 16 and found["tseg2"] <= 8 and found["sjw"] <= 4
    if rest or not 1 <= brp <= 64 or not fits or found["nof_samples"] not in (1, 3):
        return None
    btr0 = (found["sjw"] - 1) << 6 | (brp - 1)
    btr1 = (found["nof_samples"] == 3) << 7 | (found["tseg2"] - 1) << 4 | (found["tseg1"] - 1)
    return f"{btr0:02X}{btr1:02X}"


def rate_of_btr(text: str) -> int:
    """The bitrate of what :func:`btr` writes, in bit/s."""
    btr0, btr1 = bytes.fromhex(text)
    found = {"brp": (btr0 & 63) + 1, "tseg1": (btr1 & 15) + 1, "tseg2": (btr1 >> 4 & 7) + 1}
    return _rate({"f_clock": _LAWICEL_CLOCK_HZ, **found}, "")


def _rate(found: Mapping[str, int], kind: str) -> int:
    # A bit is the synchronisation segment, of one quantum, and both time segments (ISO 11898-1).
    quanta = 1 + found[f"{kind}tseg1"] + found[f"{kind}tseg2"]
    return round(found["f_clock"] / (found[f"{kind}brp"] * quanta))


def _positive(name: str, value: Any) -> int:
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number above 0, got {value!r}")
    return value
