"""A database in ARXML that tests write: a system description of AUTOSAR."""

from __future__ import annotations

from typing import Final, NamedTuple


class _Signal(NamedTuple):
    """``scale``: numerators of the value and denominator, as AUTOSAR writes a line; ``labels`` by
    their numbers."""

    name: str
    start: int
    length: int
    encoding: str = "NONE"  # unsigned; "2C": two's complement, "IEEE754"
    is_big: bool = False
    scale: tuple[float, float, float] | None = None
    unit: str = ""
    labels: tuple[tuple[int, str], ...] = ()


class _Pdu(NamedTuple):
    """``header``: its identifier in a container."""

    name: str
    length: int
    signals: tuple[_Signal, ...]
    header: int | None = None


_MOTION: Final = _Pdu(
    "MotionPdu",
    8,
    (
        _Signal("Speed", 0, 16, scale=(0, 1, 10), unit="km/h"),
        _Signal("Gear", 16, 4, labels=((0, "Park"), (4, "Drive"))),
        _Signal("Slope", 24, 8, encoding="2C", scale=(0, 1, 2), unit="%"),
        _Signal("Torque", 39, 16, is_big=True, scale=(-500, 1, 4), unit="Nm"),
    ),
)
_CLIMATE: Final = _Pdu(
    "ClimatePdu", 4, (_Signal("Outside", 0, 32, encoding="IEEE754", unit="degC"),)
)
_CONTAINED: Final = (
    _Pdu("Front", 1, (_Signal("Door", 0, 1, labels=((0, "shut"), (1, "open"))),), header=0x10),
    _Pdu("Rear", 2, (_Signal("Weight", 0, 16, unit="kg"),), header=0x20),
)

#: A plain message, an extended one with a small identifier, and one of CAN FD that is a container.
_FRAMES: Final = (
    ("Motion", 0x123, "STANDARD", 8),
    ("Climate", 6, "EXTENDED", 4),
    ("Doors", 0x300, "STANDARD", 32),
)


def car_arxml() -> str:
    """A system description of AUTOSAR 4.2, with what cantools reads of it."""
    pdus = (_MOTION, _CLIMATE, *_CONTAINED)
    signals = [signal for pdu in pdus for signal in pdu.signals]
    parts = [
        "".join(map(_frame, _FRAMES)),
        "".join(map(_pdu, pdus)),
        _container(),
        "".join(map(_signal, signals)),
        _cluster(),
        _element("SW-BASE-TYPE", "Float", "<BASE-TYPE-ENCODING>IEEE754</BASE-TYPE-ENCODING>"),
        _element("SW-BASE-TYPE", "Signed", "<BASE-TYPE-ENCODING>2C</BASE-TYPE-ENCODING>"),
    ]
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<AUTOSAR xmlns="http://autosar.org/schema/r4.0" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:schemaLocation="http://autosar.org/schema/r4.0 AUTOSAR_4-2-2.xsd"><AR-PACKAGES>'
        f"<AR-PACKAGE><SHORT-NAME>car</SHORT-NAME><ELEMENTS>{''.join(parts)}</ELEMENTS>"
        "</AR-PACKAGE></AR-PACKAGES></AUTOSAR>\n"
    )


def _element(tag: str, name: str, content: str) -> str:
    return f"<{tag}><SHORT-NAME>{name}</SHORT-NAME>{content}</{tag}>\n"


def _reference(tag: str, kind: str, name: str) -> str:
    return f'<{tag} DEST="{kind}">/car/{name}</{tag}>'


def _frame(frame: tuple[str, int, str, int]) -> str:
    name, _, _, length = frame
    kind = "CONTAINER-I-PDU" if name == "Doors" else "I-SIGNAL-I-PDU"
    mapping = _element("PDU-TO-FRAME-MAPPING", "Mapping", _reference("PDU-REF", kind, f"{name}Pdu"))
    return _element(
        "CAN-FRAME",
        name,
        f"<FRAME-LENGTH>{length}</FRAME-LENGTH>"
        f"<PDU-TO-FRAME-MAPPINGS>{mapping}</PDU-TO-FRAME-MAPPINGS>",
    )


def _pdu(pdu: _Pdu) -> str:
    header = (
        ""
        if pdu.header is None
        else "<CONTAINED-I-PDU-PROPS><HEADER-ID-SHORT-HEADER>"
        f"{pdu.header}</HEADER-ID-SHORT-HEADER></CONTAINED-I-PDU-PROPS>"
    )
    mappings = "".join(map(_mapping, pdu.signals))
    return _element(
        "I-SIGNAL-I-PDU",
        pdu.name,
        f"<LENGTH>{pdu.length}</LENGTH>{header}"
        f"<I-SIGNAL-TO-PDU-MAPPINGS>{mappings}</I-SIGNAL-TO-PDU-MAPPINGS>",
    )


def _mapping(signal: _Signal) -> str:
    order = "FIRST" if signal.is_big else "LAST"
    return _element(
        "I-SIGNAL-TO-I-PDU-MAPPING",
        f"{signal.name}Place",
        _reference("I-SIGNAL-REF", "I-SIGNAL", signal.name)
        + f"<PACKING-BYTE-ORDER>MOST-SIGNIFICANT-BYTE-{order}</PACKING-BYTE-ORDER>"
        f"<START-POSITION>{signal.start}</START-POSITION>",
    )


