"""Small types that many fields of the resource share."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainValidator, StringConstraints, WithJsonSchema

from evaljob.model import Frozen, cel

DnsLabel40 = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
DisplayName = Annotated[str, StringConstraints(min_length=1, max_length=253)]
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", max_length=253)]
HUB_SCHEME = "hf://"
S3_SCHEME = "s3://"
_WITH_REVISION = "^hf://[^/@]+/[^/@]+@"
_NEEDS_REVISION = (
    "an hf:// source names its revision, hf://<org>/<name>@<revision>: a branch moves, and numbers move with it; "
    "best is a commit"
)


def _one_of(forms: str) -> BeforeValidator:
    """Before the pattern, which says little to who wrote a folder of their machine."""
    schemes = tuple(re.findall(r"\w+://", forms))

    def check(source: object) -> object:
        if isinstance(source, str) and not source.startswith(schemes):
            raise ValueError(f"write {forms}; a folder of this machine is a CLAIM by `--mount CLAIM=FOLDER`")
        return source

    return BeforeValidator(check)


def _stays_inside(source: str) -> str:
    if {".", ".."} & set(source.split("/")):
        raise ValueError("a path without . and ..")
    return source


def _names_revision(source: str) -> str:
    if source.startswith(HUB_SCHEME) and not re.match(_WITH_REVISION, source):
        raise ValueError(_NEEDS_REVISION)
    return source


_BELOW = r"://[a-z0-9]([-.a-z0-9]*[a-z0-9])?(/[^/]+)+"
_CLAIM = f"pvc{_BELOW}"
_MOUNTED = f"(pvc|configmap){_BELOW}"
_REPOSITORY = r"hf://[A-Za-z0-9][-.\w]*/[A-Za-z0-9][-.\w]*(@[A-Za-z0-9][-.\w]*)?(/[^/]+)*"
_OBJECT = r"s3://[a-z0-9][-.a-z0-9]*[a-z0-9](/[^/]+)+"
Source = Annotated[
    str,
    StringConstraints(pattern=f"^({_CLAIM}|{_REPOSITORY})$", max_length=1024),
    AfterValidator(_stays_inside),
    AfterValidator(_names_revision),
    _one_of("pvc://CLAIM/PATH or hf://ORG/NAME@REVISION"),
]
"""Of a checkpoint, which is a folder: `pvc://<claim>/<path>` in the EvalJob's own namespace, or a repository of a
Hugging Face hub, `hf://<org>/<name>@<revision>[/<path>]`."""
MountedSource = Annotated[
    str, StringConstraints(pattern=f"^{_MOUNTED}$", max_length=1024), AfterValidator(_stays_inside)
]
"""`pvc://<claim>/<path>` or `configmap://<name>/<key>` in the EvalJob's own namespace."""
DataSource = Annotated[
    str,
    StringConstraints(pattern=f"^({_MOUNTED}|{_REPOSITORY}|{_OBJECT})$", max_length=1024),
    AfterValidator(_stays_inside),
    AfterValidator(_names_revision),
    _one_of("pvc://CLAIM/PATH, configmap://NAME/KEY, hf://ORG/NAME@REVISION or s3://BUCKET/KEY"),
]
"""As `Source` or `MountedSource`, or `s3://<bucket>/<key>`."""
REVISION_RULE = cel(
    f"!has(self.source) || !self.source.startsWith('{HUB_SCHEME}') || self.source.matches('{_WITH_REVISION}')",
    _NEEDS_REVISION,
    fieldPath=".source",
)
_QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"


def _quantity(value: object) -> int | str:
    """Checked here, because a Job with a wrong one is refused only when it is created."""
    if isinstance(value, bool) or not isinstance(value, int | str) or not re.match(_QUANTITY, str(value)):
        raise ValueError(
            "not a quantity of Kubernetes, which are like 2, 500m or 4Gi (in quotes with a point: '0.5')"
        )
    return value


Quantity = Annotated[
    int | str,
    PlainValidator(_quantity),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": _QUANTITY}),
]


class SecretKeyRef(Frozen):
    """One key of a Secret in the EvalJob's namespace. The operator never reads it; the kubelet mounts it."""

    name: ObjectName
    key: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]


class LocalObjectReference(Frozen):
    """An object of the EvalJob's namespace, by name."""

    name: ObjectName


Template = Annotated[str, StringConstraints(max_length=32768)]
"""A Jinja2 template over the columns of one document (sandboxed, undefined variables are errors)."""
Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$", max_length=63)]
