"""A partition killed again and again ends as if nothing had happened: `python -m tests.benchmarks.kill`.

A real runner with the tiny model is killed with SIGKILL at random moments: while it starts, and after a random
number of bytes of its sample log. The next attempt goes on, until there were so many kills; the last attempt is left
alone. Twice: one sample at a time, where the result must be that of an undisturbed run byte by byte, and in batches,
where a sum in another order may change a text and only the samples themselves must be the same.

Every attempt is a process of its own, forked from one that has imported torch: 65 imports would take five minutes,
and a kill while they last finds nothing to tear.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from evaljob.plan import PlannedDataset
from evaljob.result import PartitionResult, decode
from evaljob.spec import Model
from evaljob_runner import __main__ as runner
from tests.cluster.shell import say
from tests.runner_plans import TINY, tiny_dataset, tiny_model, write_plan
from tests.tiny import problems

BATCH = 16
START_SHARE = 0.2
"""Of the kills, this share comes while the runner starts and has logged nothing."""
START_SECONDS = 1.0
BETWEEN_SECONDS = 0.01
"""About the time of one sample."""
BYTES_PER_SAMPLE = 900
FINISH_SECONDS = 1200.0
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["evaljob_runner.__main__", "evaljob_runner.backends.transformers"])


@dataclass(frozen=True)
class Tally:
    """What became of a partition that was killed.

    Attributes:
        kills: Attempts that ended by SIGKILL.
        torn: Lines that a kill left in pieces.
        lost: Samples without an answer in the end.
        doubled: Samples that the result counts more than once.
        recomputed: Answers that were computed although a whole line held them already.
        equal: Whether the result is an undisturbed run's, byte by byte.
    """

    kills: int
    torn: int
    lost: int
    doubled: int
    recomputed: int
    equal: bool

    @property
    def clean(self) -> bool:
        """Whether nothing was lost or done twice."""
        return not (self.lost or self.doubled or self.recomputed)


@dataclass(frozen=True)
class Partition:
    """Sums in words for the tiny model, in float32; the files of all attempts are in `folder`."""

    folder: Path
    samples: int
    batch: int

    @property
    def model(self) -> Model:
        """The tiny model."""
        return tiny_model(transformers={"batchSize": self.batch})

    def prepare(self, seed: int) -> PlannedDataset:
        """Write the questions; all different."""
        rng = random.Random(seed)  # noqa: S311 - seeded on purpose
        questions: dict[str, dict[str, Any]] = {}
        while len(questions) < self.samples:
            problem = problems.word_problem(rng)
            questions.setdefault(problem.question, asdict(problem))
        self.folder.mkdir(parents=True)
        text = "".join(json.dumps(row) + "\n" for row in questions.values())
        (self.folder / "sums.jsonl").write_text(text)
        return tiny_dataset("gsm", source="pvc://sums/sums.jsonl")

    def start(self, dataset: PlannedDataset, attempt: str) -> ForkServerProcess:
        """Start an attempt."""
        arguments = write_plan(self.folder / "plan", self.model, dataset, attempt=attempt)
        where = ["--out", str(self.folder / "out"), "--result", str(self.folder / "result")]
        mounts = ["--mount", f"models={TINY}", "--mount", f"sums={self.folder}"]
        process = _SERVER.Process(target=_attempt, args=([*arguments, *where, *mounts], self.folder / "said"))
        process.start()
        return process

    def finish(self, dataset: PlannedDataset, attempt: str) -> PartitionResult:
        """An attempt that is left alone; its result."""
        process = self.start(dataset, attempt)
        process.join(FINISH_SECONDS)
        report = decode((self.folder / "result").read_text())
        if process.exitcode != 0 or not isinstance(report, PartitionResult):
            raise SystemExit(f"exit code {process.exitcode}: {report}\n{(self.folder / 'said').read_text()}")
        return report

    def log(self, attempt: str) -> Path:
        """The sample log of an attempt."""
        return self.folder / "out" / "tiny" / "gsm" / f"{attempt}.jsonl"

    def lines(self) -> Iterator[dict[str, Any] | None]:
        """All lines of all logs; None for a torn one. Nothing here is the runner's code."""
        for path in self.log("any").parent.glob("*.jsonl"):
            for text in path.read_bytes().splitlines():
                try:
                    yield json.loads(text)
                except ValueError:
                    yield None