def _container() -> str:
    references = "".join(
        _reference(
            "CONTAINED-PDU-TRIGGERING-REF", "PDU-TRIGGERING", f"Bus/Channel/{pdu.name}Triggering"
        )
        for pdu in _CONTAINED
    )
    return _element(
        "CONTAINER-I-PDU",
        "DoorsPdu",
        "<LENGTH>32</LENGTH><CONTAINED-PDU-TRIGGERING-REFS>"
        f"{references}</CONTAINED-PDU-TRIGGERING-REFS><HEADER-TYPE>SHORT-HEADER</HEADER-TYPE>",
    )


def _signal(signal: _Signal) -> str:
    """The signal on the bus, what it stands for, and how its value is computed."""
    types = {"2C": "Signed", "IEEE754": "Float"}
    base = types.get(signal.encoding)
    raw = "" if base is None else _properties("NETWORK-REPRESENTATION-PROPS", _base(base))
    on_bus = f"<LENGTH>{signal.length}</LENGTH>{raw}" + _reference(
        "SYSTEM-SIGNAL-REF", "SYSTEM-SIGNAL", f"{signal.name}Value"
    )
    means = _properties(
        "PHYSICAL-PROPS", _reference("COMPU-METHOD-REF", "COMPU-METHOD", f"{signal.name}Method")
    )
    unit = (
        _element("UNIT", f"{signal.name}Unit", f"<DISPLAY-NAME>{signal.unit}</DISPLAY-NAME>")
        if signal.unit
        else ""
    )
    return (
        _element("I-SIGNAL", signal.name, on_bus)
        + _element("SYSTEM-SIGNAL", f"{signal.name}Value", means)
        + _element("COMPU-METHOD", f"{signal.name}Method", _method(signal))
        + unit
    )


def _base(name: str) -> str:
    return _reference("BASE-TYPE-REF", "SW-BASE-TYPE", name)


def _properties(tag: str, content: str) -> str:
    return (
        f"<{tag}><SW-DATA-DEF-PROPS-VARIANTS><SW-DATA-DEF-PROPS-CONDITIONAL>{content}"
        f"</SW-DATA-DEF-PROPS-CONDITIONAL></SW-DATA-DEF-PROPS-VARIANTS></{tag}>"
    )


def _method(signal: _Signal) -> str:
    category, scales = "IDENTICAL", ""
    if signal.labels:
        category = "TEXTTABLE"
        scales = "".join(
            f"<COMPU-SCALE><LOWER-LIMIT>{number}</LOWER-LIMIT><UPPER-LIMIT>{number}</UPPER-LIMIT>"
            f"<COMPU-CONST><VT>{label}</VT></COMPU-CONST></COMPU-SCALE>"
            for number, label in signal.labels
        )
    elif signal.scale is not None:
        category = "LINEAR"
        offset, factor, divisor = signal.scale
        scales = (
            "<COMPU-SCALE><COMPU-RATIONAL-COEFFS>"
            f"<COMPU-NUMERATOR><V>{offset}</V><V>{factor}</V></COMPU-NUMERATOR>"
            f"<COMPU-DENOMINATOR><V>{divisor}</V></COMPU-DENOMINATOR>"
            "</COMPU-RATIONAL-COEFFS></COMPU-SCALE>"
        )
    unit = _reference("UNIT-REF", "UNIT", f"{signal.name}Unit") if signal.unit else ""
    return (
        f"<CATEGORY>{category}</CATEGORY>{unit}<COMPU-INTERNAL-TO-PHYS>"
        f"<COMPU-SCALES>{scales}</COMPU-SCALES></COMPU-INTERNAL-TO-PHYS>"
    )


def _cluster() -> str:
    frames = "".join(
        _element(
            "CAN-FRAME-TRIGGERING",
            name,
            _reference("FRAME-REF", "CAN-FRAME", name)
            + f"<CAN-ADDRESSING-MODE>{mode}</CAN-ADDRESSING-MODE>"
            + f"<IDENTIFIER>{identifier}</IDENTIFIER>",
        )
        for name, identifier, mode, _ in _FRAMES
    )
    pdus = "".join(
        _element(
            "PDU-TRIGGERING",
            f"{pdu.name}Triggering",
            _reference("I-PDU-REF", "I-SIGNAL-I-PDU", pdu.name),
        )
        for pdu in _CONTAINED
    )
    channel = _element(
        "CAN-PHYSICAL-CHANNEL",
        "Channel",
        f"<FRAME-TRIGGERINGS>{frames}</FRAME-TRIGGERINGS><PDU-TRIGGERINGS>{pdus}</PDU-TRIGGERINGS>",
    )
    return _element(
        "CAN-CLUSTER",
        "Bus",
        "<CAN-CLUSTER-VARIANTS><CAN-CLUSTER-CONDITIONAL><BAUDRATE>500000</BAUDRATE>"
        "<CAN-FD-BAUDRATE>2000000</CAN-FD-BAUDRATE>"
        f"<PHYSICAL-CHANNELS>{channel}</PHYSICAL-CHANNELS>"
        "</CAN-CLUSTER-CONDITIONAL></CAN-CLUSTER-VARIANTS>",
    )
