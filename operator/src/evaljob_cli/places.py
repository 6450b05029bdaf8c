"""Where things are on this machine: the cluster's mount points, translated to local folders."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evaljob import jobs
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


def _missing(plan: Plan, partition: Partition, places: Places) -> Iterator[str]:
    for claim in jobs.claims(plan, partition):
        if claim not in places.claims:
            yield f"--mount {claim}=DIR"
    for name in jobs.config_maps(plan, partition):
        if name not in places.config_maps:
            yield f"--config-map {name}=DIR"
    key = _api_key(plan, partition)
    if key and key not in places.api_keys:
        yield f"--api-key-file {key}=FILE"


def _api_key(plan: Plan, partition: Partition) -> str | None:
    """`<secret>/<key>` of the partition's model, if it has one."""
    openai = plan.model(partition.model).openai
    ref = openai.api_key_secret_ref if openai else None
    return f"{ref.name}/{ref.key}" if ref else None


def arguments(plan: Plan, partition: Partition, places: Places, plan_folder: Path) -> list[str]:
    """The runner's command line as its Job has it, with local paths in place of the pod's."""
    local = {jobs.PLAN_DIR: str(plan_folder), jobs.OUTPUT_DIR: str(places.out / SAMPLES)}
    for claim, path in places.claims.items():
        local[f"{claim}={jobs.SOURCE_DIR}/{claim}"] = f"{claim}={path}"
    for name, path in places.config_maps.items():
        local[f"{name}={jobs.CONFIG_DIR}/{name}"] = f"{name}={path}"
    if key := _api_key(plan, partition):
        local[f"{jobs.KEY_DIR}/{key.partition('/')[2]}"] = str(places.api_keys[key])
    return [local.get(argument, argument) for argument in jobs.arguments(plan, partition)]
