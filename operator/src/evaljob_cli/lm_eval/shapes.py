"""What lm-eval's fields look like, as far as they are read. A wrong one is named before anything is converted."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from evaljob import mistakes
from evaljob_cli.lm_eval.reading import Config


def _listed(value: object) -> object:
    """One item may stand without a list."""
    return [value] if isinstance(value, str | dict) else value


_One = BeforeValidator(_listed)
Texts = Annotated[list[str], _One]
Items = Annotated[list[Any], _One]


class _Fields(BaseModel):
    """Some fields of a mapping."""

    model_config = ConfigDict(extra="allow")


class _Generation(_Fields):
    until: Items | None = None
    temperature: float = 0.0
    max_gen_toks: int | None = None
    max_new_tokens: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    num_beams: int = 1


class _Step(_Fields):
    function: Any


class _Filter(_Fields):
    name: Any
    filter: list[_Step]


class _Metric(_Fields):
    regexes_to_ignore: Texts | None = None


class _Task(_Fields):
    """A task, or a group."""

    task: Items | None = None
    tag: Texts | None = None
    num_fewshot: int | None = None
    repeats: int | None = None
    generation_kwargs: _Generation | None = None
    fewshot_config: dict[str, Any] | None = None
    filter_list: list[_Filter] | None = None
    metric_list: list[_Metric] | None = None
    aggregate_metric_list: Annotated[list[dict[str, Any]], _One] | None = None
    metadata: dict[Any, Any] | None = None


def problem(config: Config) -> str | None:
    """The fields that lm-eval could not read either, with their values and what is needed; or None."""
    try:
        _Task.model_validate(config)
    except ValidationError as error:
        return mistakes.explain(mistakes.found(error), _Task)
    return None
