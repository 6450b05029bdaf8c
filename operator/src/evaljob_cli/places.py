"""Where things are on this machine: the cluster's mount points, translated to local folders."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evaljob import jobs, mounts
from evaljob.fields import SecretKeyRef
from evaljob.plan import Partition, Plan
from evaljob_cli.inputs import InputError

SAMPLES = "samples"
"""Under the output folder: what the output claim holds on a cluster."""


@dataclass(frozen=True)
class Places:
    """The folders and files that stand in for volumes."""

    out: Path
    """Everything that a run writes."""
    claims: Mapping[str, Path] = field(default_factory=dict)
    """Folders by PersistentVolumeClaim."""
    config_maps: Mapping[str, Path] = field(default_factory=dict)
    """Folders by ConfigMap, one file per key."""
    api_keys: Mapping[str, Path] = field(default_factory=dict)
    """Files by `<secret>/<key>`."""


def check(plan: Plan, places: Places) -> None:
    """Refuse a plan that needs a place which nobody named, before anything starts.

    Raises:
        InputError: with the options to add.
    """
    missing = sorted({option for p in plan.partitions for option in _missing(plan, p, places)})
    if missing:
        raise InputError(f"{plan.run.name}: not on this machine yet; add {' '.join(missing)}")


def writable(out: Path) -> None:
    """Make the output folder.

    Raises:
        InputError: where that cannot be.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}: give a folder that can be written") from error


def _missing(plan: Plan, partition: Partition, places: Places) -> Iterator[str]:
    for claim in mounts.claims(plan, partition):
        if claim not in places.claims:
            yield f"--mount {claim}=DIR"
    for name in mounts.config_maps(plan, partition):
        if name not in places.config_maps:
            yield f"--config-map {name}=DIR"
    for ref in _api_keys(plan, partition).values():
        if _named(ref) not in places.api_keys:
            yield f"--api-key-file {_named(ref)}=FILE"


def _api_keys(plan: Plan, partition: Partition) -> dict[str, SecretKeyRef]:
    """The keys of the partition's model and judges, by the arguments that name their files in a pod."""
    openai = plan.model(partition.model).openai
    ref = openai.api_key_secret_ref if openai else None
    own = {f"{mounts.KEY_DIR}/{ref.key}": ref} if ref else {}
    judges = mounts.judge_keys(plan, partition).items()
    return own | {f"{name}={mounts.JUDGE_KEY_DIR}/{name}/{ref.key}": ref for name, ref in judges}


def _named(ref: SecretKeyRef) -> str:
    return f"{ref.name}/{ref.key}"


def arguments(plan: Plan, partition: Partition, places: Places, plan_folder: Path) -> list[str]:
    """The runner's command line as its Job has it, with local paths in place of the pod's."""
    local = {mounts.PLAN_DIR: str(plan_folder), mounts.OUTPUT_DIR: str(places.out / SAMPLES)}
    for claim, path in places.claims.items():
        local[f"{claim}={mounts.SOURCE_DIR}/{claim}"] = f"{claim}={path}"
    for name, path in places.config_maps.items():
        local[f"{name}={mounts.CONFIG_DIR}/{name}"] = f"{name}={path}"
    for argument, ref in _api_keys(plan, partition).items():
        # What stands before `=` names a judge.
        name, sign, _ = argument.rpartition("=")
        local[argument] = f"{name}{sign}{places.api_keys[_named(ref)]}"
    return [local.get(argument, argument) for argument in jobs.arguments(plan, partition)]
