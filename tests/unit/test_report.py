"""A summary that is written dataset by dataset is the whole one, and takes a fraction of its memory."""

import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from evaljob import framing, result
from evaljob.merge import summarize
from evaljob.names import State
from evaljob.observe import Observation, observe
from evaljob.plan import Plan
from evaljob.report import Ended, Report
from evaljob.tables import files
from tests.unit import builders
from tests.unit.builders import UID, dataset, evaljob, job_view, scored

KIB = 1024.0


def ended(plan: Plan, *, failed: bool = False) -> tuple[Observation, ...]:
    """All partitions on record; the last one as a failure, if wanted."""
    texts = [framing.encode(scored(p)) for p in plan.partitions]
    if failed:
        texts[-1] = framing.encode(result.failure("OOMKilled", "4Gi"))
    jobs = {
        name: job_view(name, uid=f"job-{i}", finished="Complete", record=text)
        for i, ((name, _), text) in enumerate(zip(plan.named, texts, strict=True))
    }
    return observe(plan, UID, jobs, ()).observations


def test_the_files_are_those_of_the_whole_summary() -> None:
    plan = builders.plan(evaljob([builders.model("a"), builders.model("b")], [dataset("x"), dataset("y")]))
    seen = ended(plan, failed=True)
    outcomes = Ended(seen)
    whole = summarize(plan, dict(outcomes), state=State.FAILED)
    report = Report(plan, outcomes, State.FAILED)
    texts = {name: str(text) for name, text in report.files.items()}
    assert texts == files(whole)
    assert texts["summary.json"] == whole.to_json()
    assert (whole.succeeded, whole.failed, outcomes.failed) == (3, 1, 1)


def test_what_has_not_ended_has_no_outcome() -> None:
    plan = builders.plan()
    outcomes = Ended(observe(plan, UID, {}, ()).observations)
    assert (dict(outcomes), len(outcomes), plan.partitions[0] in outcomes) == ({}, 0, False)


@pytest.fixture
def allocated() -> Iterator[Callable[[], tuple[float, float]]]:
    """KiB that are held, and that were held at most, since the last call."""
    tracemalloc.start()

    def since() -> tuple[float, float]:
        held, most = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        return held / KIB, most / KIB

    yield since
    tracemalloc.stop()


def room(allocated: Callable[[], tuple[float, float]], total: int) -> tuple[float, float]:
    """KiB that the records of an EvalJob take, and at most its summary beside them."""
    models, datasets = (
        [builders.model(f"m{n}") for n in range(10)],
        [dataset(f"d{n}") for n in range(total // 10)],
    )
    before, _ = allocated()
    plan = builders.plan(evaljob(models, datasets))
    seen = ended(plan)
    held, _ = allocated()
    assert Report(plan, Ended(seen), State.COMPLETE).packed.binary
    _, most = allocated()
    return held - before, most - held


def test_a_partition_takes_two_kibibytes_and_its_summary_hardly_more(
    allocated: Callable[[], tuple[float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """10,000 decoded outcomes were 40 MiB, the cells of their summary 60, and its text 40 more."""
    monkeypatch.setattr("evaljob.packing.BYTES_MAX", 50_000)
    (_, some), (records, more) = room(allocated, 100), room(allocated, 400)
    assert records / 400 < 2
    assert (more - some) / 300 < 0.5
