"""The program, as its tests see it from their own process. Standard library only.

Whatever arrives from the program is untrusted: it becomes a value of a plain type, a `Remote` or an exception, or it
is the end.
"""

import builtins
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from evaljob_runner.sandbox import wire
from evaljob_runner.sandbox.wire import ClosedError, Json, Pipe

TEXT_MAX = 300
# Raised by a call they would end a loop of the tests in silence.
_NOT_PASSED_ON = (StopIteration, StopAsyncIteration)


class ProgramEnd(BaseException):
    """The program's process ended, or stopped making sense. No Exception: tests must not forgive it."""


class ProgramError(Exception):
    """The program raised something that is no built-in exception."""


class UnusableTests(BaseException):
    """The tests pass to the program what is no data, for example a function of their own. No Exception either."""


class Program:
    """The program, as the tests see it.

    Args:
        pipe: to its process.
    """

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.ended: str | None = None
        """Why it can answer no more."""

    def run(self) -> None:
        """Execute it; raises what it raises."""
        self._ask({"do": "run"})

    def named(self, names: Iterable[str]) -> dict[str, object]:
        """Those of some names that the program defines."""
        found: dict[str, object] = {}
        for name in names:
            answer = self._exchange({"do": "global", "name": name})
            if "module" in answer:
                if str(answer["module"]).partition(".")[0] in sys.stdlib_module_names:
                    found[name] = _imported(str(answer["module"]))
            elif "missing" not in answer:
                found[name] = self._value(answer)
        return found

    def ask(self, operation: str, target: int, *arguments: object, **named: object) -> Any:  # noqa: ANN401 - its values
        """Let the program do something with one of its objects; raises what that raises."""
        request = {
            "do": operation,
            "of": target,
            "arguments": [wire.encode(a, _handle_of) for a in arguments],
            "named": {k: wire.encode(v, _handle_of) for k, v in named.items()},
        }
        answer = self._ask(request)
        value = self._value(answer)
        if "arguments" in answer:
            for argument, after in zip(arguments, self._decoded(answer["arguments"]), strict=False):
                _restore(argument, after)
        return value

    def _ask(self, request: Json) -> Json:
        answer = self._exchange(request)
        if "raised" in answer:
            self._raise(answer, is_next=request["do"] == "next")
        return answer

    def _exchange(self, request: Json) -> Json:
        if self.ended is not None:
            raise ProgramEnd(self.ended)
        try:
            self._pipe.send(request)
            answer = self._pipe.receive()
        except ClosedError as error:
            self._end(str(error))
        if not isinstance(answer, dict):
            self._end("what it sent is no answer")
        return answer

    def _value(self, answer: Json) -> Any:  # noqa: ANN401 - any value of the program
        return self._decoded(answer.get("value"))

    def _decoded(self, data: Json) -> Any:  # noqa: ANN401 - any value of the program
        try:
            return wire.decode(data, lambda number: Remote(self, number))
        except Exception as error:  # noqa: BLE001 - the program may send anything
            self._end(f"what it sent is no value: {type(error).__name__}")

    def _raise(self, answer: Json, *, is_next: bool) -> NoReturn:
        text = str(answer.get("text"))[:TEXT_MAX]
        classes = [getattr(builtins, str(name), None) for name in answer["raised"] or ()]
        kind = next((c for c in classes if isinstance(c, type) and issubclass(c, BaseException)), None)
        if is_next and kind is StopIteration:
            raise StopIteration
        if kind is None or not issubclass(kind, Exception):
            self._end(f"{answer.get('class')}: {text}")
        if issubclass(kind, _NOT_PASSED_ON):
            raise ProgramError(f"{kind.__name__}: {text}")
        try:
            error = kind(text)
        except TypeError:
            error = ProgramError(f"{kind.__name__}: {text}")
        raise error

    def _end(self, why: str) -> NoReturn:
        self.ended = f"the program: {why}"
        raise ProgramEnd(self.ended)


class Remote:
    """An object that stays in the program's process: a function, a class, an instance, an iterator.

    It equals only objects of the program, as the program sees it, and never a value of the tests.
    """

    __program: Program
    __handle: int

    def __init__(self, program: Program, handle: int) -> None:
        object.__setattr__(self, "_Remote__program", program)
        object.__setattr__(self, "_Remote__handle", handle)

    def __call__(self, *args: object, **named: object) -> object:  # noqa: D102 - as of any function
        return self.__program.ask("call", self.__handle, *args, **named)

    def __getattr__(self, name: str) -> object:
        return self.__program.ask("getattr", self.__handle, name)

    def __setattr__(self, name: str, value: object) -> None:
        self.__program.ask("setattr", self.__handle, name, value)

    def __getitem__(self, key: object) -> object:
        return self.__program.ask("getitem", self.__handle, key)

    def __setitem__(self, key: object, value: object) -> None:
        self.__program.ask("setitem", self.__handle, key, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Remote):
            return False
        return self.__program.ask("eq", self.__handle, other) is True

    def __hash__(self) -> int:
        return hash(self.__handle)

    def __bool__(self) -> bool:
        return self.__program.ask("bool", self.__handle) is True

    def __len__(self) -> int:
        return int(self.__program.ask("len", self.__handle))

    def __iter__(self) -> Iterator[object]:
        iterator = self.__program.ask("iter", self.__handle)
        if not isinstance(iterator, Remote):
            raise TypeError("iter() of an object of the program returned no iterator")
        return iterator

    def __next__(self) -> object:
        return self.__program.ask("next", self.__handle)

    def __str__(self) -> str:
        return str(self.__program.ask("str", self.__handle))


def _handle_of(value: object) -> int:
    if isinstance(value, Remote):
        return int(object.__getattribute__(value, "_Remote__handle"))
    raise UnusableTests(f"the tests pass a {type(value).__name__} to the program, which takes data only")


def _restore(argument: object, after: Any) -> None:  # noqa: ANN401 - any value of the program
    """Give an argument that the program changed in place its new content."""
    same = type(argument) is type(after)
    if isinstance(argument, list | bytearray) and same:
        argument[:] = after
    elif isinstance(argument, dict | set) and same:
        argument.clear()
        argument.update(after)


def _imported(name: str) -> object:
    module = __import__(name)
    for part in name.split(".")[1:]:
        module = getattr(module, part)
    return module
