"""What an installation decides, read from one YAML file, and the catalogue that comes with the package."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError

from evaljob.model import Frozen
from evaljob.planning import Settings as PlanSettings
from evaljob.task import Task


class SettingsError(Exception):
    """The settings file cannot be read; the message names the field and the value."""


class Settings(Frozen):
    """The operator's own settings."""

    namespaces: Annotated[tuple[str, ...], Field(min_length=1)]
    """Where EvalJobs are watched."""
    plan: PlanSettings = PlanSettings()
    """Goes into the plan of each EvalJob."""
    threads: Annotated[int, Field(ge=1, le=200)] = 20
    """Requests to the API server at once."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    kueue: bool = False
    """Whether Kueue is installed, and its Workloads may be read."""
    health: str | None = None
    """Address of the health endpoint, for example `http://0.0.0.0:8080/healthz`; none by default."""
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port of the endpoint `/metrics` for Prometheus; none by default."""


def load(path: Path) -> Settings:
    """Read the settings file.

    Raises:
        SettingsError: it is missing, is not YAML, or says something unknown.
    """
    try:
        return Settings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: {error}") from error
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r:.100})" for e in error.errors()
        )
        raise SettingsError(f"{path}: {'; '.join(problems)}") from error


def catalogue() -> dict[str, Task]:
    """The tasks that come with the package, by name."""
    folder = resources.files("evaljob") / "tasks"
    files = (f for f in folder.iterdir() if f.name.endswith(".yaml"))
    return {
        f.name.removesuffix(".yaml"): Task.model_validate(yaml.safe_load(f.read_text("utf-8"))) for f in files
    }
