"""The dashboard asks only for metrics that the operator exports, by labels that they have."""

import json
import re
from collections.abc import Iterator

import pytest
from prometheus_client import Metric

from evaljob.result import Seconds
from evaljob.status import PartitionCounts
from evaljob_operator.metrics import Metrics
from tests.chart.conftest import CHART, Manifest, Render

DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())
QUERIES = [
    *(t["expr"] for panel in DASHBOARD["panels"] for t in panel["targets"]),
    *(v["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"),
]


def exported() -> Iterator[Metric]:
    """Everything that an operator with something to tell exports."""
    metrics = Metrics()
    metrics.requested("POST", "/apis/batch/v1/namespaces/evals/jobs", 201)
    metrics.created()
    metrics.passed(0.1)
    metrics.recorded("Succeeded")
    metrics.computed(1, Seconds(infer=1))
    counts = [("evals", PartitionCounts(total=1, running=1))]
    metrics.watch(lambda: counts, lambda: ["evals"], lambda: [("evals", "jobs", 1.0)])
    return iter(metrics.registry.collect())


LABELS = {sample.name: set(sample.labels) for metric in exported() for sample in metric.samples}


@pytest.mark.parametrize("query", QUERIES)
def test_it_asks_for_what_there_is(query: str) -> None:
    (name,) = re.findall(r"\bevaljob_\w+", query)
    assert name in LABELS
    used = re.findall(r"by \(([^)]*)\)", query) + re.findall(r"(\w+)=~?\"", query)
    used += re.findall(r"label_values\(\w+, (\w+)\)", query)
    assert {label for labels in used for label in labels.split(", ")} <= LABELS[name]


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda p: p["title"])
def test_its_legends_show_what_is_asked_for(panel: Manifest) -> None:
    for target in panel["targets"]:
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert shown <= set(", ".join(re.findall(r"by \(([^)]*)\)", target["expr"])).split(", "))


def test_every_metric_is_on_it() -> None:
    families = {metric.name for metric in exported()}
    assert {f for f in families if not any(f in query for query in QUERIES)} == set()


def test_grafana_s_sidecar_finds_it_where_it_is_asked_for(render: Render) -> None:
    def dashboards(*values: str) -> list[Manifest]:
        return [o for o in render(*values) if "grafana_dashboard" in o["metadata"].get("labels", {})]

    assert dashboards() == []
    (found,) = dashboards("metrics.dashboard=true")
    assert json.loads(found["data"]["evaljob.json"]) == DASHBOARD
