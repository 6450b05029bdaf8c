"""Tasks of lm-eval in pods with the image that holds it: Python of a task's author, and the reference scores."""

import pytest

from tests.e2e.conftest import Submit, needs_image
from tests.e2e.evaljobs import Manifest, evaljob, tiny
from tests.e2e.world import World

pytestmark = pytest.mark.cluster


def _task(name: str, task: str, metric: str, source: str) -> Manifest:
    own = {"task": task, "metric": metric, "includePath": "pvc://data/tasks"}
    return {"name": name, "lmEval": own, "source": f"pvc://data/split{source}"}


def test_a_task_and_a_group_of_lm_eval_run_in_an_image_of_their_own(world: World, submit: Submit) -> None:
    image = needs_image(world, "runner-lm-eval")
    model = tiny("tiny", "Text", world.torch_node)
    datasets = [
        _task("gsm", "tiny_gsm", "exact_match,strict-match", "/gsm"),
        _task("choices", "tiny_choices", "acc", ""),
    ]
    handle = submit(evaljob("lmeval", [model], datasets, parallelism=2))
    status = handle.finished(seconds=400)
    assert (status["state"], status["progress"]) == ("Complete", "2/2")
    handle.matches_reference("tiny", "gsm/Text")
    cell = handle.cell("tiny", "choices")
    assert {part["name"] for part in cell["parts"]} >= {"tiny_choices", "tiny_mc", "tiny_kind"}
    assert cell["provenance"].keys() >= {"lm-eval", "weights"}
    used = {pod["spec"]["containers"][0]["image"] for pod in handle.get("pods")}
    assert used == {image}
