"""A partition that lm-eval computes, from its source to a result."""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from evaljob.lmeval import LmEval
from evaljob.names import Reason
from evaljob.pairs import lm_eval_problem
from evaljob.result import Outcomes, PartitionResult
from evaljob_runner import checkpoints, digest, report
from evaljob_runner.assignment import Assignment, read_key
from evaljob_runner.checkpoints import Checkpoint
from evaljob_runner.errors import Fatal, Retry
from evaljob_runner.evaluate import Shell
from evaljob_runner.lmeval import arguments, documents, reading
from evaljob_runner.lmeval.documents import Documents
from evaljob_runner.lmeval.reading import Names, Read
from evaljob_runner.opening import machine
from evaljob_runner.samplelog import SampleLog
from evaljob_runner.sources import uris

if TYPE_CHECKING:
    from evaljob_runner.lmeval.harness import Loaded

_log = logging.getLogger(__name__)


def evaluate(work: Assignment, spec: LmEval, shell: Shell) -> PartitionResult:
    """Let lm-eval run its task, check what it says, write its samples down.

    A finished partition stays finished: its result stands beside its sample log. An unfinished one starts again,
    because lm-eval gives samples only at its end.

    Raises:
        Fatal: when trying again cannot help.
        Retry: when a hub or a bucket does not answer.
    """
    if why := lm_eval_problem(work.model):
        raise work.unsupported(why)
    with tempfile.TemporaryDirectory() as scratch:
        tasks = documents.copy_tasks(work, Path(scratch) / "tasks")
        source = _source(work, Path(scratch) / "rows")
        with shell.stopwatch.phase("load"):
            checkpoint = checkpoints.find(work)
        identity = _digest(work, spec, checkpoint, documents.identity(work, source, tasks))
        kept = _kept(work, identity)
        if kept.exists():
            return _finished(kept, work, spec)
        if shell.score_only:
            raise Fatal(
                Reason.SAMPLES_LEFT, "--score-only: lm-eval has not finished this partition; run it once"
            )
        found = Documents(source) if source else None
        device, read = _run(work, spec, checkpoint, tasks, found, shell, identity)
    with contextlib.closing(SampleLog(kept.parent, work.attempt, identity)) as log:
        shell.watch(log)
        for lines in read.lines:
            log.append(*lines)
    result = _result(work, read, checkpoint, device, shell, identity)
    _keep(kept, result)
    return result


def _source(work: Assignment, scratch: Path) -> uris.Source | None:
    uri = work.planned.dataset.source
    return uris.open_source(uri, None, work.places, scratch) if uri else None


def _run(
    work: Assignment,
    spec: LmEval,
    checkpoint: Checkpoint | None,
    tasks: Path | None,
    found: Documents | None,
    shell: Shell,
    identity: str,
) -> tuple[str, Read]:
    if util.find_spec("lm_eval") is None:
        raise Fatal(
            Reason.BAD_CONFIGURATION,
            "lm_eval is not installed: use an image made with evaljob[lm-eval] (chart value runner.images.lmEval, "
            "which an image in runner.image replaces), on your machine pip install 'evaljob[runner,lm-eval]'",
        )
    # Its bootstrap forks workers and ends them by SIGTERM, which is handled here: one was seen to hang for ever.
    os.environ["DISABLE_MULTIPROC"] = "1"
    with shell.stopwatch.phase("start"):
        from evaljob_runner.lmeval import harness  # noqa: PLC0415 - seconds, and not in every image
    with shell.stopwatch.phase("load"):
        loaded = harness.load(spec, tasks, found)
        if work.model.openai and not loaded.generates:
            raise work.unsupported(
                "lm-eval weighs answers with the model's tokenizer, a server's model has none"
            )
        folder = checkpoint.load() if checkpoint else None
        here = machine(work, folder)
    with _api_key(work), shell.stopwatch.phase("infer"):
        results = harness.evaluate(
            loaded,
            arguments.engine(work, folder, here.arguments),
            spec,
            limit=work.planned.dataset.limit,
            seed=work.run.seed,
            chat=work.chat,
            generation=arguments.generation(work.model.generation),
        )
    with shell.stopwatch.phase("score"):
        by: reading.RenderedBy = "Server" if work.model.openai and work.chat else "Runner"
        return here.device, _read(results, spec, loaded, Names(identity, work.attempt, by))


def _read(results: dict[str, Any], spec: LmEval, loaded: "Loaded", names: Names) -> Read:
    read = reading.read(
        results,
        primary=spec.metric,
        is_mean=loaded.is_mean,
        groups={name: loaded.members(name) for name in loaded.groups},
        weighed=loaded.weighed,
        names=names,
    )
    for key in read.left_out:
        _log.warning(
            "%s is no mean over samples, so it is left out: lm-eval's own value cannot be checked", key
        )
    return read


@contextlib.contextmanager
def _api_key(work: Assignment) -> Iterator[None]:
    """lm-eval reads a server's key from the environment."""
    file = work.places.api_key_file
    if file is None:
        yield
        return
    os.environ["OPENAI_API_KEY"] = read_key(file)
    try:
        yield
    finally:
        del os.environ["OPENAI_API_KEY"]


def _digest(work: Assignment, spec: LmEval, checkpoint: Checkpoint | None, data: str) -> str:
    """Of everything that changes a token or a score."""
    dataset = work.planned.dataset
    parts = {
        "lmEval": spec.model_dump(mode="json", by_alias=True, exclude={"metric", "include_path"}),
        "version": metadata.version("lm-eval") if util.find_spec("lm_eval") else "",
        "weights": checkpoint.digest if checkpoint else "",
        "engine": digest.engine(work),
        "data": data,
        "limit": dataset.limit,
        "promptFormat": work.model.prompt_format,
        "templateArgs": work.template_args if work.chat else None,
        "generation": work.model.generation.model_dump(mode="json"),
        "seed": work.run.seed,
        "date": work.run.date.isoformat() if checkpoint and checkpoint.dated and work.chat else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _kept(work: Assignment, identity: str) -> Path:
    return work.places.out / work.folder / f"lm-eval-{identity[:16]}.json"


def _keep(kept: Path, result: PartitionResult) -> None:
    """In one step: what is there is whole."""
    part = kept.with_suffix(f".{result.attempt}")
    try:
        part.write_text(result.to_json())
        part.replace(kept)
    except OSError as error:
        raise Retry(Reason.DEPENDENCY_UNAVAILABLE, f"the result cannot be kept: {error.strerror}") from error


def _finished(kept: Path, work: Assignment, spec: LmEval) -> PartitionResult:
    try:
        found = PartitionResult.model_validate_json(kept.read_bytes())
    except (OSError, ValidationError) as error:
        raise Fatal(
            Reason.INVALID_RESULT, f"{kept.name} in the output is no result; delete it: {error}"
        ) from error
    outcomes = found.outcomes.model_copy(update={"from_log": found.outcomes.completed})
    metrics = reading.with_primary(found.metrics, spec.metric)
    return found.model_copy(update={"attempt": work.attempt, "outcomes": outcomes, "metrics": metrics})


def _result(
    work: Assignment, read: Read, checkpoint: Checkpoint | None, device: str, shell: Shell, identity: str
) -> PartitionResult:
    expected = sum(subset.expected for subset in read.subsets)
    prompts = hashlib.sha256(
        "".join(r.prompt_digest for line, _ in read.lines for r in line.requests).encode()
    )
    return PartitionResult(
        model=work.partition.model,
        dataset=work.partition.dataset,
        shard=0,
        shards=1,
        attempt=work.attempt,
        inference_digest=identity,
        prompt_digest=prompts.hexdigest(),
        outcomes=Outcomes(expected=expected, completed=expected, answered=expected),
        limited=any(subset.size > subset.expected for subset in read.subsets),
        metrics=read.metrics,
        subsets=read.subsets,
        groups=read.groups,
        seconds=report.rounded(shell.stopwatch.seconds),
        device=device,
        provenance={"weights": report.weights(checkpoint), **report.versions()},
        samples=work.samples,
    )
