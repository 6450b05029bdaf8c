"""lm-eval's Jinja templates -> ours: text and `{{ expressions }}` only, with the meaning that they have there.

Both are Jinja2 with StrictUndefined over the columns of a document. Ours has no statements, so that an `{% if %}`
becomes a conditional expression; loops have no equal.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from evaljob_cli.lm_eval.notes import Unfit
from evaljob_cli.lm_eval.reading import Function

ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_COLUMN = re.compile(r"[A-Za-z_]\w*")
_OTHER_FILTERS = {"tojson": "escapes for HTML there", "random": "draws", "regex_replace": "is lm-eval's own"}
_CHANGES = frozenset(
    ("append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse", "update", "setdefault")
)
_TEXTS = frozenset(
    (
        "strip",
        "lstrip",
        "rstrip",
        "lower",
        "upper",
        "title",
        "capitalize",
        "replace",
        "format",
        "join",
        "trim",
        "string",
        "indent",
    )
)
"""Methods and filters that yield a text."""
_NUMBERS = frozenset(("index", "find", "int", "length"))


class Piece(NamedTuple):
    """Part of a template: text, or the source of an expression."""

    source: str
    literal: bool

    @property
    def expression(self) -> str:
        """As part of an expression."""
        return repr(self.source) if self.literal else f"({self.source})"


def column(value: str) -> str | None:
    """The name, where a text is one: lm-eval reads `question` as a column, and as a text where there is none."""
    return value if _COLUMN.fullmatch(value) else None


def pieces(source: object, *, of_column: bool = True) -> list[Piece]:
    """A template in our language, in parts.

    Args:
        source: a template or the name of a column.
        of_column: whether a single word is a column.

    Raises:
        Unfit: where it has no equal.
    """
    if isinstance(source, Function):
        raise Unfit(f"Python: {source}")
    if not isinstance(source, str):
        raise Unfit(f"a {type(source).__name__}, not a template")
    if of_column and (name := column(source)):
        return [Piece(name, literal=False)]
    _refuse(source)
    try:
        return _merged(_Reader(source).block()[0])
    except TemplateError as error:
        raise Unfit(f"no template of Jinja2: {error}") from error


def joined(parts: Sequence[Piece]) -> str:
    """The parts as one template."""
    return "".join(p.source if p.literal else f"{{{{ {p.source} }}}}" for p in parts)


def expression(parts: Sequence[Piece]) -> str:
    """The parts as one expression."""
    if len(parts) == 1 and not parts[0].literal:
        return parts[0].source
    return " ~ ".join(p.expression for p in parts) or "''"


def kind(source: str) -> str:
    """What an expression yields, as far as its form says: `text`, `list`, `number` or `any`."""
    body = ENVIRONMENT.parse(f"{{{{ {source} }}}}").body[0]
    return _kind(body.nodes[0]) if isinstance(body, nodes.Output) else "any"


def _kind(node: nodes.Node) -> str:
    found: str | None = "any"
    match node:
        case nodes.TemplateData() | nodes.Concat():
            found = "text"
        case nodes.Sub() | nodes.Mul():
            found = "number"
        case nodes.List() | nodes.Tuple():
            found = "list"
        case nodes.Const(value=value):
            found = {str: "text", int: "number"}.get(type(value))
        case nodes.Filter(name=name) | nodes.Call(node=nodes.Getattr(attr=name)):
            found = "text" if name in _TEXTS else "number" if name in _NUMBERS else None
        case nodes.Getitem(
            node=nodes.Call(node=nodes.Getattr(attr="split")), arg=nodes.Const() | nodes.Neg()
        ):
            found = "text"
        case nodes.Getitem(node=nodes.List(items=items)):
            found = _common(items)
        case nodes.Add(left=yes, right=no):
            found = _common([n for n in (yes, no) if _kind(n) != "any"])
        case nodes.CondExpr(expr1=yes, expr2=nodes.Node() as no):
            found = _common([yes, no])
    return found or "any"


def _common(found: Sequence[nodes.Node]) -> str | None:
    """The kind that all have."""
    kinds = {_kind(node) for node in found}
    return kinds.pop() if len(kinds) == 1 else None


def _refuse(source: str) -> None:
    """Refuse what means something else in our sandbox, or is not there."""
    try:
        tree = ENVIRONMENT.parse(source)
    except TemplateError as error:
        raise Unfit(f"no template of Jinja2: {error}") from error
    for found in tree.find_all(nodes.Filter):
        if found.name not in ENVIRONMENT.filters or found.name in _OTHER_FILTERS:
            raise Unfit(f"filter {found.name}: {_OTHER_FILTERS.get(found.name, 'not there')}")
    for attribute in tree.find_all(nodes.Getattr):
        if attribute.attr in _CHANGES or attribute.attr.startswith("_"):
            raise Unfit(f".{attribute.attr}: the sandbox refuses it")
    for name in tree.find_all(nodes.Name):
        if name.name == "lipsum":
            raise Unfit("lipsum: draws")


def _merged(parts: Sequence[Piece]) -> list[Piece]:
    """With neighbouring texts as one."""
    found: list[Piece] = []
    for part in parts:
        if found and part.literal and found[-1].literal:
            found[-1] = Piece(found[-1].source + part.source, literal=True)
        elif part.source or not part.literal:
            found.append(part)
    return found


class _Reader:
    """A template's tokens, read once; `{% if %}` becomes an expression."""

    def __init__(self, source: str) -> None:
        self._tokens: Iterator[tuple[int, str, str]] = ENVIRONMENT.lex(source)

    def block(self) -> tuple[list[Piece], str]:
        """The parts up to the end or to an else, elif or endif, and that statement."""
        found: list[Piece] = []
        for _, what, text in self._tokens:
            if what == "data":
                found.append(Piece(text, literal=True))
            elif what == "variable_begin":
                found.append(Piece(self._until("variable_end"), literal=False))
            elif what == "block_begin":
                statement = self._until("block_end")
                word = statement.partition(" ")[0]
                if word in ("else", "elif", "endif"):
                    return found, statement
                if word != "if":
                    raise Unfit(f"{{% {word} %}}: only text, expressions and {{% if %}}")
                found.append(Piece(self._condition(statement), literal=False))
            elif not what.startswith("comment"):
                raise Unfit(f"{what} in a template")
        return found, "endif"

    def _condition(self, statement: str) -> str:
        condition = statement.partition(" ")[2]
        yes, end = self.block()
        if end.startswith("elif"):
            no = self._condition(end)
        elif end == "else":
            no = expression(_merged(self.block()[0]))
        else:
            no = "''"
        return f"({expression(_merged(yes))}) if {condition} else ({no})"

    def _until(self, end: str) -> str:
        """The source up to a token."""
        found = []
        for _, token, text in self._tokens:
            if token == end:
                break
            found.append(text)
        return "".join(found).strip()
