"""Names are valid, tell apart, and never change."""

import csv
import io
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from evaljob import jobs, names
from evaljob.merge import summarize
from evaljob.names import job_name
from evaljob.tables import files, table
from tests.unit import builders
from tests.unit.builders import UID, dataset, evaljob, model, scored

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)
identities = st.fixed_dictionaries(
    {
        "uid": st.sampled_from([UID, "another"]),
        "model": labels,
        "dataset": labels,
        "shard": st.integers(0, 9),
        "shards": st.integers(1, 10),
    }
)


@given(evaljob=labels, identity=identities)
def test_a_job_name_is_a_dns_label(evaljob: str, identity: dict[str, Any]) -> None:
    assert DNS_LABEL.fullmatch(job_name(evaljob=evaljob, **identity))


@given(st.lists(identities, min_size=2, max_size=40, unique_by=lambda i: tuple(sorted(i.items()))))
def test_job_names_tell_partitions_apart(identities: list[dict[str, Any]]) -> None:
    """Names of 40 characters leave no room for the dataset: the hash has to tell."""
    found = {job_name(evaljob="e" * 40, **i) for i in identities}
    assert len(found) == len(identities)


def test_parts_do_not_run_into_each_other() -> None:
    one: dict[str, Any] = {"evaljob": "e", "uid": UID, "shard": 0, "shards": 1}
    assert job_name(model="a-b", dataset="c", **one) != job_name(model="a", dataset="b-c", **one)


def test_job_names_are_stable() -> None:
    """A name that changes with a release would run finished partitions again."""
    identity = {"evaljob": "nightly", "uid": UID, "model": "qwen2-72b", "dataset": "mmlu"}
    assert job_name(**identity, shard=0, shards=1) == "nightly-qwen2-72b-mmlu-2mrelhzzvt"
    assert job_name(**identity, shard=1, shards=2) == "nightly-qwen2-72b-mmlu-1-ktkyxd7o5a"


def test_names_of_objects() -> None:
    assert names.plan_name("nightly", "uid-1") == "nightly-plan-jje2z6fgxv"
    assert names.summary_name("nightly") == "nightly-summary"
    assert names.shard_label(0, 2) == "0-of-2"


DISPLAY = st.sampled_from(
    ["[basene][chat-128k] Qwen2-72B-Instruct", "通义千问" * 60, "🦙" * 253, "x" * 253]
) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=253)


@given(shown=DISPLAY)
def test_any_display_name_survives_from_the_spec_to_the_summary(shown: str) -> None:
    of = evaljob([model(displayName=shown)], [dataset(displayName=shown)])
    plan = builders.plan(of)
    (partition,) = plan.partitions
    job = jobs.job(of, plan, partition)
    assert job["metadata"]["name"].startswith("nightly-m-d-")
    assert all(DNS_LABEL.fullmatch(v) for v in job["metadata"]["labels"].values())
    summary = summarize(plan, {partition: scored(partition)}, state="Complete")
    assert summary.models[0].display_name == summary.datasets[0].display_name == shown
    header, *_ = table(summary).rows
    assert header[0] == f"{shown} (exact_match)"
    lines = [line for line in files(summary)["summary.md"].splitlines() if line.startswith("|")]
    assert len(lines) == 3
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {3}
    (row,) = csv.DictReader(io.StringIO(files(summary)["summary.csv"]))
    assert (row["model"], row["dataset"], row["value"]) == ("m", "d", "0.75")


def test_the_name_of_a_real_model_reads_as_it_is_written() -> None:
    shown = "[basene][chat-128k] Qwen2-72B-Instruct"
    plan = builders.plan(evaljob([model(displayName=shown)]))
    partition = plan.partitions[0]
    summary = summarize(plan, {partition: scored(partition)}, state="Complete")
    assert f" {shown} |" in files(summary)["summary.md"]
