"""The settings file is read whole or refused by field; every task of the catalogue is valid."""

from pathlib import Path

import pytest

from evaljob_operator.settings import SettingsError, catalogue, load


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def test_settings_are_read(file: Path) -> None:
    file.write_text("namespaces: [a, b]\nlogLevel: DEBUG\nplan: {images: {openai: r:1}, jobTtlSeconds: 5}\n")
    found = load(file)
    assert found.namespaces == ("a", "b")
    assert found.plan.images == {"openai": "r:1"}
    assert (found.plan.job_ttl_seconds, found.threads) == (5, 20)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("namespaces: []", "namespaces"),
        ("namespaces: [a]\nplan: {secretprefix: x}", "plan.secretprefix"),
        ("namespaces: [a]\nthreads: 0", "threads"),
        ("namespaces: [a", "config.yaml"),
        ("just text", "config.yaml"),
    ],
)
def test_a_wrong_setting_is_named(file: Path, text: str, named: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError, match=named):
        load(file)


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"config\.yaml"):
        load(file)


def test_the_catalogue_holds_the_tasks_of_the_examples() -> None:
    assert {"capitals", "capitals-choice", "mmlu", "bfcl-simple"} <= catalogue().keys()
