"""The templates of a task: pure functions of one document's columns.

Jinja2 in its sandbox. A template holds text and `{{ expressions }}` only; whatever could loop, branch or draw
random numbers is refused, so that equal documents give equal prompts.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined, meta, nodes
from jinja2.environment import Template, TemplateExpression
from jinja2.sandbox import ImmutableSandboxedEnvironment

from evaljob.names import Reason
from evaljob_runner.errors import Fatal

Columns = Mapping[str, Any]
json_text = partial(json.dumps, ensure_ascii=False)
"""The filter `tojson`."""
_ONE_EXPRESSION = re.compile(r"\s*\{\{-?(?P<expression>.*?)-?\}\}\s*", re.DOTALL)


class _Missing(StrictUndefined):
    """An undefined value that is no text either as an item of a list, which is written by `repr`."""

    __slots__ = ()
    __repr__ = StrictUndefined.__str__


@cache
def environment() -> ImmutableSandboxedEnvironment:
    """The sandbox, one for all templates, which cannot change it.

    Without `lipsum` and `random`, which give another text each time. `tojson` is that of chat templates: for models,
    not for HTML, and with keys in the order of the document.
    """
    env = ImmutableSandboxedEnvironment(undefined=_Missing, keep_trailing_newline=True, finalize=_written)
    env.filters["tojson"] = json_text
    env.globals.pop("lipsum")
    env.filters.pop("random")
    return env


@dataclass(frozen=True)
class Text:
    """A template that yields text."""

    name: str
    template: Template
    variables: frozenset[str]
    """The columns that it may read."""
    needed: frozenset[str]
    """Those without which it has no value."""
    constant: str | None
    """The text of a template without expressions."""

    def render(self, columns: Columns, where: str) -> str:
        """The text for one document.

        Args:
            columns: the document.
            where: names the document in messages.

        Raises:
            Fatal: BadData, when a variable is undefined or an expression does not fit the document.
        """
        if self.constant is not None:
            return self.constant
        _refuse_missing(self.name, self.needed, columns, where)
        try:
            return self.template.render(columns)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise _bad(self.name, str(error), columns, where) from error


@dataclass(frozen=True)
class Value:
    """A template of exactly one `{{ expression }}` that yields the expression's value, for example a list."""

    name: str
    expression: TemplateExpression
    variables: frozenset[str]
    """The columns that it may read."""
    needed: frozenset[str]
    """Those without which it has no value."""

    def evaluate(self, columns: Columns, where: str) -> object:
        """The value for one document; raises as `Text.render`."""
        _refuse_missing(self.name, self.needed, columns, where)
        try:
            value: object = self.expression(columns)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise _bad(self.name, str(error), columns, where) from error
        if flaw := _flaw(value, self.name):
            raise _bad(*flaw, columns, where)
        return value

    def conversation(self, columns: Columns, where: str) -> tuple[Mapping[str, Any], ...]:
        """The value as messages in OpenAI's shape; raises as `evaluate`."""
        found = self.evaluate(columns, where)
        if not isinstance(found, list | tuple) or not found:
            raise Fatal(Reason.BAD_DATA, f"{self.name}: must yield a list of messages ({where})")
        for i, message in enumerate(found):
            if not isinstance(message, dict) or not all(
                isinstance(message.get(k), str) for k in ("role", "content")
            ):
                raise Fatal(Reason.BAD_DATA, f"{self.name}[{i}]: needs the texts role and content ({where})")
        return tuple(found)


def text(name: str, source: str) -> Text:
    """Compile a template that yields text; `name` is its field in the task.

    Raises:
        Fatal: BadConfiguration, for a syntax error or a statement.
    """
    tree, template = _parse(name, source)
    parts = _parts(tree)
    texts = [part.data for part in parts if isinstance(part, nodes.TemplateData)]
    return Text(name, template, *_columns(tree), "".join(texts) if len(texts) == len(parts) else None)


def value(name: str, source: str) -> Value:
    """Compile a template of exactly one expression; raises as `text`."""
    tree, _ = _parse(name, source)
    match = _ONE_EXPRESSION.fullmatch(source)
    expressions = [n for n in _parts(tree) if not (isinstance(n, nodes.TemplateData) and n.data.isspace())]
    if match is None or len(expressions) != 1 or isinstance(expressions[0], nodes.TemplateData):
        raise Fatal(
            Reason.BAD_CONFIGURATION,
            f"{name}: must be exactly one {{{{ expression }}}} (it yields a list), got {source[:80]!r}",
        )
    compiled = environment().compile_expression(match["expression"], undefined_to_none=False)
    return Value(name, compiled, *_columns(tree))


def _columns(tree: nodes.Template) -> tuple[frozenset[str], frozenset[str]]:
    """The columns that a template may read, and those that it needs: one that asks `is defined` needs none."""
    variables = frozenset(meta.find_undeclared_variables(tree))
    asks = any(test.name in ("defined", "undefined") for test in tree.find_all(nodes.Test))
    return variables, frozenset() if asks else variables


def _parts(tree: nodes.Template) -> list[nodes.Expr]:
    """Texts and expressions, in order."""
    return [part for output in tree.body if isinstance(output, nodes.Output) for part in output.nodes]


def _parse(name: str, source: str) -> tuple[nodes.Template, Template]:
    env = environment()
    try:
        tree = env.parse(source)
        template = env.from_string(source)  # unknown filters show here
    except TemplateError as error:
        raise Fatal(Reason.BAD_CONFIGURATION, f"{name}: {error} in {source[:80]!r}") from error
    if any(not isinstance(node, nodes.Output) for node in tree.body):
        raise Fatal(
            Reason.BAD_CONFIGURATION,
            f"{name}: only text and {{{{ expressions }}}} are allowed, no {{% statements %}}: {source[:80]!r}",
        )
    return tree, template


def _flaw(value: object, place: str) -> tuple[str, str] | None:
    """Where a value, or an item of it, is none, and why."""
    if isinstance(value, Undefined):
        return place, "the expression is undefined"
    if callable(value):
        return place, "a method and no value; a key of that name is written ['KEY']"
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    items = value.items() if isinstance(value, dict) else ()
    return next(filter(None, (_flaw(item, f"{place}[{key!r}]") for key, item in items)), None)


def _written(value: object) -> object:
    """What an expression of a text gives; a method's text has an address in it, another one in each process.

    Raises:
        TypeError: it gives a method. What is undefined says so itself.
    """
    if not isinstance(value, str | Undefined) and (flaw := _flaw(value, "an expression")):
        raise TypeError(": ".join(flaw))
    return value


def _refuse_missing(name: str, variables: frozenset[str], columns: Columns, where: str) -> None:
    if variables <= columns.keys():
        return
    if missing := sorted(variables - columns.keys() - _GLOBALS):
        raise _bad(name, f"{', '.join(map(repr, missing))} is undefined", columns, where)


_GLOBALS = frozenset(environment().globals)


def _bad(name: str, problem: str, columns: Columns, where: str) -> Fatal:
    return Fatal(
        Reason.BAD_DATA, f"{name}: {problem[:200]} ({where}); the columns are: {', '.join(sorted(columns))}"
    )
