"""The process of the program: runs what a model wrote, then answers what the tests ask of it.

Nothing here is a secret and nothing here decides: whatever the program does to this process, all that leaves it are
the values that it answers. Standard library only.
"""

import operator
from collections.abc import Callable
from types import ModuleType
from typing import Any

from evaljob_runner.sandbox import wire
from evaljob_runner.sandbox.wire import Json, Pipe

NAME = "__program__"
"""The module of the program: not `__main__`, so that a closing `if __name__ == "__main__":` stays quiet."""
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, *args, **named: function(*args, **named),
    "getattr": getattr,
    "setattr": setattr,
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "eq": operator.eq,
    "bool": bool,
    "len": len,
    "iter": iter,
    "next": next,
    "str": str,
}


class Candidate:
    """A program and the objects that it gave out.

    Args:
        source: the program.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._namespace = wire.new_module(NAME)
        self._objects: list[object] = []

    def serve(self, pipe: Pipe) -> None:
        """Answer until the other side ends."""
        while True:
            request = pipe.receive()
            try:
                answer = self._answer(request)
                pipe.send(answer)
            except wire.ClosedError:
                raise
            except BaseException as error:  # noqa: BLE001 - whatever the program raises is its answer
                pipe.send(_raised(error))

    def _answer(self, request: Json) -> Json:
        operation = request["do"]
        if operation == "run":
            exec(compile(self._source, "<program>", "exec"), self._namespace)  # noqa: S102 - what this is for
            return {"value": None}
        if operation == "global":
            return self._global(request["name"])
        target = self._objects[request["of"]]
        arguments = self._decoded(request["arguments"])
        named = {k: self._decoded(v) for k, v in request.get("named", {}).items()}
        value = _OPERATIONS[operation](target, *arguments, **named)
        answer = {"value": self._encoded(value)}
        # Arguments that a function changed in place: its caller has to see that.
        after = self._encoded(arguments)
        return answer if after == request["arguments"] else answer | {"arguments": after}

    def _global(self, name: str) -> Json:
        """A name of the program. A module is only named: the tests import their own."""
        if name not in self._namespace:
            return {"missing": True}
        value = self._namespace[name]
        return (
            {"module": value.__name__} if isinstance(value, ModuleType) else {"value": self._encoded(value)}
        )

    def _encoded(self, value: object) -> Json:
        return wire.encode(value, self._handle)

    def _decoded(self, data: Json) -> Any:  # noqa: ANN401 - any value of the tests
        return wire.decode(data, self._objects.__getitem__)

    def _handle(self, value: object) -> int:
        for number, known in enumerate(self._objects):
            if known is value:
                return number
        self._objects.append(value)
        return len(self._objects) - 1


def _raised(error: BaseException) -> Json:
    """The exception as the nearest built-in class; one that is no Exception is the end of a program."""
    try:
        text = str(error)[:500]
    except Exception:  # noqa: BLE001 - a program's own exception may fail to print
        text = ""
    classes = [c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins"]
    return {"raised": classes, "text": f"{text}", "class": type(error).__name__}
