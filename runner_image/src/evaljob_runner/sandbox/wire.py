"""Values on the pipe between a program and its tests: JSON lines of plain data, never pickles.

What arrives is rebuilt from Python's own types, whatever the other side is: an object that claims to equal
everything cannot cross, it stays behind as a handle. Subclasses of a plain type cross as that type.
Standard library only: the confined processes import this.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

LINE_MAX = 8 * 1024 * 1024
"""Bytes of one message: what a program answers must not fill the memory of its tests."""
_SAFE_INTEGER = 2**53
Json = Any
Opaque = Callable[[object], int]
"""Object that is no data -> the number of its handle."""
Resolve = Callable[[int], object]
"""Number of a handle -> what stands for the object on this side."""


def new_module(name: str) -> dict[str, Any]:
    """The namespace of a fresh module: dataclasses and type hints look their module up."""
    module = sys.modules[name] = ModuleType(name)
    return vars(module)


class ClosedError(Exception):
    """The other side ended, or sent what is no message."""


class Pipe:
    """Messages over a pair of file descriptors.

    Args:
        reading: from the other side.
        writing: to the other side.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self._in = os.fdopen(reading, "rb")
        self._out = writing

    def send(self, message: Json) -> None:
        """Write one message.

        Raises:
            ClosedError: when it is too large or nobody reads.
            ValueError, RecursionError: when it is no JSON.
        """
        data = memoryview(json.dumps(message).encode() + b"\n")
        if len(data) > LINE_MAX:
            raise ClosedError(f"a value of more than {LINE_MAX} bytes")
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except OSError as error:
            raise ClosedError("it ended") from error

    def receive(self) -> Json:
        """The next message.

        Raises:
            ClosedError: when there is none.
        """
        line = self._in.readline(LINE_MAX + 1)
        if not line.endswith(b"\n"):
            raise ClosedError(
                "it ended" if len(line) <= LINE_MAX else f"a value of more than {LINE_MAX} bytes"
            )
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ClosedError("what it sent is no message") from error


def encode(value: object, opaque: Opaque) -> Json:
    """A value as JSON: itself, or an object with one key that names its type."""
    if value is None or isinstance(value, bool):
        return value
    for kind, to_json in _PLAIN.items():
        # Not isinstance: an object may claim a class.
        if issubclass(type(value), kind):
            return to_json(value, lambda items: [encode(item, opaque) for item in items])
    for name, (module, to_data, _) in _LIBRARY.items():
        # A value of a module that was never imported cannot exist.
        if type(value) is getattr(sys.modules.get(module), name, None):
            return {name: to_data(value)}
    return {"handle": opaque(value)}


def _integer(value: int, _nested: object) -> Json:
    number = int.__int__(value)
    return number if -_SAFE_INTEGER < number < _SAFE_INTEGER else {"int": hex(number)}


_PLAIN: dict[type, Callable[[Any, Callable[[Iterable[object]], Json]], Json]] = {
    str: lambda v, _: str.__str__(v),
    int: _integer,
    float: lambda v, _: float.__float__(v),
    list: lambda v, nested: nested(list.__iter__(v)),
    tuple: lambda v, nested: {"tuple": nested(tuple.__iter__(v))},
    dict: lambda v, nested: {"dict": [nested(pair) for pair in dict.items(v)]},
    set: lambda v, nested: {"set": nested(set.__iter__(v))},
    frozenset: lambda v, nested: {"frozenset": nested(frozenset.__iter__(v))},
    bytes: lambda v, _: {"bytes": bytes.hex(v)},
    bytearray: lambda v, _: {"bytearray": bytearray.hex(v)},
    complex: lambda v, _: {"complex": [v.real, v.imag]},
    range: lambda v, nested: {"range": nested((v.start, v.stop, v.step))},
}
"""Python's own types, and how each is written; methods of the type itself, so that no subclass has a say."""


def decode(data: Json, resolve: Resolve) -> Any:  # noqa: ANN401 - any value
    """The value back.

    Raises:
        Exception: when it is none; the sender may be anybody.
    """
    if isinstance(data, list):
        return [decode(item, resolve) for item in data]
    if not isinstance(data, dict):
        return data
    ((name, content),) = data.items()
    if name == "handle":
        return resolve(int(content))
    if name in _BACK:
        return _BACK[name](decode(content, resolve))
    module, _, back = _LIBRARY[name]
    return back(getattr(__import__(module), name), content)


_BACK: dict[str, Callable[[Any], object]] = {
    "int": lambda digits: int(digits, 16),
    "tuple": tuple,
    "dict": dict,
    "set": set,
    "frozenset": frozenset,
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "complex": lambda parts: complex(*parts),
    "range": lambda parts: range(*parts),
}
_LIBRARY: dict[str, tuple[str, Callable[[Any], Json], Callable[[Any, Json], object]]] = {
    "Decimal": ("decimal", str, lambda kind, data: kind(data)),
    "Fraction": ("fractions", str, lambda kind, data: kind(data)),
    "datetime": ("datetime", lambda v: v.isoformat(), lambda kind, data: kind.fromisoformat(data)),
    "date": ("datetime", lambda v: v.isoformat(), lambda kind, data: kind.fromisoformat(data)),
    "time": ("datetime", lambda v: v.isoformat(), lambda kind, data: kind.fromisoformat(data)),
    "timedelta": (
        "datetime",
        lambda v: [v.days, v.seconds, v.microseconds],
        lambda kind, data: kind(*data),
    ),
}
"""Types of the standard library that are data: module, to JSON, and back."""
