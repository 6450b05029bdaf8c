"""Options and fixtures shared by all tests."""

import pytest

pytest_plugins = ["tests.clusters"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-goldens", action="store_true", help="rewrite tests/data instead of comparing with it"
    )
