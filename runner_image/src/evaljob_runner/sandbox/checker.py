"""The process of the tests: runs a dataset's own checks, asks the program over a pipe, and says the verdict.

The program's code never enters this process, only values of plain types do. So nothing that a program does to its
own interpreter can change what an `assert` means here, or write the verdict. Standard library only.
"""

import builtins
from collections.abc import Iterator
from types import CodeType

from evaljob_runner.sandbox import wire
from evaljob_runner.sandbox.remote import TEXT_MAX, Program, UnusableTests
from evaljob_runner.sandbox.wire import Json, Pipe

NAME = "__checks__"
_FILE = "<tests>"


def _global_names(code: CodeType) -> Iterator[str]:
    """Every name that the tests may look up outside their functions."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


def _explanation(error: BaseException, source: str) -> str:
    """The exception; a bare `assert` is explained by its line."""
    line, trace = 0, error.__traceback__
    while trace:
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == _FILE else line
        trace = trace.tb_next
    text = str(error) or (source.splitlines()[line - 1].strip() if line else "")
    return f"{type(error).__name__}: {text}"


def check(source: str, pipe: Pipe) -> Json:
    """The verdict: whether the program runs and the tests reach their end."""
    try:
        code = compile(source, _FILE, "exec")
    except (SyntaxError, ValueError) as error:
        return {"unusable": f"the tests do not compile: {error}"}
    program = Program(pipe)
    try:
        program.run()
        wanted = sorted(set(_global_names(code)) - set(dir(builtins)))
        namespace = wire.new_module(NAME)
        namespace |= program.named(wanted)
        exec(code, namespace)  # noqa: S102 - what this is for
    except UnusableTests as error:
        return {"unusable": str(error)}
    except BaseException as error:  # noqa: BLE001 - whatever ends the tests early is the verdict
        return {"passed": False, "explanation": _explanation(error, source)[:TEXT_MAX]}
    return {"passed": program.ended is None, "explanation": (program.ended or "")[:TEXT_MAX]}
