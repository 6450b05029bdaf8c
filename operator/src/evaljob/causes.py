"""Kubernetes' own words for why something does not run -> a reason that a user can act on.

Kubernetes gives reasons to humans only: an Event `FailedMount` may mean a Secret, a ConfigMap or a volume, and a
403 a missing right, a quota or a policy. The words are those of kubelet, Job controller and API server 1.31-1.37.
"""

import re

from evaljob.names import Reason

_CAUSES = (
    (r"exceeded quota", Reason.QUOTA_EXCEEDED),
    (r"\bUser \"[^\"]*\" cannot ", Reason.PERMISSION_DENIED),
    (
        r"denied the request|denied request:|violates PodSecurity|\bis forbidden:|failed calling webhook",
        Reason.ADMISSION_DENIED,
    ),
    (r"\bsecret \"[^\"]*\" not found|non-existent secret key", Reason.SECRET_MISSING),
    (r"\bconfigmap \"[^\"]*\" not found|non-existent config key", Reason.CONFIG_MAP_MISSING),
)


def cause(words: str) -> Reason | None:
    """The reason that stands behind a message of Kubernetes, None if it is none of those we know."""
    return next((reason for pattern, reason in _CAUSES if re.search(pattern, words)), None)
