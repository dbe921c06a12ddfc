"""Databases of channels: checked when the broker starts, and told in parts."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, Final

import pytest

from canbroker.broker import databases
from canbroker.broker.databases import Databases
from canbroker.bus.databases import fetch_decoder
from canbroker.configuration import broker_file
from canbroker.errors import CanInitializationError, CanOperationError
from canbroker.model.frame import Frame
from canbroker.transport.replier import Caller
from canbroker.wire.databases import DatabasePart
from tests.support.databases import CAR_DBC

pytest.importorskip("cantools", reason="needs the extra signals; make ecosystem has it")

_CALLER: Final = Caller(b"", 1)


def configured(directory: Path, database: str) -> broker_file.Config:
    text = f'[channels.can0]\ninterface = "virtual"\ndatabase = {database}\n'
    return broker_file.parse(text, str(directory / "bench.toml"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "car.dbc").write_text(CAR_DBC)
    (tmp_path / "bad.dbc").write_text("BO_ nonsense")
    return tmp_path


class Connection:
    """Asks databases without a socket in between; ``change`` may change an answer."""

    def __init__(self, serving: Databases) -> None:
        self._serving = serving
        self.asked = 0

    def change(self, part: DatabasePart) -> None:
        """As it is."""

    def __call__(self, method: str, params: Any, result: type[Any], /) -> Any:
        assert (method, result) == ("database", DatabasePart)
        self.asked += 1
        part = self._serving.part(_CALLER, params)
        self.change(part)
        return part


def test_a_client_decodes_as_the_files_say(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "PART_BYTES", 100)
    (directory / "more.dbc").write_text(CAR_DBC.replace("291", "292").replace("Motion", "More"))
    serving = Databases(configured(directory, '["car.dbc", "more.dbc"]'))
    (directory / "car.dbc").write_text("changed since")
    connection = Connection(serving)
    decoder = fetch_decoder(connection, "can0")
    assert decoder is not None
    assert decoder.name == "car.dbc, more.dbc"
    assert decoder.name_of(Frame(0, 0x123, 0, bytes(8))) == "Motion"
    assert decoder.name_of(Frame(0, 0x124, 0, bytes(8))) == "More"
    assert connection.asked > 10, "in parts"
    infos = serving.of("can0")
    assert [info.path for info in infos] == ["car.dbc", "more.dbc"]
    assert infos[0].size == len(CAR_DBC)


@pytest.mark.parametrize("config", [None, "[]"])
def test_a_channel_without_a_database_has_none(directory: Path, config: str | None) -> None:
    serving = Databases(None if config is None else configured(directory, config))
    assert serving.of("can0") == []
    assert fetch_decoder(Connection(serving), "can0") is None


@pytest.mark.parametrize(
    ("database", "said"),
    [
        ('"none.dbc"', "cannot read .*none.dbc: No such file"),
        ('["car.dbc", "bad.dbc"]', "bad.dbc is not a database: DBC: .*line 1"),
        ('"."', "cannot read .*: Is a directory"),
        ('"car\\u0000.dbc"', "cannot read .*null"),
    ],
)
def test_a_wrong_file_is_an_error_of_the_configuration(
    directory: Path, database: str, said: str
) -> None:
    with pytest.raises(
        CanInitializationError, match=rf"bench\.toml, line 3, channels\.can0\.database: .*{said}"
    ):
        Databases(configured(directory, database))


def test_without_cantools_the_configuration_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(directory, '"car.dbc"')
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        CanInitializationError, match=r"line 3, channels\.can0\.database: .*canbroker\[signals\]"
    ):
        Databases(config)


class Damaging(Connection):
    """Answers with other content than it announces."""

    def __init__(self, serving: Databases, content: bytes) -> None:
        super().__init__(serving)
        self._content = content

    def change(self, part: DatabasePart) -> None:
        part.content, part.compressed = self._content, len(self._content) or 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not compressed", r"car\.dbc: Error -3"),
        (zlib.compress(b"another"), r"car\.dbc arrived damaged"),
        (zlib.compress(bytes(1 << 20)), r"car\.dbc arrived damaged"),
        (b"", "a part of a database is empty"),
    ],
)
def test_a_database_that_arrives_damaged_is_refused(
    directory: Path, content: bytes, said: str
) -> None:
    serving = Databases(configured(directory, '"car.dbc"'))
    with pytest.raises(CanOperationError, match=said):
        fetch_decoder(Damaging(serving, content), "can0")
