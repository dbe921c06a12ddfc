"""The metrics guide, its rules and the dashboard name the metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import DOCS, text_of

pytest.importorskip("prometheus_client", reason="needs the extra metrics")
from canbroker.view.metrics import FAMILIES

NAMES = {name + ("_total" if family.kind == "counter" else "") for name, family in FAMILIES.items()}

_METRIC = re.compile(r"\bcanbroker_[a-z_]+")


def test_the_guide_has_every_metric_and_no_other() -> None:
    table = "\n".join(
        line.split("|")[1]
        for line in text_of("guides/metrics.md").splitlines()
        if line.startswith("| `canbroker_")
    )
    assert set(_METRIC.findall(table)) == NAMES
    assert set(_METRIC.findall(text_of("guides/metrics.md"))) <= NAMES


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "grafana.json").read_text())
    return found


def expressions() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    asked = {name for expression in expressions() for name in _METRIC.findall(expression)}
    asked |= set(_METRIC.findall(json.dumps(dashboard()["templating"])))
    assert len(asked) > 10
    assert asked <= NAMES


def test_counters_are_asked_for_their_growth() -> None:
    for expression in expressions():
        for name in _METRIC.findall(expression):
            is_rate = f"rate({name}" in expression or f"increase({name}" in expression
            assert is_rate == name.endswith("_total"), expression


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) == 23


def test_the_dashboard_is_one_of_grafanas() -> None:
    """Grafana's own library reads it, and knows everything in it."""
    reason = "needs Grafana's library; make ecosystem has it"
    models: Any = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason=reason)
    plugins: Any = pytest.importorskip("grafana_foundation_sdk.cog.plugins")
    encoder: Any = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    plugins.register_default_plugins()
    read = models.Dashboard.from_json(dashboard())
    assert {
        type(target).__module__.rpartition(".")[2]
        for panel in read.panels
        for target in panel.targets
    } == {"prometheus"}
    written = json.loads(encoder.JSONEncoder().encode(read))
    assert list(_missing(dashboard(), written)) == []
    misspelled = dashboard()
    misspelled["panels"][0]["titel"] = misspelled["panels"][0].pop("title")
    written = json.loads(encoder.JSONEncoder().encode(models.Dashboard.from_json(misspelled)))
    assert list(_missing(misspelled, written)) == [".panels.0.titel"]


def _missing(wanted: Any, found: Any, place: str = "") -> Iterator[str]:
    """Where ``found`` lacks something of ``wanted``, or has another value."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        parts = [(key, each, found.get(key)) for key, each in wanted.items()]
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        parts = [(str(at), *each) for at, each in enumerate(zip(wanted, found, strict=True))]
    else:
        parts = []
        if wanted != found:
            yield place
    for key, each, other in parts:
        yield from _missing(each, other, f"{place}.{key}")


def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    found = re.search(
        r'```yaml title="rules.yml"\n(.*?)^```', text_of("guides/metrics.md"), re.DOTALL | re.M
    )
    assert found is not None
    rules = tmp_path / "rules.yml"
    # The dashboard's expressions, as rules, with what Grafana puts in.
    lines = [
        f"      - record: panel:number{at}\n        expr: {json.dumps(_for_promtool(expression))}\n"
        for at, expression in enumerate(expressions())
    ]
    rules.write_text(found[1] + "".join(lines))
    checked = subprocess.run(
        [promtool, "check", "rules", rules], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert f"SUCCESS: {3 + len(lines)} rules found" in checked.stdout


def _for_promtool(expression: str) -> str:
    return expression.replace("$__rate_interval", "1m").replace("$channel", ".*")
