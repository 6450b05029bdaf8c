"""Volumes of a user's own in the runner's pods."""

from typing import Annotated, Self

from pydantic import StringConstraints, model_validator

from evaljob.fields import DnsLabel40, LocalObjectReference, ObjectName
from evaljob.model import Frozen, cel, cel_rules, exactly_one

SOURCES = ("persistentVolumeClaim", "configMap", "secret")
_ONE_SOURCE = f"exactly one of {', '.join(SOURCES[:-1])} and {SOURCES[-1]}"
ROOTS = ("/dev", "/etc", "/mnt", "/proc", "/sys", "/tmp")  # noqa: S108 - a mount of the pod
"""Where nothing may be mounted; below them it may."""
OURS = ("/dev", "/etc/evaljob", "/mnt/config", "/mnt/hub", "/mnt/output", "/mnt/source", "/proc", "/sys")
"""Nor anything below these."""
_TAKEN = f"taken: not {', '.join(ROOTS)} themselves, and nothing below {', '.join(OURS)}"


class ClaimVolume(Frozen):
    """A PersistentVolumeClaim of the EvalJob's namespace."""

    claim_name: ObjectName


class SecretVolume(Frozen):
    """A Secret of the EvalJob's namespace. Its name begins with a prefix that the installation decides (`eval-`)."""

    secret_name: ObjectName


class Volume(Frozen):
    """A volume and where the runner finds it: what a Pod says in `volumes` and in `volumeMounts`.

    What is read from it is in no digest: data and weights belong into `source`.
    """

    model_config = cel_rules(
        cel(
            exactly_one(*SOURCES),
            _ONE_SOURCE,
        ),
        cel(
            f"!(self.mountPath in {list(ROOTS)}) &&"
            f" !{list(OURS)}.exists(p, self.mountPath == p || self.mountPath.startsWith(p + '/'))",
            _TAKEN,
            fieldPath=".mountPath",
        ),
    )

    name: DnsLabel40
    mount_path: Annotated[
        str, StringConstraints(pattern=r"^(/\.?[A-Za-z0-9_][-.A-Za-z0-9_]*)+$", max_length=253)
    ]
    """An absolute path without `.` and `..`."""
    sub_path: (
        Annotated[
            str,
            StringConstraints(
                pattern=r"^\.?[A-Za-z0-9_][-.A-Za-z0-9_]*(/\.?[A-Za-z0-9_][-.A-Za-z0-9_]*)*$", max_length=253
            ),
        ]
        | None
    ) = None
    """A path inside the volume, instead of its root."""
    read_only: bool = True
    """Unlike in a Pod, true unless said otherwise."""
    persistent_volume_claim: ClaimVolume | None = None
    config_map: LocalObjectReference | None = None
    secret: SecretVolume | None = None

    @model_validator(mode="after")
    def _one_source_in_a_free_place(self) -> Self:
        given = [s for s in (self.persistent_volume_claim, self.config_map, self.secret) if s is not None]
        if len(given) != 1:
            raise ValueError(f"volume {self.name}: {_ONE_SOURCE}")
        if self.mount_path in ROOTS or f"{self.mount_path}/".startswith(tuple(f"{p}/" for p in OURS)):
            raise ValueError(f"volume {self.name}: mountPath {self.mount_path}: {_TAKEN}")
        return self
