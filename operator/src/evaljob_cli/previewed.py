"""The samples that a runner showed in its log, for people."""

from collections.abc import Iterable, Iterator

from pydantic import ValidationError

from evaljob.preview import SamplePreview
from evaljob_cli.display import block, printable


def samples(lines: Iterable[str]) -> Iterator[SamplePreview]:
    """Those among the lines of a log; everything else in it is skipped."""
    for line in lines:
        # `kubectl logs --prefix` and `--timestamps` put something before it.
        _, brace, rest = line.partition('{"type":"sample"')
        if brace:
            try:
                yield SamplePreview.model_validate_json(brace + rest)
            except ValidationError:
                continue


def text(sample: SamplePreview) -> Iterator[str]:
    """One sample as lines of text."""
    scores = "".join(f", {key} {value:g}" for key, value in sample.scores.items())
    yield printable(f"--- {sample.id}: {sample.outcome}{scores}")
    if sample.prompt is not None:
        yield block(sample.prompt)
    if sample.output is not None:
        yield f">>> {block(sample.output)}"
    if sample.error is not None:
        yield printable(f"error: {sample.error}")
    yield printable(f"target: {sample.target}")
