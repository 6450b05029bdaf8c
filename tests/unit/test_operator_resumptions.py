"""Jobs that somebody else suspends."""

import itertools

from evaljob.decide import Suspension
from evaljob.observe import Observation, Observed, Phase
from evaljob.plan import Partition
from evaljob_operator.resumptions import Resumptions
from tests.unit.builders import NOW, job_view, later

RESUME = Suspension("job", "job-1", suspend=False)
HELD = Observation(Partition("m", "d", 0, 1), Phase.PENDING, job_view(suspended=True))


def reason(of: Resumptions, seen: Observation = HELD) -> str:
    (overlaid,) = of.overlay(Observed((seen,))).observations
    return overlaid.waiting.reason if overlaid.waiting else ""


def resumed(times: int) -> Resumptions:
    """At once after each suspension."""
    made = Resumptions()
    for second in range(times):
        made.due([RESUME], later(2**second))
    return made


def test_a_job_that_is_suspended_again_and_again_is_resumed_less_and_less_often() -> None:
    """About once a second, for ever, it was."""
    resumptions = Resumptions()
    seconds = [s for s in range(7200) if resumptions.due([RESUME], later(s))[0]]
    assert seconds[:10] == [0, 1, 3, 7, 15, 31, 63, 127, 255, 511]
    assert {b - a for a, b in itertools.pairwise(seconds[9:])} == {300}


def test_it_goes_on_for_days() -> None:
    resumptions = Resumptions()
    written = [bool(resumptions.due([RESUME], later(s))[0]) for s in range(0, 7 * 86400, 300)]
    assert all(written)


def test_the_next_look_is_when_it_may_be_resumed() -> None:
    resumptions = resumed(3)
    assert resumptions.due([RESUME], later(5)) == ([], 3)
    assert Resumptions().due([], NOW) == ([], None)


def test_others_are_not_held_back_by_it() -> None:
    other = Suspension("other", "job-2", suspend=False)
    assert resumed(5).due([RESUME, other], later(17)) == ([other], 15)


def test_we_suspend_at_once_and_then_begin_anew() -> None:
    resumptions, suspend = resumed(5), Suspension("job", "job-1", suspend=True)
    assert resumptions.due([suspend], later(17)) == ([suspend], None)
    resumptions.forget()
    assert reason(resumptions) == ""
    assert resumptions.due([RESUME], later(17)) == ([RESUME], None)


def test_it_is_told_while_it_is_held() -> None:
    assert [reason(resumed(times)) for times in (1, 2, 3)] == ["", "", "SuspendedByOthers"]
    assert reason(resumed(3), Observation(HELD.partition, Phase.PENDING, job_view("new", uid="job-2"))) == ""
    running = Observation(HELD.partition, Phase.RUNNING, job_view(ready=1))
    assert reason(resumed(9), running) == ""
