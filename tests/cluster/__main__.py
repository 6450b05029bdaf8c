"""Command line: `python3 -m tests.cluster VERB ...` from the root of the repository."""

import argparse
import json
import os
import sys
from pathlib import Path

from tests.cluster import docker, images, kind, load, nodes
from tests.cluster.machine import prepare
from tests.cluster.paths import Cache
from tests.cluster.shell import ClusterError, Timeline, say


def main(argv: list[str]) -> int:
    """Run one verb; the exit code."""
    args = _parser().parse_args(argv)
    verbs = {"up": _up, "down": _down, "load": _load, "images": _images, "tools": _tools}
    try:
        verbs[args.verb](args, Cache.from_env(os.environ))
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    return 0


def _up(args: argparse.Namespace, cache: Cache) -> None:
    timeline = Timeline()
    machine = prepare(cache, timeline)
    spec = kind.ClusterSpec(args.name, args.workers, args.gpus, args.data)
    cluster = kind.up(machine, spec, timeline)
    timeline.seconds["total"] = timeline.total
    say(f"cluster {cluster.name} {cluster.origin}; KUBECONFIG={cluster.kubeconfig}")
    _print({**vars(cluster), "seconds": timeline.seconds})


def _down(args: argparse.Namespace, cache: Cache) -> None:
    client = docker.find()
    names = {path.parent.name for path in cache.kubeconfig("*").parent.parent.glob("*/kubeconfig")}
    for name in sorted(names) if args.all else [args.name]:
        kind.down(client, cache, name)
        say(f"cluster {name} is gone")
    if args.all and docker.stop(cache):
        say("Docker Engine stopped")


def _load(args: argparse.Namespace, cache: Cache) -> None:
    timeline = Timeline()
    machine = prepare(cache, timeline)
    with timeline.stage("load"):
        copied = load.load(machine, args.name, args.images, args.nodes)
    _print({"loaded": copied, "seconds": timeline.seconds})


def _images(args: argparse.Namespace, cache: Cache) -> None:
    timeline = Timeline()
    _print(images.build(prepare(cache, timeline), args.names or list(images.RECIPES), timeline))


def _tools(_: argparse.Namespace, cache: Cache) -> None:
    prepare(cache, Timeline())
    print(cache.tools)


def _print(result: object) -> None:
    print(json.dumps(result, default=str))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m tests.cluster", description="A real cluster with kind.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="make or reuse a cluster; prints one line of JSON")
    up.add_argument("name")
    up.add_argument(
        "--workers", type=int, default=0, help="nodes beside the control plane (0: it runs the pods)"
    )
    up.add_argument("--gpus", type=int, default=0, help="simulated GPUs on each node that runs pods")
    up.add_argument("--data", type=Path, help=f"folder that every node mounts at {nodes.MOUNT}")
    down = verbs.add_parser("down", help="leave nothing of a cluster")
    which = down.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?")
    which.add_argument(
        "--all", action="store_true", help="all clusters, and the engine if it was started here"
    )
    copy = verbs.add_parser("load", help="copy images to nodes that lack them")
    copy.add_argument("name")
    copy.add_argument("images", nargs="+", metavar="IMAGE")
    copy.add_argument(
        "--nodes", type=lambda text: text.split(","), default=[], help="only these, comma-separated"
    )
    build = verbs.add_parser("images", help="build our images; prints {name: reference}")
    build.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(images.RECIPES)}; default: all"
    )
    verbs.add_parser("tools", help="print the folder with kubectl, helm and kind")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
