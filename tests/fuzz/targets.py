"""Every decoder by the name of its corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.fuzz import devices, files, gateway, keys, texts, wire, zmtp

Target = Callable[[bytes], None]

CORPUS: Final = Path(__file__).parent / "corpus"

#: Those that read MessagePack, which is mutated value by value.
PACKED: Final[Mapping[str, Target]] = {
    "batch": wire.batch,
    "event": wire.event,
    "request": wire.request,
    "reply": wire.reply,
    "transmit-request": wire.transmit_request,
    "transmit-reply": wire.transmit_reply,
    "policy-call": gateway.policy_call,
    "policy-transmit": gateway.policy_transmit,
}

TARGETS: Final[Mapping[str, Target]] = {
    **PACKED,
    "topic": wire.topic,
    "policy-topic": gateway.policy_topic,
    "filters": texts.filter_set,
    "log": texts.log,
    **{kind: files.reading(kind) for kind in ("blf", "asc", "trc", "csv", "sqlite", "pcapng")},
    "log-line": texts.log_line,
    "frame-text": texts.frame_text,
    "address": texts.address,
    "dump-filters": texts.dump_filters,
    "trigger": texts.trigger,
    "side-file": files.side_file,
    "waiting-file": files.waiting_file,
    "toml": texts.toml,
    "ini": texts.ini,
    "public-key": keys.public_key,
    "secret-key": keys.secret_key,
    "key-file": keys.key_file,
    "identifiers": keys.identifiers,
    "authorized": keys.authorized_file,
    "known-brokers": keys.known_file,
    "key-datagram": keys.datagram,
    "slcan": devices.slcan,
    "simulator": devices.simulator,
    "raw-can": devices.raw_can,
    "rtnetlink": devices.rtnetlink,
    "ring": devices.ring,
    "zmtp": zmtp.incoming,
}
