"""A few cases of `make parity` in every run of the tests."""

from pathlib import Path

import pytest

from tests.parity import cases, ours, theirs
from tests.parity.compare import OVERFLOW, Difference, compare

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


def test_token_ids_answers_and_metrics_equal_lm_evals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pipelines, choices of texts and of letters, whole texts in windows, a window that is too short."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    cases.write_data(tmp_path / "data", None)
    short = "short/mc/choose/1-shot/Text"
    names = {
        "tiny/gsm/generate/0-shot/Chat",
        "tiny/mc/choose/5-shot/Turns",
        "tiny/kind/choose/5-shot/Text",
        "short/gsm-pages/weigh/0-shot/Text",
        short,
    }
    wanted = [case for case in cases.tiny(tmp_path) if str(case) in names]
    assert len(wanted) == len(names)
    found: list[Difference] = []
    for case in wanted:
        sides = (side.load(case.model.folder, "transformers", case.model.window) for side in (ours, theirs))
        mine, their = sides
        first = ours.run(
            case, mine, "transformers", tmp_path / "data", tmp_path / str(case).replace("/", "-")
        )
        found += compare(str(case), first, theirs.run(case, their, tmp_path / "data"), case.precision)
    assert [d for d in found if d.why is None] == []
    assert {d.case for d in found if d.why == OVERFLOW} == {short}
