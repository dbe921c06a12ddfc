"""The command line of keys: what is refused before anything is changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from canbroker.cli import cli
from canbroker.model.key import PublicKey

KEY = PublicKey(bytes([7]) * 32)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["authorize", "b b", str(KEY)], "a name has 1 to 64 letters, digits and . _ @ -"),
        (["authorize", "bob", "cb1:AA"], "a key has 43 characters, got 2; was it copied whole?"),
        (["authorize", "bob", f"cb1:{'A' * 42}+"], "letters, digits, - and _ only; character 43"),
        (["authorize", "bob", str(KEY), "--role", "root"], "'root' is not one of 'observe', "),
        (["authorize", "bob", str(KEY), "--transmit", "0x1"], "'0x1' is not FIRST-LAST in hex"),
        (["trust", "bench1:5655", str(KEY)], "is tcp://HOST:PORT"),
        (["trust", "tcp://bench1", str(KEY)], "it has no port; write tcp://<host>:<port>"),
        (["trust", "tcp://::1:5655", str(KEY)], "an IPv6 address is written in brackets"),
        (["trust", "udp://bench1:5655", str(KEY)], "is tcp://HOST:PORT"),
    ],
)
def test_a_wrong_command_line_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    result = CliRunner().invoke(cli, ["keys", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []
