"""The runner's command line: arguments, signals, exit codes.

0 complete; 78 never again; 75 try again, and the reason says why; anything else: try again.
"""

import argparse
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from evaljob.names import Reason
from evaljob_runner.assignment import Assignment, Places, read_assignment, read_attempt
from evaljob_runner.ending import Ending
from evaljob_runner.errors import Fatal, Stop
from evaljob_runner.evaluate import Shell, evaluate
from evaljob_runner.gpu import gpu_fault
from evaljob_runner.lmeval.partition import evaluate as by_lm_eval
from evaljob_runner.opening import open_backend, open_tokenizer
from evaljob_runner.progress import Progress, Stopwatch
from evaljob_runner.render import render

TERMINATION_LOG = Path("/dev/termination-log")
"""Where the kubelet reads a container's last words."""
_log = logging.getLogger("evaljob_runner")
_ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


def _pair(text: str) -> tuple[str, Path]:
    name, sign, path = text.partition("=")
    if not (name and sign and path):
        raise argparse.ArgumentTypeError(f"NAME=PATH expected, got {text!r}")
    return name, Path(path)


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"K/N with K < N expected, got {text!r}")
    return int(match[1]), int(match[2])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """A wrong command line stays wrong: 78, not argparse's 2."""
        self.print_usage(sys.stderr)
        raise Fatal(
            Reason.BAD_CONFIGURATION, f"arguments: {message}; operator and runner must be of one release"
        )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="evaljob_runner", description="Evaluate one partition of an EvalJob.")
    parser.add_argument("--plan", type=Path, required=True, help="folder with the plan's files and `attempt`")
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--shard", type=_shard, default=(0, 1), metavar="K/N")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sample logs")
    parser.add_argument("--mount", type=_pair, action="append", default=[], metavar="CLAIM=DIR")
    parser.add_argument("--config-map", type=_pair, action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--api-key-file", type=Path)
    parser.add_argument("--judge-key-file", type=_pair, action="append", default=[], metavar="JUDGE=FILE")
    parser.add_argument("--result", type=Path, help=f"default: {TERMINATION_LOG}; none with --render")
    parser.add_argument(
        "--score-only",
        action="store_true",
        help="make the scores again from the sample log, without the model",
    )
    parser.add_argument(
        "--render", type=int, metavar="N", help="print the first N prompts and evaluate nothing"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one partition and return the exit code."""
    os.environ |= {k: v for k, v in _ENVIRONMENT.items() if k not in os.environ}
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    ending = Ending(TERMINATION_LOG if TERMINATION_LOG.exists() else Path(os.devnull))
    try:
        args = _parser().parse_args(arguments)
        ending = Ending(args.result or (TERMINATION_LOG if args.render is None else Path(os.devnull)))
        return _run(args, ending)
    except Stop as end:
        _log.error("%s: %s", end.reason, end)
        return ending.stop(gpu_fault(end) or end)
    except Exception as error:  # noqa: BLE001 - the outermost one: a process never ends unexplained
        _log.exception("the runner failed")
        fault = gpu_fault(error)
        return ending.stop(fault) if fault else ending.crash(error)


def _run(args: argparse.Namespace, ending: Ending) -> int:
    if args.render is None:
        ending.handle_signals()
    attempt = read_attempt(args.plan)
    ending.know(attempt=attempt, durable=False)
    work = read_assignment(
        args.plan, model=args.model, dataset=args.dataset, shard=args.shard, places=_places(args)
    )
    if not work.uses_hub:
        # Models are local folders: no library may ask a hub about them.
        os.environ["HF_HUB_OFFLINE"] = "1"
    if args.render is not None:
        if work.planned.task is None:
            raise Fatal(
                Reason.UNSUPPORTED_REQUEST, "lm-eval makes its prompts while it runs: see the sample log"
            )
        render(work, open_tokenizer(work), args.render, sys.stdout)
        return 0
    return _evaluate(work, ending, score_only=args.score_only)


def _evaluate(work: Assignment, ending: Ending, *, score_only: bool) -> int:
    age = _process_seconds()
    ending.know(attempt=work.attempt, durable=work.run.output is not None)
    ending.set_deadline(work.run.partition_deadline_seconds - age)
    stopwatch = Stopwatch()
    stopwatch.add("start", age)
    shell = Shell(
        open_backend=partial(open_backend, stopwatch=stopwatch, leave=ending.leave),
        progress=Progress(sys.stdout),
        stopwatch=stopwatch,
        watch=ending.watch,
        score_only=score_only,
    )
    spec = work.planned.dataset.lm_eval
    return ending.complete(by_lm_eval(work, spec, shell) if spec else evaluate(work, shell))


def _places(args: argparse.Namespace) -> Places:
    return Places(
        claims=dict(args.mount),
        config_maps=dict(args.config_map),
        out=args.out,
        api_key_file=args.api_key_file,
        judge_key_files=dict(args.judge_key_file),
    )


def _process_seconds() -> float:
    """Seconds since this process began (Linux): imports are the larger part of a small partition."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    exit_code = main()
    logging.shutdown()
    sys.stdout.flush()
    # Everything is written and closed; taking torch down in order costs half a second per partition.
    os._exit(exit_code)
