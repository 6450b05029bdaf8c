"""`python -m tests.faults`: every fault at every request, every fault of a watch, every scenario.

The last line is JSON: `cases`, `converged`, `violations`. Six minutes, as the longest scenario takes; --thin takes
one, on two idle cores.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence

from tests.faults import everything, scenarios


def main(arguments: Sequence[str]) -> int:
    """Run it; the exit code says whether all is well."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--thin", action="store_true", help="every request once, with the faults in turn")
    parser.add_argument("--jobs", type=int, default=everything.AT_ONCE, help="operators that compute at once")
    parser.add_argument("--only", metavar="NAME", nargs="+", help="only these scenarios, and no sweep")
    args = parser.parse_args(arguments)
    wanted = [
        s for name, s in scenarios.names(long=not args.thin).items() if not args.only or name in args.only
    ]
    started = time.monotonic()
    results = asyncio.run(everything.run(args.jobs, wanted, cases=not args.only, thin=args.thin))
    for line in results.bad:
        print(line)
    print(results.line(time.monotonic() - started))
    return 1 if results.bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
