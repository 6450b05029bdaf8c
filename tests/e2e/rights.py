"""What the operator may do, and what it has asked for, by the audit log of the API server (tests/cluster/node)."""

import json
from dataclasses import dataclass
from datetime import datetime

from tests.e2e.own import OwnWorld
from tests.e2e.world import NAMESPACE, OPERATOR_NAMESPACE, RELEASE

LOG = "/var/log/audit/audit.log"
Right = tuple[str, str, str]
"""Verb, API group, resource with its subresource."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the operator.

    Attributes:
        right: What it needs; None for what every user may do, such as discovery.
        allowed: Whether the API server let it.
        line: Method and address.
    """

    right: Right | None
    allowed: bool
    line: str


def granted(world: OwnWorld) -> set[Right]:
    """The rights of the operator's Role."""
    role = world.kubectl.get_json("get", "role", f"{OPERATOR_NAMESPACE}-{RELEASE}", "-n", NAMESPACE)
    return {
        (verb, group, resource)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def asked(world: OwnWorld) -> set[Asked]:
    """All kinds of requests since the tests began."""
    text = world.machine.docker("exec", world.cluster.nodes[0], "cat", LOG)
    events = map(json.loads, text.splitlines())
    return {_asked(e) for e in events if datetime.fromisoformat(e["requestReceivedTimestamp"]) >= world.since}


def _asked(event: dict[str, object]) -> Asked:
    ref, annotations = event.get("objectRef"), event.get("annotations")
    allowed = isinstance(annotations, dict) and annotations["authorization.k8s.io/decision"] == "allow"
    line = f"{event['verb']} {event['requestURI']}"
    if not isinstance(ref, dict) or "resource" not in ref:
        return Asked(None, allowed, "" if allowed else line)
    resource = "/".join(filter(None, (ref["resource"], ref.get("subresource"))))
    return Asked((str(event["verb"]), ref.get("apiGroup", ""), resource), allowed, "" if allowed else line)