def _attempt(arguments: list[str], said: Path) -> None:
    """In the process: be the runner, and keep what it says for the one who looks for a fault."""
    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["OMP_NUM_THREADS"] = "1"
    os._exit(runner.main(arguments))


def killed(partition: Partition, dataset: PlannedDataset, kills: int, rng: random.Random) -> PartitionResult:
    """Kill attempts until there were so many kills, then let one end; its result."""
    done = attempt = 0
    while done < kills:
        attempt += 1
        process = partition.start(dataset, f"a-{attempt}")
        wait_for_the_moment(process, partition, f"a-{attempt}", kills, rng)
        process.kill()
        process.join()
        done += process.exitcode == -signal.SIGKILL
        if attempt % 10 == 0:
            say(f"    attempt {attempt}: {done} kills, {sum(1 for _ in partition.lines())} lines")
    return partition.finish(dataset, f"a-{attempt + 1}")


def wait_for_the_moment(
    process: ForkServerProcess, partition: Partition, attempt: str, kills: int, rng: random.Random
) -> None:
    """Wait for a random moment of a process' life, by the clock while it starts, then by what it has logged."""
    if rng.random() < START_SHARE:
        time.sleep(rng.uniform(0, START_SECONDS))
        return
    wanted = rng.uniform(0, 2 * BYTES_PER_SAMPLE * partition.samples / kills)
    log = partition.log(attempt)
    while process.is_alive() and not (log.exists() and log.stat().st_size > wanted):
        time.sleep(0.001)
    time.sleep(rng.uniform(0, BETWEEN_SECONDS))


def tally(partition: Partition, kills: int, found: PartitionResult, undisturbed: PartitionResult) -> Tally:
    """Compare what there is in the end with what an undisturbed run gives."""
    read = list(partition.lines())
    answers = Counter((x["id"], x["repeat"]) for x in read if x and x["kind"] == "inference")
    return Tally(
        kills=kills,
        torn=sum(x is None for x in read),
        lost=partition.samples - min(len(answers), found.outcomes.completed),
        doubled=max(0, sum(s.stats[0].n for s in found.subsets) - partition.samples),
        recomputed=answers.total() - len(answers),
        equal=canonical(found) == canonical(undisturbed),
    )


def canonical(found: PartitionResult) -> bytes:
    """A result without what tells of its attempt: name, times, device, and the tokens and samples it did itself."""
    outcomes = found.outcomes.model_copy(update={"from_log": 0})
    kept = found.model_copy(update={"outcomes": outcomes})
    return kept.model_dump_json(exclude={"attempt", "seconds", "device", "tokens"}).encode()


def run(folder: Path, *, samples: int, batch: int, kills: int, seed: int) -> Tally:
    """Kill a partition, run another one undisturbed, compare."""
    victim, other = (Partition(folder / name, samples, batch) for name in ("killed", "undisturbed"))
    found = killed(victim, victim.prepare(seed), kills, random.Random(seed))  # noqa: S311 - seeded on purpose
    return tally(victim, kills, found, other.finish(other.prepare(seed), "a-1"))


def main() -> int:
    """Print the report; its last line is JSON. 1 when something was lost or done twice."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=50, help="of the run with one sample at a time")
    parser.add_argument("--batched-kills", type=int, default=15)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        say(f"    {args.kills} kills, one sample at a time ...")
        size = {"samples": args.samples, "seed": args.seed}
        single = run(Path(folder) / "single", batch=1, kills=args.kills, **size)
        say(f"    {single}\n    {args.batched_kills} kills, {BATCH} samples at a time ...")
        batched = run(Path(folder) / "batched", batch=BATCH, kills=args.batched_kills, **size)
        say(f"    {batched}")
    both = [asdict(single), asdict(batched)]
    counts = {name: sum(t[name] for t in both) for name in ("kills", "torn", "lost", "doubled", "recomputed")}
    times = {"seconds": round(time.monotonic() - began)}
    print(json.dumps({"benchmark": "kill-test", **size, **counts, "equal": single.equal, **times}))
    return 0 if single.clean and single.equal and batched.clean else 1


if __name__ == "__main__":
    sys.exit(main())
