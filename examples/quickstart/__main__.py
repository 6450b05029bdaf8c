"""From a fresh machine to a table of real scores, on a cluster or without one.

Needs only Python's standard library, so that it runs before any environment exists.
"""

import argparse
import json
import os
import sys

from examples.quickstart import cluster, foreign, local
from tests.cluster.paths import Cache
from tests.cluster.shell import ClusterError, Timeline, say


def main(argv: list[str]) -> int:
    """Run the quickstart; 0 when every partition succeeded."""
    parser = argparse.ArgumentParser(prog="make quickstart", description=__doc__)
    parser.add_argument("--on", choices=("cluster", "local"), default="cluster")
    parser.add_argument(
        "--context", help="an existing cluster; kind's only, unless images and data are given"
    )
    parser.add_argument("--images", default="", help="operator=REFERENCE,runner=REFERENCE: nothing is built")
    parser.add_argument("--data-claim", default="", help="a claim in the namespace evals that holds the data")
    args = parser.parse_args(argv)
    if args.context and args.on == "local":
        parser.error("--context: nothing runs on a cluster with --on local")
    if (args.images or args.data_claim) and not args.context:
        parser.error("--images, --data-claim: for an existing cluster, name it with --context")
    cache, timeline = Cache.from_env(os.environ), Timeline()
    try:
        code = _run(args, cache, timeline)
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    report(timeline)
    return code


def _run(args: argparse.Namespace, cache: Cache, timeline: Timeline) -> int:
    if args.on == "local":
        return local.run(cache, timeline)
    if args.images or args.data_claim:
        return foreign.run(cache, timeline, foreign.given(args.context, args.images, args.data_claim))
    return cluster.run(cache, timeline, args.context)


def report(timeline: Timeline) -> None:
    """Where the time went: a table for people, one line of JSON for programs."""
    total = timeline.total
    for stage, seconds in timeline.seconds.items():
        say(f"{seconds:8.1f} s  {stage}")
    say(f"{total:8.1f} s  in all")
    print(json.dumps({"benchmark": "quickstart", "seconds": timeline.seconds, "total": total}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
