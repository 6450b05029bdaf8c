"""Helm, and a chart rendered by it."""

import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.cluster.machine import prepare
from tests.cluster.paths import REPOSITORY, Cache
from tests.cluster.shell import CommandError, Timeline, run
from tests.cluster.tools import new_enough

CHART = REPOSITORY / "charts" / "evaljob"
NAMESPACE = "evaljob-system"

Manifest = dict[str, Any]
Helm = Callable[..., str]
Render = Callable[..., list[Manifest]]


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Runs helm: the machine's own if it is new enough, else the one of the test cluster's tools."""
    path = os.environ.get("PATH", "")
    if not (shutil.which("helm") and _usable()):
        path = prepare(Cache.from_env(os.environ), Timeline()).path
    return lambda *args: run("helm", *args, env={"PATH": path})


def _usable() -> bool:
    try:
        return new_enough("helm", run("helm", "version", "--short"))
    except CommandError:
        return False


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """The objects of the chart with these `--set-json` values."""

    def call(*values: str) -> list[Manifest]:
        sets = [arg for value in values for arg in ("--set-json", value)]
        text = helm("template", "evaljob", str(CHART), "--namespace", NAMESPACE, *sets)
        return [document for document in yaml.safe_load_all(text) if document]

    return call
