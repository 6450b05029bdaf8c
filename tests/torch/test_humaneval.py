"""HumanEval's own solutions through the metric: the sandbox fails no right program."""

from pathlib import Path

import pytest

from examples.prepare import humaneval
from tests.integration.test_code_exec import catalogue, dataset
from tests.runner_plans import assignment, tiny_model
from tests.unit.test_runner_evaluate import answers, logged, run

pytestmark = pytest.mark.torch


def test_all_164_canonical_solutions_pass(tmp_path: Path) -> None:
    problems = humaneval.read()
    solutions = {problem.prompt: problem.canonical_solution for problem in problems}
    rows = [vars(problem) for problem in problems]
    # The scripted model's tokens are characters.
    model = tiny_model(generation={"maxTokens": 4096})
    work = assignment(model, dataset(catalogue("humaneval"), rows), tmp_path)
    found = run(work, answers(solutions.__getitem__))
    failed = [
        x for x in logged(tmp_path) if x["kind"] == "score" and not x["scores"]["code_exec,code"]["value"]
    ]
    assert failed == []
    assert found.subsets[0].stats[0][:2] == (164, 164)
