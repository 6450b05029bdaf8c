"""A stand-in for the runner: standard library only, so that it starts at once. Its dataset's name says what it does.

Like the runner it writes a framed report, prints progress lines, keeps samples under --out, and closes on SIGTERM.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import FrameType
from typing import Any

SAMPLES = 4


def frame(kind: str, body: dict[str, Any]) -> str:
    """The result codec's framing, written down a second time."""
    text = json.dumps(body)
    return f"evaljob/1 {kind} {len(text)} {zlib.crc32(text.encode()):08x} {text}"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("plan", "model", "dataset", "shard", "out", "result", "api-key-file"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--render", type=int)
    parser.add_argument("--score-only", action="store_true")
    for name in ("mount", "config-map"):
        parser.add_argument(f"--{name}", action="append")
    return parser.parse_args()


class Stand:
    """One attempt."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        plan = Path(args.plan)
        self.attempt = (plan / "attempt").read_text()
        uid = json.loads((plan / "run.json").read_text())["uid"]
        self.shard, self.shards = map(int, args.shard.split("/"))
        self.folder = Path(args.out) / uid / f"{args.model}-{args.dataset}-{self.shard}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def leave(self, name: str, text: str = "") -> None:
        """A trace for the test to find."""
        (self.folder / name).write_text(text)

    def count(self, name: str) -> int:
        return len(list(self.folder.glob(f"{name}-*")))

    def sample(self) -> None:
        """Answer one more sample, for good."""
        self.leave(f"sample-{self.count('sample')}")

    def answer(self, pause: float = 0.0) -> int:
        """Answer the samples that no earlier attempt answered; how many it had answered."""
        known = self.count("sample")
        if self.args.score_only and known < SAMPLES:
            self.fail("SamplesLeft", f"{SAMPLES - known} answers are not in the sample log", 78)
        for done in range(known, SAMPLES):
            time.sleep(pause)
            self.sample()
            print(
                json.dumps(
                    {"type": "progress", "done": done + 1, "total": SAMPLES, "rate": 2.0, "secondsLeft": 1}
                )
            )
            sys.stdout.flush()
        return known

    def report(self, text: str) -> None:
        Path(self.args.result).write_text(text)

    def succeed(self, known: int, **other: object) -> None:
        body: dict[str, Any] = {
            "model": self.args.model,
            "dataset": self.args.dataset,
            "shard": self.shard,
            "shards": self.shards,
            "attempt": self.attempt,
            "inferenceDigest": "i",
            "promptDigest": "p",
            "outcomes": {"expected": SAMPLES, "completed": SAMPLES, "answered": SAMPLES, "fromLog": known},
            "metrics": [{"key": "acc", "primary": True}],
            "subsets": [{"name": "", "size": SAMPLES, "expected": SAMPLES, "stats": [[SAMPLES, 3, 3, None]]}],
            "device": "cpu",
        }
        self.report(frame("j", body | other))

    def fail(self, reason: str, message: str, code: int) -> None:
        self.report(frame("f", {"reason": reason, "message": message}))
        sys.exit(code)

    def wait(self) -> None:
        """A child of its own, and no end."""
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        self.leave(f"pids-{self.attempt}", f"{os.getpid()} {child.pid}")
        time.sleep(600)

    def on_term(self, _number: int, _frame: FrameType | None) -> None:
        if self.args.dataset == "tidy":
            time.sleep(1)
        self.leave("terminated")
        self.fail("Interrupted", "SIGTERM", 75)


PROMPT = {
    "id": "africa/0",
    "renderedBy": "Runner",
    "text": "What is the capital of\nMali?\x1b[2J",
    "tokenIds": [1, 22, 333],
    "promptDigest": "0123456789abcdef",
    "target": "Bamako",
    "fewShotIds": ["africa/7"],
    "choices": [{"text": " Lima", "contextTokenIds": [1], "tokenIds": [4, 5]}],
    "generation": {
        "temperature": {"value": 0, "origin": "default"},
        "topK": {"value": None, "origin": "default"},
        "maxTokens": {"value": 24, "origin": "task"},
        "stop": {"value": ["\n"], "origin": {"\n": "task"}},
    },
}


def render(stand: Stand, count: int) -> None:
    """Print prompts, or refuse as the runner does before its model loads."""
    if stand.args.dataset == "never":
        stand.fail("BadData", "line 3", 78)
    for _ in range(count):
        print(json.dumps(PROMPT))


def behave(stand: Stand, kind: str, number: str) -> None:
    """Act as the dataset's name says."""
    match kind:
        case "flaky" if stand.count("start") <= int(number):
            stand.fail("DependencyUnavailable", "429", 75)
        case "good" | "flaky":
            print("not a progress line")
            stand.succeed(stand.answer())
        case "escapes":
            leaver = [sys.executable, "-S", "-c", "import time; time.sleep(20)"]
            stand.leave("pids-", str(subprocess.Popen(leaver, start_new_session=True).pid))
            stand.succeed(stand.answer())
        case "paced":
            stand.succeed(stand.answer(pause=0.2))
        case "disagree":
            stand.succeed(stand.answer(), inferenceDigest=str(stand.shard))
        case "foreign":
            stand.succeed(0, attempt="another")
        case "never":
            stand.fail("BadData", "line 3", 78)
        case "slow" | "tidy":
            stand.sample()
            stand.wait()
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            stand.wait()
        case _:
            vanish(kind)


def vanish(kind: str) -> None:
    """End without a report."""
    match kind:
        case "crash":
            print("Traceback: it broke", file=sys.stderr)
            sys.exit(3)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "silent":
            sys.exit(0)


def main() -> None:
    stand = Stand(parsed())
    if stand.args.render:
        render(stand, stand.args.render)
        return
    stand.leave(f"start-{stand.attempt}", json.dumps({"pid": os.getpid(), "env": dict(os.environ)}))
    signal.signal(signal.SIGTERM, stand.on_term)
    kind, _, number = stand.args.dataset.partition("-")
    behave(stand, kind, number)


if __name__ == "__main__":
    main()
