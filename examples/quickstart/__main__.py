"""From a fresh machine to a table of real scores, on a cluster or without one.

Needs only Python's standard library, so that it runs before any environment exists.
"""

import argparse
import json
import os
import sys

from examples.quickstart import cluster, local
from tests.cluster.paths import Cache
from tests.cluster.shell import ClusterError, Timeline, say


def main(argv: list[str]) -> int:
    """Run the quickstart; 0 when every partition succeeded."""
    parser = argparse.ArgumentParser(prog="make quickstart", description=__doc__)
    parser.add_argument("--on", choices=("cluster", "local"), default="cluster")
    parser.add_argument("--context", help="an existing kind cluster whose nodes mount the data folder")
    args = parser.parse_args(argv)
    if args.context and args.on == "local":
        parser.error("--context: nothing runs on a cluster with --on local")
    cache, timeline = Cache.from_env(os.environ), Timeline()
    try:
        local_run = args.on == "local"
        code = local.run(cache, timeline) if local_run else cluster.run(cache, timeline, args.context)
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    report(timeline)
    return code


def report(timeline: Timeline) -> None:
    """Where the time went: a table for people, one line of JSON for programs."""
    total = timeline.total
    for stage, seconds in timeline.seconds.items():
        say(f"{seconds:8.1f} s  {stage}")
    say(f"{total:8.1f} s  in all")
    print(json.dumps({"benchmark": "quickstart", "seconds": timeline.seconds, "total": total}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
