"""`python -m tests.benchmarks.control N`: see `tests.benchmarks.control.bench`. The last line is JSON."""

import argparse
import asyncio
import json

from tests.benchmarks.control.bench import run

parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.control")
parser.add_argument("partitions", type=int, nargs="?", default=1000)
parser.add_argument("--foreign", type=int, default=0, help="Jobs of others in the same namespace")
parser.add_argument("--minutes", type=float, default=60, help="then the report has what there is until then")
parser.add_argument("--ours", action="store_true", help="without the raw loop and the plain operator")
args = parser.parse_args()
print(json.dumps(asyncio.run(run(args.partitions, args.foreign, args.minutes, compare=not args.ours))))
