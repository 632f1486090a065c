"""What people see is one line each, never cut, never interpreted."""

from __future__ import annotations

import pytest

from medgen.errors import Problem, RecipeError
from medgen.system import console


def test_each_problem_is_one_line_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.fail(
        RecipeError(
            Problem("", "[bold]x :smile: " + "long " * 100 + "end"),
            Problem("", "a\x1b[31m\nb\u202e"),
        )
    )
    printed = capsys.readouterr()
    assert printed.out == ""
    assert (
        printed.err
        == f"medgen: [bold]x :smile: {'long ' * 100}end.\nmedgen: a\\x1b[31m\\nb\\u202e.\n"
    )


def test_lines_on_stdout_are_not_cut_at_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("word " * 100)
    assert capsys.readouterr().out.count("\n") == 1


class Clock:
    """A clock that goes on only when told."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


def test_progress_in_a_log_is_a_line_each_tenth_with_fixed_fields(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with console.progress("demo patients", 30) as bar:
        for _ in range(30):
            clock.now += 2
            bar.advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("demo patients   3/30   10%  00:06 elapsed  00:54 left")
    assert lines[-1].startswith("demo patients  30/30  100%")


def test_progress_in_a_log_is_a_line_a_second_at_most(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with console.progress("pairs", 8) as bar:
        for _ in range(8):
            bar.advance()
    assert capsys.readouterr().err.splitlines() == ["pairs  8/8  100%  00:00 elapsed  00:00 left"]


def test_what_was_there_before_tells_nothing_of_the_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with console.progress("pairs", 1000) as bar:
        bar.advance(800)
        clock.now = 60
        bar.advance(100)
    assert capsys.readouterr().err == "pairs   900/1000   90%  01:00 elapsed  01:00 left\n"


def test_progress_can_learn_its_total_as_it_goes(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with console.progress("slice store", unit="patients") as bar:
        for done in (1, 2):
            clock.now += 1
            bar.update(done, 2)
    assert [line[:33] for line in capsys.readouterr().err.splitlines()] == [
        "slice store  1/2 patients   50%  ",
        "slice store  2/2 patients  100%  ",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "00:00"), (59.6, "01:00"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_durations_read_as_clocks(seconds: float, text: str) -> None:
    assert console.clock(seconds) == text
