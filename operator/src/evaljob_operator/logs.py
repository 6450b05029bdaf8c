"""Log lines: one JSON object per record, whatever names and messages of others hold."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

_about: ContextVar[str] = ContextVar("about", default="")
"""The EvalJob that the current task is about. Tasks that it starts inherit it, so that no line needs to be told."""
_CHATTY = ("aiohttp.access", "kopf")


def concerning(evaljob: str) -> None:
    """From now on lines of this task, and of those that it starts, carry the key `evaljob`: `namespace/name`."""
    _about.set(evaljob)


class JsonLines(logging.Formatter):
    """Keys: time (RFC 3339), level, logger, message; where known evaljob, partition; exception with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII without control characters: a name cannot forge a line or steer a terminal."""
        known = {"evaljob": _about.get(), "partition": getattr(record, "partition", "")}
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{key: value for key, value in known.items() if value},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # JSON escapes all but DEL.
        return json.dumps(line).replace("\x7f", "\\u007f")


def to(stream: TextIO, level: str) -> None:
    """Send everything from a level on to a stream; libraries that tell each request only their warnings."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler])
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
