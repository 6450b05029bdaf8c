"""What a model is asked: prompt, choices, target, examples."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from jinja2 import TemplateError

from evaljob_cli.lm_eval.expressions import ENVIRONMENT, Piece, column, expression, joined, kind, pieces
from evaljob_cli.lm_eval.notes import Notes, Unfit
from evaljob_cli.lm_eval.reading import Config, Function

Document = dict[str, Any]
"""Part of a task of ours, as YAML holds it."""


class Choices(NamedTuple):
    """The answers to weigh."""

    document: Document
    expression: str
    """Them as a list, in an expression."""


def choices(value: object) -> Choices:
    """`doc_to_choice`: a list, a mapping's values, a column, or a template that yields a list.

    Raises:
        Unfit: where it is none of them.
    """
    fixed = list(value.values()) if isinstance(value, Mapping) else value
    if isinstance(fixed, list):
        if not all(isinstance(choice, str) for choice in fixed):
            raise Unfit("choices that are no texts")
        return Choices({"values": fixed}, repr(fixed))
    parts = pieces(fixed)
    if len(parts) != 1 or parts[0].literal:
        raise Unfit("a text that becomes a list when it is read as Python, not one expression")
    source = parts[0].source
    return Choices({"template": f"{{{{ {source} }}}}"}, _operand(source))


def index(value: object, among: Choices) -> str:
    """`doc_to_target` of choices: the index of the right one. A text that is none is looked up, as in lm-eval.

    Raises:
        Unfit: for several right ones, and where it is Python.
    """
    if isinstance(value, int):
        return str(int(value))
    parts = pieces(value)
    source = expression(parts)
    if kind(source) == "list":
        raise Unfit("several right choices")
    if kind(source) == "number":
        return f"{{{{ {source} }}}}"
    if column(str(value)):
        return f"{{{{ {source}|int if {source} is number else {among.expression}.index({source}) }}}}"
    text = f"{_operand(source)}|string"
    return f"{{{{ {_operand(source)} if ({text}).isdigit() else {among.expression}.index({text}) }}}}"


def continuation(config: Config) -> str:
    """`doc_to_target` of the one continuation that is weighed, as a template that yields it as the only choice.

    Raises:
        Unfit: for choices, and where examples have a delimiter, which the question never has.
    """
    if config.get("doc_to_choice") is not None:
        raise Unfit("one of doc_to_choice")
    if config.get("num_fewshot") and config.get("target_delimiter", " "):
        raise Unfit("examples have target_delimiter before it, the question has not")
    source = expression(pieces(config.get("doc_to_target")))
    if kind(source) == "list":
        raise Unfit("several continuations")
    return f"{{{{ [{source}] }}}}"


def answer(value: object, among: Choices | None) -> Document:
    """`doc_to_target` of a generation: the expected text, or all that are accepted.

    Raises:
        Unfit: where it is Python.
    """
    if isinstance(value, list) and value:
        return {"target": _literal(str(value[0])), "references": f"{{{{ {value!r} }}}}"}
    parts = [Piece(str(value), literal=True)] if isinstance(value, int) else pieces(value)
    source = expression(parts)
    if among:
        return {"target": f"{{{{ {among.expression}[{source}] }}}}"}
    what = kind(source)
    if what == "list":
        return {"target": f"{{{{ {_operand(source)}[0] }}}}", "references": f"{{{{ {source} }}}}"}
    if what == "any" and len(parts) == 1:
        it = _operand(source)
        one = f"{it} is string or {it} is number"
        return {
            "target": f"{{{{ {it} if {one} else {it}[0] }}}}",
            "references": f"{{{{ [{it}|string] if {one} else {it} }}}}",
        }
    return {"target": joined(parts)}


def _operand(source: str) -> str:
    """An expression as part of another one."""
    return source if re.fullmatch(r"[\w.]+", source) else f"({source})"


def _literal(text: str) -> str:
    """A text as a template that yields it."""
    return f"{{{{ {text!r} }}}}" if "{" in text else text


def prefix(config: Config, question: list[Piece], *, weighs: bool, shots: int) -> str | None:
    """`gen_prefix`: how each answer begins.

    Raises:
        Unfit: where lm-eval puts other white space around it.
    """
    given = config.get("gen_prefix")
    if not given:
        return None
    delimiter = config.get("target_delimiter", " ")
    if isinstance(given, Function) or not isinstance(given, str) or "{" in given or column(given):
        raise Unfit("not a fixed text")
    ending = question[-1].source if question and question[-1].literal else " "
    if given[0].isspace() or ending[-1].isspace():
        raise Unfit("white space around it is another one here")
    if (weighs and given[-1].isspace()) or (shots and delimiter != " "):
        raise Unfit("what stands behind it is another one here")
    return given


def examples(config: Config, notes: Notes, *, eval_split: str, weighs: bool) -> Document | None:
    """`num_fewshot`, `fewshot_split` and `fewshot_config`: examples out of a split.

    Raises:
        Unfit: for examples that are made otherwise than the question.
    """
    settings = dict(config.get("fewshot_config") or {})
    count = int(config.get("num_fewshot") or 0)
    split = settings.pop("split", None) or config.get("fewshot_split")
    fallback = config.get("training_split") or config.get("validation_split") or eval_split
    if not count and not split:
        return None
    found: Document = {"count": count, **_sampler(settings.pop("sampler", "default"), count, notes)}
    found |= {"pool": "All", "asTurns": True}
    if (delimiter := config.get("fewshot_delimiter", "\n\n")) != "\n\n":
        found["delimiter"] = delimiter
    if target := settings.pop("doc_to_target", None):
        found["answer"] = _shown(target, config, weighs=weighs)
    same = {"doc_to_text", "doc_to_choice", "target_delimiter", "fewshot_delimiter", "gen_prefix"}
    others = {k for k, v in settings.items() if v is not None and not (k in same and v == config.get(k))}
    if others and count:
        raise Unfit(f"examples have their own {', '.join(sorted(others))}")
    pool = split or fallback
    if count and found["sampler"] == "First" and pool == eval_split and not config.get("test_split"):
        notes.lost("fewshot_split", "lm-eval shows the question itself as an example where it is the first")
    notes.carried("num_fewshot", f"{count}, from split {pool}")
    return found


def _shown(target: object, config: Config, *, weighs: bool) -> str:
    """What an example shows as its answer."""
    if weighs:
        among = choices(config.get("doc_to_choice"))
        return f"{{{{ {among.expression}[{index(target, among)[3:-3]}|int] }}}}"
    return str(answer(target, None)["target"])


def _sampler(name: object, count: int, notes: Notes) -> Document:
    if name == "first_n":
        return {"sampler": "First"}
    if name != "default":
        raise Unfit(f"sampler {name}")
    if count:
        notes.lost(
            "fewshot_config.sampler",
            "Random: another draw than lm-eval's, by the EvalJob's seed; the default there",
        )
    return {"sampler": "Random"}


def shown(config: Config, *, weighs: bool) -> str:
    """`fewshot_config.samples`: examples that stand in the YAML, as the text before each question.

    Raises:
        Unfit: where they cannot be rendered here.
    """
    settings = dict(config.get("fewshot_config") or {})
    samples, count = settings.get("samples"), int(config.get("num_fewshot") or 0)
    if not isinstance(samples, list):
        raise Unfit(f"samples: Python: {samples}")
    if count > len(samples) or (settings.get("sampler") != "first_n" and count):
        raise Unfit(f"{count} drawn of {len(samples)} samples")
    own = {**config, **{k: v for k, v in settings.items() if v is not None}}
    return "".join(_example(own, sample, weighs=weighs) for sample in samples[:count])


def _example(config: Config, sample: Mapping[str, Any], *, weighs: bool) -> str:
    question = _rendered(joined(pieces(config.get("doc_to_text"))), sample)
    answer_text = _rendered(_shown(config.get("doc_to_target"), config, weighs=weighs), sample)
    if config.get("gen_prefix"):
        raise Unfit("samples with gen_prefix")
    between = config.get("target_delimiter", " ") if answer_text else ""
    return question + str(between) + answer_text + str(config.get("fewshot_delimiter", "\n\n"))


def _rendered(template: str, sample: Mapping[str, Any]) -> str:
    try:
        return ENVIRONMENT.from_string(template).render(sample)
    except (TemplateError, TypeError, ValueError, LookupError) as error:
        raise Unfit(f"samples: {error}") from error


def quoted(text: str) -> str:
    """A text as part of a template that yields it."""
    return joined([Piece(repr("{"), literal=False) if c == "{" else Piece(c, literal=True) for c in text])
