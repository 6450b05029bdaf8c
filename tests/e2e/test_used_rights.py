"""The operator's rights beside what it used in all the other tests, by the API server's own log.

The last of the modules by its name: it looks at what the others have done.
"""

from pathlib import Path

import pytest

from tests.e2e import rights
from tests.e2e.own import OwnWorld

pytestmark = pytest.mark.cluster

UNUSED = {
    ("update", "evaljob.dev", "evaljobs/finalizers"): "asked of the authorizer, never as a request",
    ("deletecollection", "batch", "jobs"): "an hour after the end; tests/unit/test_operator_reconciler.py",
    ("get", "batch", "jobs"): "after a crash between a creation and its answer; tests/faults",
}
"""Rights that need not show in this suite, and why."""


def test_the_operator_uses_all_of_its_rights_and_asks_for_no_others(
    own_world: OwnWorld, request: pytest.FixtureRequest
) -> None:
    modules = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    if request.config.option.keyword or modules - {item.path.name for item in request.session.items}:
        pytest.skip("needs the whole suite")
    if not own_world.machine.image.own:
        pytest.skip("kindest/node as it is keeps no audit log")
    asked, granted = rights.asked(own_world), rights.granted(own_world)
    allowed = {a.right for a in asked if a.allowed and a.right}
    # An API server that has just come back refuses what it allows a moment later: it has not read the roles yet.
    assert [a for a in asked if not a.allowed and a.right not in granted] == []
    assert allowed <= granted
    assert granted - allowed <= UNUSED.keys()
