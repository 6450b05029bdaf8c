"""A partition killed again and again ends as if nothing had happened: `python -m tests.benchmarks.kill`.

A real runner with the tiny model is killed with SIGKILL at random moments: while it starts, and after a random
number of bytes of its sample log. The next attempt goes on, until there were so many kills; the last attempt is left
alone. Four times:

- one sample at a time, where the result must be that of an undisturbed run byte by byte;
- in batches, where a sum in another order may change a text and only the samples themselves must be the same;
- with lines of 2 MiB, killed while one is written, so that lines are torn;
- two attempts at once, of which the second is killed: both write, and each sample counts once.

Every attempt is a process of its own, forked from one that has imported torch, as 80 imports would take six minutes;
a few are started from nothing and killed while they import.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from evaljob.framing import decode
from evaljob.plan import PlannedDataset
from evaljob.result import PartitionResult
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
IMPORT_KILLS = 4
"""Of these, each takes the seconds of an import."""
IMPORT_SECONDS = 4.0
TORN_SAMPLES, TORN_BYTES = 30, 2 * 2**20
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
    padding: int = 0
    """Bytes that are added to each target, and so to each line of the log."""

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
            row = asdict(problem)
            questions.setdefault(problem.question, row | {"answer": f"{row['answer']}{' ' * self.padding}"})
        self.folder.mkdir(parents=True)
        text = "".join(json.dumps(row) + "\n" for row in questions.values())
        (self.folder / "sums.jsonl").write_text(text)
        return tiny_dataset("gsm", source="pvc://sums/sums.jsonl")

    def _arguments(self, dataset: PlannedDataset, attempt: str) -> list[str]:
        arguments = write_plan(self.folder / f"plan-{attempt}", self.model, dataset, attempt=attempt)
        where = ["--out", str(self.folder / "out"), "--result", str(self.folder / f"result-{attempt}")]
        mounts = ["--mount", f"models={TINY}", "--mount", f"sums={self.folder}"]
        return [*arguments, *where, *mounts]

    def start(self, dataset: PlannedDataset, attempt: str) -> ForkServerProcess:
        """Start an attempt."""
        arguments = self._arguments(dataset, attempt)
        process = _SERVER.Process(target=_attempt, args=(arguments, self.folder / f"said-{attempt}"))
        process.start()
        return process

    def kill_importing(self, dataset: PlannedDataset, attempt: str, seconds: float) -> bool:
        """Start an attempt from nothing and kill it after some seconds; whether it still ran."""
        command = [sys.executable, "-m", "evaljob_runner", *self._arguments(dataset, attempt)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(seconds)
            process.kill()
        return process.returncode == -signal.SIGKILL

    def finish(self, dataset: PlannedDataset, attempt: str) -> PartitionResult:
        """An attempt that is left alone; its result."""
        return self.ended(self.start(dataset, attempt), attempt)

    def ended(self, process: ForkServerProcess, attempt: str) -> PartitionResult:
        """The result of an attempt, when it has ended."""
        process.join(FINISH_SECONDS)
        report = decode((self.folder / f"result-{attempt}").read_text())
        if process.exitcode != 0 or not isinstance(report, PartitionResult):
            said = (self.folder / f"said-{attempt}").read_text()
            raise SystemExit(f"exit code {process.exitcode}: {report}\n{said}")
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


def killed(
    partition: Partition, dataset: PlannedDataset, kills: int, rng: random.Random
) -> tuple[PartitionResult, int]:
    """Kill attempts until there were so many kills or nothing is left to do, then let one end; its result."""
    done, attempt, ended = 0, 0, False
    while done < kills and not ended:
        attempt += 1
        process = partition.start(dataset, f"a-{attempt}")
        wait_for_the_moment(process, partition, f"a-{attempt}", kills, rng)
        process.kill()
        process.join()
        done += process.exitcode == -signal.SIGKILL
        ended = process.exitcode == 0
        if attempt % 10 == 0:
            say(f"    attempt {attempt}: {done} kills, {sum(1 for _ in partition.lines())} lines")
    return partition.finish(dataset, f"a-{attempt + 1}"), done


def wait_for_the_moment(
    process: ForkServerProcess, partition: Partition, attempt: str, kills: int, rng: random.Random
) -> None:
    """Wait for a random moment of a process' life, by the clock while it starts, then by what it has logged."""
    if not partition.padding and rng.random() < START_SHARE:
        time.sleep(rng.uniform(0, START_SECONDS))
        return
    line = BYTES_PER_SAMPLE + partition.padding
    # Half as much of long lines, as each kill waits for the end of one.
    wanted = rng.uniform(0, (1 if partition.padding else 2) * line * partition.samples / kills)
    log = partition.log(attempt)
    while process.is_alive() and not (log.exists() and log.stat().st_size > wanted):
        # A long line is torn only by a kill at the very moment.
        time.sleep(0 if partition.padding else 0.001)
    if not partition.padding:
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


