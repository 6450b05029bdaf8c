"""The store is what the API server holds, whatever the watch loses, repeats or reorders."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest

from evaljob.names import LABEL_NAME
from evaljob_operator.api import Answer, ApiError, ForbiddenError, GoneError, Json, UnreachableError
from evaljob_operator.backoff import Backoff
from evaljob_operator.informer import Informer

PATH = "/apis/batch/v1/namespaces/evals/jobs"


def obj(name: str, version: int, value: str = "", owner: str = "nightly") -> Json:
    meta = {
        "name": name,
        "uid": f"uid-{name}",
        "resourceVersion": str(version),
        "labels": {LABEL_NAME: owner},
    }
    return {"metadata": meta, "value": value}


def page(version: int, *items: Json, more: str = "") -> Json:
    return {"metadata": {"resourceVersion": str(version), "continue": more}, "items": list(items)}


def event(kind: str, thing: Json) -> Json:
    return {"type": kind, "object": thing}


Watch = list[list[Json] | ApiError]


class Scripted:
    """Answers lists and watches from a script; when it is used up nothing is answered any more."""

    def __init__(self, lists: list[Json | ApiError], watches: list[Watch]) -> None:
        self.lists, self.watches = lists, watches
        self.asked: list[Mapping[str, str]] = []
        self.watched_from: list[str] = []
        self.done = asyncio.Event()

    async def request(self, *_: object, **__: object) -> Json:
        raise NotImplementedError

    async def each(self, path: str, query: Mapping[str, str], take: Callable[[Json], object]) -> Json:  # noqa: ARG002 - of one collection
        if not self.lists:
            self.done.set()
            await asyncio.Event().wait()
        self.asked.append(dict(query))
        answer = self.lists.pop(0)
        if isinstance(answer, ApiError):
            raise answer
        for obj in answer["items"]:
            take(obj)
        return {"metadata": answer["metadata"]}

    async def dry_run(self, path: str, body: Json) -> Answer:
        raise NotImplementedError

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[list[Json]]:  # noqa: ARG002
        self.watched_from.append(query["resourceVersion"])
        if not self.watches:
            self.done.set()
            await asyncio.Event().wait()
        for batch in self.watches.pop(0):
            if isinstance(batch, ApiError):
                raise batch
            yield batch


Run = Callable[[list[Json | ApiError], list[Watch]], Awaitable[tuple[Informer[str], Scripted]]]


@pytest.fixture
async def woken() -> list[str]:
    return []


@pytest.fixture
async def run(woken: list[str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Run]:
    """Runs an informer until its script is used up."""
    monkeypatch.setattr("evaljob_operator.informer.REDIAL", 0.0)
    monkeypatch.setattr("evaljob_operator.informer.LISTS_APART", 0.0)
    tasks: list[asyncio.Task[None]] = []

    async def start(lists: list[Json | ApiError], watches: list[Watch]) -> tuple[Informer[str], Scripted]:
        api = Scripted(lists, watches)
        backoff = Backoff(lambda: 0.0, 0.001, 0.001)
        informer = Informer[str](api, PATH, {}, lambda o: str(o["value"]), woken.append, backoff)
        tasks.append(asyncio.create_task(informer.run()))
        await asyncio.wait_for(api.done.wait(), 5)
        return informer, api

    yield start
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_list_of_several_pages_is_one_store(run: Run) -> None:
    informer, api = await run([page(10, obj("a", 5), more="next"), page(10, obj("b", 7))], [])
    assert set(informer.of("nightly")) == {"a", "b"}
    assert [q.get("continue") for q in api.asked] == [None, "next"]
    assert all(q["limit"] == "500" for q in api.asked)
    assert api.watched_from == ["10"]
    assert informer.ready.is_set()


async def test_events_change_the_store_and_wake_the_owner(run: Run, woken: list[str]) -> None:
    batch = [
        event("ADDED", obj("a", 11, "new")),
        event("ADDED", obj("x", 12, "", "other")),
        event("DELETED", obj("b", 13)),
    ]
    informer, _ = await run([page(10, obj("b", 5))], [[batch]])
    assert dict(informer.of("nightly")) == {"a": "new"}
    assert woken == ["nightly", "nightly", "other", "nightly"]


async def test_an_older_event_is_dropped(run: Run) -> None:
    stale = [event("MODIFIED", obj("a", 8, "old")), event("DELETED", obj("a", 9))]
    informer, _ = await run([page(10, obj("a", 10, "new"))], [[stale]])
    assert dict(informer.of("nightly")) == {"a": "new"}


async def test_a_watch_goes_on_where_a_broken_one_was(run: Run) -> None:
    bookmark = event("BOOKMARK", {"metadata": {"resourceVersion": "40"}})
    reset = UnreachableError("reset")
    _, api = await run([page(10)], [[[event("ADDED", obj("a", 11))], reset], [[bookmark], reset]])
    assert api.watched_from == ["10", "11", "40"]
    assert len(api.asked) == 1


async def test_an_event_that_was_lost_is_found_when_the_watch_ends(run: Run, woken: list[str]) -> None:
    """A watch ends every five minutes, or when it falls silent."""
    informer, _ = await run([page(10, obj("a", 5)), page(50, obj("a", 20, "ended"))], [[]])
    assert dict(informer.of("nightly")) == {"a": "ended"}
    assert woken == ["nightly", "nightly"]


async def test_watches_that_are_cut_at_once_cost_no_lists(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaljob_operator.informer.LISTS_APART", 30.0)
    _, api = await run([page(10)], [[], [], []])
    assert len(api.asked) == 1


async def test_a_re_list_replaces_the_store_and_tells_of_what_vanished(run: Run, woken: list[str]) -> None:
    """A re-list of kopf keeps such ghosts for ever."""
    lists: list[Json | ApiError] = [
        page(10, obj("a", 5, "1"), obj("b", 6), obj("x", 6, "", "other")),
        page(50, obj("a", 5, "1")),
    ]
    informer, _ = await run(lists, [[GoneError(410, "Expired", "too old")]])
    assert dict(informer.of("nightly")) == {"a": "1"}
    assert dict(informer.of("other")) == {}
    assert sorted(woken[2:]) == ["nightly", "other"]


@pytest.mark.parametrize("code", [410, 500])
async def test_an_error_event_ends_the_watch(run: Run, code: int) -> None:
    failed = event("ERROR", {"code": code, "reason": "Expired", "message": "no"})
    informer, api = await run([page(10), page(60, obj("b", 55))], [[[event("ADDED", obj("a", 11)), failed]]])
    assert api.watched_from == (["10", "60"] if code == 410 else ["10", "11"])
    assert set(informer.of("nightly")) == ({"b"} if code == 410 else {"a"})


async def test_a_broken_connection_is_tried_again_without_a_new_list(run: Run) -> None:
    _, api = await run([page(10)], [[UnreachableError("reset")], [UnreachableError("reset")]])
    assert api.watched_from == ["10", "10", "10"]
    assert len(api.asked) == 1


async def test_an_expired_page_starts_the_list_anew(run: Run) -> None:
    lists: list[Json | ApiError] = [
        page(10, obj("a", 5), more="next"),
        GoneError(410, "Expired", "token"),
        page(20, obj("b", 15)),
    ]
    informer, _ = await run(lists, [])
    assert set(informer.of("nightly")) == {"b"}


async def test_own_writes_are_seen_at_once(run: Run) -> None:
    informer, _ = await run([page(10)], [])
    informer.absorb(obj("a", 11, "made"))
    assert dict(informer.of("nightly")) == {"a": "made"}


async def test_the_answer_to_a_write_does_not_raise_the_dead(run: Run) -> None:
    """The Job was patched (11) and deleted (12), and the watch was quicker than the answer to the patch."""
    informer, _ = await run([page(10, obj("a", 9))], [[[event("DELETED", obj("a", 12))]]])
    informer.absorb(obj("a", 11))
    assert dict(informer.of("nightly")) == {}


async def test_own_deletions_are_seen_at_once_and_what_comes_late_is_not(run: Run, woken: list[str]) -> None:
    """Whatever was on its way when the API server said that it is gone: an event, or an older list."""
    informer, api = await run([page(10, obj("a", 5), obj("b", 6))], [])
    woken.clear()
    informer.vanished("a", "uid-a")
    assert (dict(informer.of("nightly")), woken) == ({"b": ""}, ["nightly"])
    informer._take(event("MODIFIED", obj("a", 11)))  # noqa: SLF001 - the watch
    api.lists = [page(12, obj("a", 11), obj("b", 6))]
    await informer._list()  # noqa: SLF001 - the end of the watch
    assert dict(informer.of("nightly")) == {"b": ""}
    again = obj("a", 14, "made again")
    again["metadata"]["uid"] = "another"
    for told in (event("DELETED", obj("a", 13)), event("ADDED", again)):
        informer._take(told)  # noqa: SLF001 - the watch
    informer.vanished("a", "uid-a")
    assert dict(informer.of("nightly")) == {"b": "", "a": "made again"}


async def test_what_was_written_after_the_list_was_taken_stays(run: Run) -> None:
    informer, api = await run([page(10)], [])
    informer.absorb(obj("a", 30, "made"))
    api.lists, api.watches = [page(20)], []
    await informer._list()  # noqa: SLF001 - the moment between list and watch
    assert dict(informer.of("nightly")) == {"a": "made"}


async def test_versions_that_are_no_numbers_are_believed(run: Run) -> None:
    thing = obj("a", 0, "new")
    thing["metadata"]["resourceVersion"] = "x7f"
    informer, api = await run(
        [page(10, obj("a", 5))], [[[event("MODIFIED", thing)], UnreachableError("reset")]]
    )
    assert dict(informer.of("nightly")) == {"a": "new"}
    assert api.watched_from[-1] == "x7f"


async def test_one_odd_object_does_not_blind_us_to_the_others(run: Run) -> None:
    odd = obj("odd", 6)
    del odd["value"]
    informer, _ = await run(
        [page(10, odd, obj("a", 7))], [[[event("MODIFIED", odd), event("ADDED", obj("b", 11))]]]
    )
    assert set(informer.of("nightly")) == {"a", "b"}


async def test_what_is_forgotten_comes_back_with_the_next_change(run: Run, woken: list[str]) -> None:
    informer, _ = await run([page(10, obj("a", 5, "over"), obj("b", 6))], [])
    woken.clear()
    informer.forget("nightly", lambda value: value == "over")
    assert dict(informer.of("nightly")) == {"b": ""}
    informer.absorb(obj("a", 11, "changed"))
    assert dict(informer.of("nightly")) == {"b": "", "a": "changed"}
    assert woken == ["nightly"]


NO_RIGHT = ForbiddenError(403, "Forbidden", 'User "x" cannot list resource "jobs"')


@pytest.mark.parametrize("lost", ["list", "watch"])
async def test_a_right_that_is_lost_is_known_and_wakes_the_owner(
    run: Run, woken: list[str], lost: str
) -> None:
    first = page(10, obj("a", 5))
    more: list[Json | ApiError] = [NO_RIGHT] * 3 if lost == "list" else []
    watches: list[Watch] = [[]] if lost == "list" else [[NO_RIGHT], [NO_RIGHT]]
    informer, _ = await run([first, *more], watches)
    assert informer.refused is NO_RIGHT
    assert woken == ["nightly", "nightly"]
    assert set(informer.of("nightly")) == {"a"}


@pytest.mark.parametrize("back", ["list", "watch"])
async def test_a_right_that_is_back_is_known_too(run: Run, woken: list[str], back: str) -> None:
    first = page(10, obj("a", 5))
    if back == "list":
        informer, _ = await run([first, NO_RIGHT, first], [[]])
    else:
        informer, _ = await run([first], [[NO_RIGHT], [[event("BOOKMARK", obj("", 11))]]])
    assert informer.refused is None
    assert woken == ["nightly"] * 3
