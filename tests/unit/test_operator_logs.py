"""Log lines: JSON with keys, and nothing of others' that could forge or steer."""

import asyncio
import json
import logging
import sys
from typing import Any

from evaljob_operator.logs import JsonLines, concerning

HOSTILE = 'a\n{"level":"INFO","message":"forged"}\r\x1b[31m\x00\x7f\x9b2J\u202eend\ud800'


def line(message: str, *args: object, **extra: object) -> dict[str, Any]:
    record = logging.makeLogRecord(
        {"name": "evaljob_operator.x", "levelname": "WARNING", "msg": message, "args": args, **extra}
    )
    text = JsonLines().format(record)
    assert text.isascii()
    assert text.isprintable()
    found: dict[str, Any] = json.loads(text)
    return found


def test_keys() -> None:
    found = line("%s: %s", "evals/nightly", "gone", created=0.5, partition="m/d 0/2")
    assert found == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "level": "WARNING",
        "logger": "evaljob_operator.x",
        "message": "evals/nightly: gone",
        "partition": "m/d 0/2",
    }


def test_a_hostile_message_stays_one_line_and_steers_no_terminal() -> None:
    assert line("%s", HOSTILE, partition=HOSTILE)["message"] == HOSTILE


def test_a_traceback_is_a_key() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        found = line("unexpected", exc_info=sys.exc_info())
    assert "Traceback" in found["exception"]
    assert "forged" in found["exception"]


async def test_each_task_has_its_own_evaljob_and_tasks_below_it_inherit_it() -> None:
    async def below() -> str:
        return str(line("x").get("evaljob"))

    async def task(name: str) -> str:
        concerning(name)
        await asyncio.sleep(0)
        return await asyncio.create_task(below())

    assert list(await asyncio.gather(task("a/one"), task("b/two"))) == ["a/one", "b/two"]
    assert "evaljob" not in line("x")
