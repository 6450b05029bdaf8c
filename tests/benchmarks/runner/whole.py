"""Whole processes: from the start of Python to the result on disk, by the runner and by lm-eval's command line."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from evaljob.framing import decode
from evaljob.result import PartitionResult
from tests.parity import ours
from tests.parity.cases import Case
from tests.runner_plans import planned, write_plan


class Took(NamedTuple):
    """What a process took, with its children."""

    cpu: float
    wall: float


def run(command: Sequence[str], environment: Mapping[str, str]) -> Took:
    """Run to the end."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-4000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(round(cpu, 2), round(time.perf_counter() - begin, 2))


def runner(case: Case, backend: str, data: Path, folder: Path) -> Took:
    """`python -m evaljob_runner`."""
    dataset = planned(case.ours(), name=case.data, source=f"pvc://data/{case.data}", limit=case.limit)
    plan = write_plan(folder / "plan", ours.model(case, backend), dataset)
    mounts = [f"--mount=models={case.model.folder.parent}", f"--mount=data={data}"]
    where = ["--out", str(folder / "out"), "--result", str(folder / "result")]
    took = run([sys.executable, "-m", "evaljob_runner", *plan, *mounts, *where], {})
    report = decode((folder / "result").read_text())
    if not isinstance(report, PartitionResult):
        raise SystemExit(str(report))
    return took


def lm_eval(case: Case, backend: str, data: Path, folder: Path, site: Path) -> Took:
    """`python -m lm_eval`, with a log of its samples, as the runner writes one."""
    tasks = folder / "tasks"
    tasks.mkdir(parents=True)
    (tasks / "task.yaml").write_text(yaml.safe_dump(case.theirs(data)))
    path, window = case.model.folder, case.model.window
    engine = f"enforce_eager=True,kv_cache_memory_bytes={1024**3},max_num_seqs=256"
    model, args, batch = {
        "transformers": ("hf", f"max_length={window}", "16"),
        "vllm": ("vllm", f"max_model_len={window},{engine}", "auto"),
    }[backend]
    args = f"pretrained={path},dtype=float32,{args}"
    command = [sys.executable, "-m", "lm_eval", "--model", model, "--model_args", args, "--tasks", case.data]
    more = [
        "--batch_size",
        batch,
        "--include_path",
        str(tasks),
        "--output_path",
        str(folder / "out"),
        "--log_samples",
    ]
    device = ["--device", "cpu"] if backend == "transformers" else []
    return run([*command, *more, *device], {"PYTHONPATH": f"{site}:{os.environ.get('PYTHONPATH', '')}"})
