"""What people see is one line each, never cut, never interpreted."""

from __future__ import annotations

import pytest

from medgen import console
from medgen.errors import RecipeError


def test_each_problem_is_one_line_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.fail(RecipeError(["[bold]x :smile: " + "long " * 100 + "end", "a\x1b[31m\nb\u202e"]))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"medgen: [bold]x :smile: {'long ' * 100}end\nmedgen: a\\x1b[31m\\nb\\u202e\n"


def test_lines_on_stdout_are_not_cut_at_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("word " * 100)
    assert capsys.readouterr().out.count("\n") == 1


def test_progress_in_a_log_is_a_line_each_tenth_with_fixed_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("demo patients", 30) as bar:
        for _ in range(30):
            bar.advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("demo patients   3/30   10%  00:00 elapsed  00:00 left")
    assert lines[-1].startswith("demo patients  30/30  100%")


def test_progress_can_learn_its_total_as_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("slice store", unit="patients") as bar:
        bar.update(1, 2)
        bar.update(2, 2)
    assert [line[:33] for line in capsys.readouterr().err.splitlines()] == [
        "slice store  1/2 patients   50%  ",
        "slice store  2/2 patients  100%  ",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00"), (59.6, "01:00"), (3599, "59:59"), (3661, "1:01:01")])
def test_durations_read_as_clocks(seconds: float, text: str) -> None:
    assert console.clock(seconds) == text
