"""A table becomes a settings object strictly, or every mistake in it is told.

Covers: medgen.api.conditions, medgen.api.field_types, medgen.api.messages, medgen.api.structure.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from medgen.api.conditions import Check, between, ge, gt, le, one_of
from medgen.api.messages import as_toml, did_you_mean
from medgen.api.settings import field, fields, settings, unstructure
from medgen.api.structure import structure


@settings
class Inner:
    low: int = field(1, check=ge(1))
    note: str | None = field(None)


@settings
class Outer:
    count: int = field(3, help="how many", check=gt(0))
    share: float = field(0.5, check=between(0, 1))
    free: float = field(0.0)
    shift: float = field(0.0, check=le(1))
    flag: bool = field(False)
    text: str = field("")
    path: Path = field(Path("a"))
    fall: str = field("cosine", check=one_of("cosine", "linear"))
    layout: Literal["auto", "channels_last"] = field("auto")
    widths: tuple[int, ...] = field((8, 16), check=gt(0))
    labels: list[int] = field([])
    by_name: dict[str, Inner] = field({})
    inner: Inner = field(Inner())
    maybe: int | None = field(None)
    either: str | list[str] = field("a")


@settings
class Required:
    images: tuple[str, ...] = field(help="what")


def wrong(key: str, value: Any) -> list[str]:
    made, problems = structure({key: value}, Outer, "kind.name")
    assert made is None
    return [str(problem).removeprefix("kind.name.") for problem in problems]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("count", True, "count: got true, expected an integer greater than 0."),
        ("count", 3.0, "count: got 3.0, expected an integer greater than 0."),
        ("count", "3", 'count: got "3", expected an integer greater than 0.'),
        ("count", 0, "count: got 0, expected an integer greater than 0."),
        (
            "count",
            2**63,
            "count: got 9223372036854775808, expected an integer of at most 9223372036854775807.",
        ),
        ("share", "0.1", 'share: got "0.1", expected a number from 0 to 1.'),
        ("share", True, "share: got true, expected a number from 0 to 1."),
        ("share", 2, "share: got 2, expected a number from 0 to 1."),
        ("share", float("nan"), "share: got nan, expected a number from 0 to 1."),
        ("free", float("inf"), "free: got inf, expected a number."),
        ("shift", 1.5, "shift: got 1.5, expected a number of at most 1."),
        ("flag", 1, "flag: got 1, expected true or false."),
        ("text", 3, "text: got 3, expected a string."),
        ("path", 3, "path: got 3, expected a path."),
        ("path", "a\0b", 'path: got "a\\u0000b", expected a path.'),
        (
            "path",
            "$MEDGEN_NO_SUCH/a",
            'path: got "$MEDGEN_NO_SUCH/a", expected a path, but $MEDGEN_NO_SUCH is not set.',
        ),
        (
            "fall",
            "cosin",
            'fall: got "cosin", expected one of "cosine", "linear". Did you mean cosine?',
        ),
        ("fall", 3, 'fall: got 3, expected one of "cosine", "linear".'),
        (
            "layout",
            "channel_last",
            'expected one of "auto", "channels_last". Did you mean channels_last?',
        ),
        ("widths", 8, "widths: got 8, expected a list of integers greater than 0."),
        ("widths", [8, "16"], 'widths[1]: got "16", expected an integer.'),
        ("widths", [8, 0], "widths[1]: got 0, expected a value greater than 0."),
        ("labels", "12", 'labels: got "12", expected a list of integers.'),
        ("by_name", [], "by_name: got [], expected a table."),
        (
            "by_name",
            {"a b": {"low": 0}},
            'by_name."a b".low: got 0, expected an integer of at least 1.',
        ),
        ("by_name", {"a": 1}, "by_name.a: got 1, expected a table."),
        ("inner", {"lo": 1}, "inner.lo: no such key. Did you mean low?"),
        ("inner", {"note": 1}, "inner.note: got 1, expected a string."),
        ("maybe", "3", 'maybe: got "3", expected an integer.'),
        ("either", ["a", 1], "either[1]: got 1, expected a string."),
        ("either", 1, "either: got 1, expected a string or a list of strings."),
        ("cuont", 3, "cuont: no such key. Did you mean count?"),
        ("zzz", 3, "zzz: no such key, expected one of the keys count, share,"),
    ],
)
def test_a_wrong_value_is_told_with_its_path_what_was_given_and_what_was_expected(
    key: str, value: Any, message: str
) -> None:
    [told] = wrong(key, value)
    assert message in told


def test_every_mistake_of_a_table_is_told_at_once() -> None:
    table = {
        "count": True,
        "share": 2.0,
        "widths": [0, "1"],
        "inner": {"low": "x", "lo": 1},
        "cuont": 1,
    }
    _, problems = structure(table, Outer)
    assert {str(problem.where) for problem in problems} == {
        "count",
        "share",
        "widths[1]",
        "inner.low",
        "inner.lo",
        "cuont",
    }


def test_a_key_without_a_default_must_be_given() -> None:
    made, [problem] = structure({}, Required, "mode.images")
    assert made is None
    assert (
        str(problem) == "mode.images.images: missing, expected a list of strings. Give it a value."
    )


def test_an_integer_is_a_fine_number_and_becomes_a_float() -> None:
    made, _ = structure({"free": 3}, Outer)
    assert made is not None
    assert type(made.free) is float


def test_home_and_variables_are_expanded_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("SCANS", "scans")
    assert structure({"path": "~/$SCANS/${SCANS}"}, Outer)[0] == Outer(
        path=Path("/home/ada/scans/scans")
    )


def test_what_is_written_reads_to_an_equal_object() -> None:
    full = Outer(
        widths=(1, 2),
        by_name={"a": Inner(low=2, note="x")},
        maybe=4,
        either=["a"],
        path=Path("b/c"),
    )
    assert structure(unstructure(full), Outer) == (full, [])


def test_none_is_left_out_and_paths_can_be_emptied() -> None:
    plain = unstructure(Outer(), paths=False)
    assert "maybe" not in plain
    assert plain["path"] == ""
    assert unstructure(Outer())["path"] == "a"


def test_defaults_that_are_lists_or_tables_are_not_shared() -> None:
    Outer().labels.append(1)
    assert Outer().labels == []


def test_checks_hold_for_objects_made_in_python_too() -> None:
    @settings
    class Fresh:
        """Its types are names still, as no table was read."""

        size: int = field(3, check=gt(0))

    with pytest.raises(ValueError, match=r"^size: got 0, expected an integer greater than 0\.$"):
        Fresh(size=0)


def test_fields_tell_people_what_there_is() -> None:
    first = fields(Outer)[0]
    assert first == ("count", int, "an integer greater than 0", 3, "how many")


@settings
class Pair:
    both: tuple[float, float] = field((0.5, 0.9))


@pytest.mark.parametrize("given", [[], [0.1], [0.1, 0.2, 0.3]])
def test_a_tuple_of_two_takes_no_other_number_of_values(given: list[float]) -> None:
    made, [problem] = structure({"both": given}, Pair, "pair")
    assert made is None
    assert str(problem) == f"pair.both: got {given}, expected a list of 2 numbers."
    assert structure({"both": [0, 1]}, Pair)[0] == Pair(both=(0.0, 1.0))


def test_a_class_that_refuses_its_values_is_told_like_any_other_mistake() -> None:
    @settings
    class Picky:
        a: int = field(1)

        def __attrs_post_init__(self) -> None:
            raise ValueError("no.")

    assert [str(each) for each in structure({}, Picky, "losses.picky")[1]] == ["losses.picky: no."]


def test_a_check_of_ones_own_is_a_test_and_a_phrase() -> None:
    @settings
    class Even:
        size: int = field(2, check=Check(lambda size: size % 2 == 0, "that is even"))

    assert (
        str(structure({"size": 3}, Even)[1][0]) == "size: got 3, expected an integer that is even."
    )


def test_values_in_messages_are_short_whatever_they_are() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    for huge in ("x" * 1000, 10**5000, deep, {"a": list(range(1000))}):
        assert len(as_toml(huge)) <= 80


def test_a_likely_name_is_found_whatever_its_case_and_only_if_it_is_near() -> None:
    assert did_you_mean("EPOCH", ["epochs", "steps"]) == "Did you mean epochs?"
    assert did_you_mean("zzz", ["epochs", "steps"]) == ""
