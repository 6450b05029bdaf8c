"""The comparison with lm-eval finds what differs: a check that finds nothing proves nothing."""

import dataclasses
from typing import Any

import pytest

from tests.parity.compare import OVERFLOW, Run, Sample, compare

SAMPLE = Sample(ids=((1, 2), (3,)), output=None, weights=((-1.5, True), (-2.5, False)), scores={"acc": 1.0})
RUN = Run({0: SAMPLE, 1: SAMPLE}, {"acc": (1.0, 0.0)})


def kinds(ours: Run, theirs: Run) -> list[tuple[str, str | None]]:
    return [(d.kind, d.why) for d in compare("case", ours, theirs, 1e-9)]


def changed(**fields: Any) -> Run:  # noqa: ANN401 - fields of a Sample
    return dataclasses.replace(RUN, samples={0: SAMPLE, 1: dataclasses.replace(SAMPLE, **fields)})


def test_equal_runs_have_no_difference_and_rounding_is_none() -> None:
    assert kinds(RUN, RUN) == []
    assert kinds(RUN, changed(weights=((-1.50009, True), (-2.5, False)))) == []


@pytest.mark.parametrize(
    ("theirs", "kind"),
    [
        (changed(ids=((1, 2), (4,))), "tokens"),
        (changed(output="x"), "generation"),
        (changed(weights=((-1.5002, True), (-2.5, False))), "log-likelihood"),
        (changed(weights=((float("nan"), True), (-2.5, False))), "log-likelihood"),
        (changed(weights=((-1.5, False), (-2.5, False))), "greedy"),
        (changed(weights=((-1.5, True),)), "choices"),
        (changed(scores={"acc": 0.0}), "score"),
        (dataclasses.replace(RUN, samples={0: SAMPLE}), "samples"),
        (dataclasses.replace(RUN, metrics={"acc": (0.9, 0.0)}), "metric"),
        (dataclasses.replace(RUN, metrics={"acc": (1.0, 0.1)}), "stderr"),
        (dataclasses.replace(RUN, metrics={}), "metrics"),
    ],
)
def test_each_difference_is_found_and_has_no_reason(theirs: Run, kind: str) -> None:
    assert kinds(RUN, theirs) == [(kind, None)]


def test_a_prompt_beyond_the_window_is_a_reason_for_its_sample_and_the_metrics() -> None:
    cut = dataclasses.replace(SAMPLE, ids=(), overflow=True)
    ours = Run({0: SAMPLE, 1: cut}, {"acc": (0.5, 0.5)})
    assert kinds(ours, RUN) == [("sample", OVERFLOW), ("metric", OVERFLOW), ("stderr", OVERFLOW)]
