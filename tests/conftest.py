"""Options and fixtures shared by all tests."""

import pytest

pytest_plugins = ["tests.clusters"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-goldens", action="store_true", help="rewrite tests/data instead of comparing with it"
    )
    named = parser.getgroup("a cluster of yours, for tests/e2e")
    named.addoption("--context", default="", help="of your kubeconfig; default: a kind cluster is made")
    named.addoption(
        "--images", default="", help="operator=REFERENCE,runner=REFERENCE[,serving=...][,runner-lm-eval=...]"
    )
    named.addoption(
        "--data-claim", default="", help="a claim in the namespace e2e that all nodes can write to"
    )
