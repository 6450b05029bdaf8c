"""Where a pod may run: Kubernetes' affinity and topology spread, word for word but for other namespaces.

Left out of a pod's affinity are `namespaces` and `namespaceSelector`: nothing in an EvalJob names another namespace.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from evaljob.model import Frozen

_KEY = r"^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$"
LabelKey = Annotated[str, StringConstraints(pattern=_KEY, max_length=316)]
"""Of a label or an annotation: a name, maybe with a DNS domain and a slash before it."""
LabelValue = Annotated[
    str, StringConstraints(pattern=r"^([A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)?$", max_length=63)
]
_Values = Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(max_length=32)]
_Weight = Annotated[int, Field(ge=1, le=100)]


class NodeSelectorRequirement(Frozen):
    """A condition on one label, or one field, of a node."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: _Values = ()


class NodeSelectorTerm(Frozen):
    """Conditions that must all hold."""

    match_expressions: Annotated[tuple[NodeSelectorRequirement, ...], Field(max_length=16)] = ()
    match_fields: Annotated[tuple[NodeSelectorRequirement, ...], Field(max_length=16)] = ()


class NodeSelector(Frozen):
    """Terms of which one must hold."""

    node_selector_terms: Annotated[tuple[NodeSelectorTerm, ...], Field(min_length=1, max_length=16)]


class PreferredSchedulingTerm(Frozen):
    """A wish of the given weight."""

    weight: _Weight
    preference: NodeSelectorTerm


class NodeAffinity(Frozen):
    """To nodes, by their labels."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[PreferredSchedulingTerm, ...], Field(max_length=16)
    ] = ()


class LabelSelectorRequirement(Frozen):
    """A condition on one label of an object."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: _Values = ()


class LabelSelector(Frozen):
    """Conditions on labels that must all hold."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = Field(default_factory=dict)
    match_expressions: Annotated[tuple[LabelSelectorRequirement, ...], Field(max_length=16)] = ()


class PodAffinityTerm(Frozen):
    """Pods of the EvalJob's own namespace, and what counts as the same place."""

    topology_key: LabelKey
    label_selector: LabelSelector | None = None


class WeightedPodAffinityTerm(Frozen):
    """A wish of the given weight."""

    weight: _Weight
    pod_affinity_term: PodAffinityTerm


class PodAffinity(Frozen):
    """To other pods, or away from them."""

    required_during_scheduling_ignored_during_execution: Annotated[
        tuple[PodAffinityTerm, ...], Field(max_length=16)
    ] = ()
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[WeightedPodAffinityTerm, ...], Field(max_length=16)
    ] = ()


class Affinity(Frozen):
    """As in a Pod."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class TopologySpreadConstraint(Frozen):
    """As in a Pod. The pods of an EvalJob have its name in their label `evaljob.dev/name`."""

    max_skew: Annotated[int, Field(ge=1)]
    topology_key: LabelKey
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    label_selector: LabelSelector | None = None
    min_domains: Annotated[int, Field(ge=1)] | None = None
    node_affinity_policy: Literal["Honor", "Ignore"] | None = None
    node_taints_policy: Literal["Honor", "Ignore"] | None = None
    match_label_keys: Annotated[tuple[LabelKey, ...], Field(max_length=16)] = ()