def run(
    folder: Path, *, samples: int, batch: int, kills: int, seed: int, padding: int = 0, imports: int = 0
) -> Tally:
    """Kill a partition, run another one undisturbed, compare."""
    victim, other = (Partition(folder / name, samples, batch, padding) for name in ("killed", "undisturbed"))
    rng = random.Random(seed)  # noqa: S311 - seeded on purpose
    dataset = victim.prepare(seed)
    moments = [rng.uniform(0, IMPORT_SECONDS) for _ in range(imports)]
    hit = sum(victim.kill_importing(dataset, f"i-{i}", seconds) for i, seconds in enumerate(moments))
    found, done = killed(victim, dataset, kills, rng)
    return tally(victim, done + hit, found, other.finish(other.prepare(seed), "a-1"))


def together(folder: Path, *, samples: int, seed: int) -> Tally:
    """Two attempts at once, the second one killed in the middle; a third one must find nothing left to do."""
    both, other = (Partition(folder / name, samples, 1) for name in ("both", "undisturbed"))
    dataset = both.prepare(seed)
    first, second = (both.start(dataset, f"a-{n}") for n in (1, 2))
    log = both.log("a-2")
    while second.is_alive() and not (log.exists() and log.stat().st_size > BYTES_PER_SAMPLE * samples / 2):
        time.sleep(0.001)
    second.kill()
    second.join()
    both.ended(first, "a-1")
    # All is there now: the next attempt asks nothing, and counts no sample twice.
    answers = sum(1 for line in both.lines() if line and line["kind"] == "inference")
    found = tally(both, 1, both.finish(dataset, "a-3"), other.finish(other.prepare(seed), "a-1"))
    return replace(found, recomputed=found.recomputed + samples - answers)


def main() -> int:
    """Print the report; its last line is JSON. 1 when something was lost or done twice."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=50, help="of the run with one sample at a time")
    parser.add_argument("--batched-kills", type=int, default=15)
    parser.add_argument("--torn-kills", type=int, default=12)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        size = {"samples": args.samples, "seed": args.seed}
        one = partial(run, batch=1, seed=args.seed)
        found: dict[str, Tally] = {}
        for name, comparison in {
            "single": partial(one, samples=args.samples, kills=args.kills, imports=IMPORT_KILLS),
            "batched": partial(run, batch=BATCH, kills=args.batched_kills, **size),
            "torn": partial(one, samples=TORN_SAMPLES, kills=args.torn_kills, padding=TORN_BYTES),
            "together": partial(together, samples=args.samples // 4, seed=args.seed),
        }.items():
            found[name] = comparison(Path(folder) / name)
            say(f"    {name}: {found[name]}")
    all_of_them = [asdict(t) for t in found.values()]
    names = ("kills", "torn", "lost", "doubled", "recomputed")
    counts = {name: sum(t[name] for t in all_of_them) for name in names}
    equal = all(t.equal for name, t in found.items() if name != "batched")
    times = {"seconds": round(time.monotonic() - began)}
    print(json.dumps({"benchmark": "kill-test", **size, **counts, "equal": equal, **times}))
    return 0 if equal and all(t.clean for t in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
