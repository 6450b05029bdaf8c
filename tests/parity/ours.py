"""A case by the runner, in this process, with every request to the engine recorded."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evaljob.backends import Device, Dtype
from evaljob.corpus import CORPORA
from evaljob.result import PartitionResult
from evaljob.spec import Model
from evaljob_runner.backends.base import GenerateRequest, LogLikelihoodRequest, token_ids
from evaljob_runner.checkpoints import Checkpoint
from evaljob_runner.evaluate import Shell, evaluate
from evaljob_runner.progress import Progress, Stopwatch
from tests.parity.cases import Case
from tests.parity.compare import Ids, Run, Sample
from tests.runner_plans import assignment, planned


class Recorded:
    """A backend that remembers the token ids of every request."""

    def __init__(self, inner: Any) -> None:  # noqa: ANN401 - any local backend
        self._inner = inner
        self.asked: dict[str, tuple[Ids, ...]] = {}

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - tokenizer, window, device
        return getattr(self._inner, name)

    def generate(self, requests: Iterable[GenerateRequest]) -> Iterator[Any]:
        """As the backend."""

        def remembered() -> Iterator[GenerateRequest]:
            for request in requests:
                self.asked[request.key] = (token_ids(request),)
                yield request

        return self._inner.generate(remembered())  # type: ignore[no-any-return]

    def weigh(self, requests: Iterable[LogLikelihoodRequest]) -> Iterator[Any]:
        """As the backend."""

        def remembered() -> Iterator[LogLikelihoodRequest]:
            for request in requests:
                self.asked[request.key] = tuple(ids for pair in request.token_pairs for ids in pair)
                yield request

        return self._inner.weigh(remembered())  # type: ignore[no-any-return]


def model(case: Case, backend: str) -> Model:
    """The model as a spec names it."""
    engine: dict[str, Any] = {"source": f"pvc://models/{case.model.folder.name}", "dtype": "float32"}
    engine |= {"maxModelLen": case.model.window} if backend == "vllm" else {"device": "CPU", "batchSize": 16}
    prompt_format = "Chat" if case.chat else "Text"
    return Model.model_validate({"name": "m", "promptFormat": prompt_format, backend: engine})


def load(folder: Path, backend: str, window: int) -> Any:  # noqa: ANN401 - any local backend
    """An engine in float32 on the CPU."""
    if backend == "vllm":
        from evaljob_runner.backends import vllm

        return vllm.VLLMBackend(
            folder,
            vllm.Options(Dtype.FLOAT32, 1, window, gpu_memory_utilization=0.9, gpu_expected=False),
            print,
        )
    from evaljob_runner.backends.transformers import Options, TransformersBackend

    loaded = TransformersBackend(
        folder, Options(Dtype.FLOAT32, Device.CPU, 16, gpu_expected=False, threads=1)
    )
    loaded.window = window  # the checkpoint's own may be longer than what lm-eval is given
    return loaded


def evaluated(
    case: Case,
    engine: Any,  # noqa: ANN401 - as above
    backend: str,
    data: Path,
    out: Path,
    watch: Stopwatch | None = None,
) -> PartitionResult:
    """The partition of a case on a live engine; its sample log stands in `out`."""
    dataset = planned(case.ours(), name=case.data, source=f"pvc://data/{case.data}", limit=case.limit)
    work = assignment(model(case, backend), dataset, out, data=data, models=case.model.folder.parent)

    def opened(_work: object, _checkpoint: Checkpoint | None) -> Any:  # noqa: ANN401 - as above
        return engine

    out.mkdir(parents=True)
    with (out / "progress").open("w") as said:
        return evaluate(work, Shell(opened, Progress(said), watch or Stopwatch(), lambda _: None))


def run(case: Case, engine: Any, backend: str, data: Path, out: Path) -> Run:  # noqa: ANN401 - as above
    """Evaluate and read the sample log."""
    recorded = Recorded(engine)
    result = evaluated(case, recorded, backend, data, out)
    (log,) = (out / "m" / case.data).glob("*.jsonl")
    lines = [json.loads(text) for text in log.read_text().splitlines()]
    scores = {line["id"]: line["scores"] for line in lines if line["kind"] == "score"}
    samples = {
        int(line["id"]): _sample(case, line, recorded.asked.get(f"{line['id']}#0", ()), scores[line["id"]])
        for line in lines
        if line["kind"] == "inference"
    }
    return Run(samples, _metrics(result))


def _sample(case: Case, line: Mapping[str, Any], asked: tuple[Ids, ...], scores: Mapping[str, Any]) -> Sample:
    request = line["requests"][0]
    weights = tuple(
        (choice["sum"], None if case.kind == "weigh" else choice["greedy"])
        for choice in request.get("logprobs", ())
    )
    values = {name: float(score["value"]) for name, score in scores.items() if "counts" not in score}
    overflow = line["outcome"] == "ContextOverflow"
    return Sample(asked, request.get("output"), weights, values, overflow=overflow)


def _metrics(result: PartitionResult) -> dict[str, tuple[float, float | None]]:
    (subset,) = result.subsets
    found: dict[str, tuple[float, float | None]] = {}
    for metric, stat in zip(result.metrics, subset.stats, strict=True):
        if corpus := CORPORA.get(metric.aggregation):
            found[metric.key] = corpus.score(subset.ngrams[metric.key]), None
            continue
        estimate = metric.estimate(stat)
        assert estimate is not None
        found[metric.key] = estimate.value, estimate.stderr
    return found
