"""A number in a recipe may be set to anything: it is accepted, or refused in one line that names its key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tomli
from conftest import Result

from medgen.config.recipe import load, to_toml
from medgen.config.registry import Registry
from medgen.errors import RecipeError
from medgen.training.phases import recipes

REGISTRY = Registry.load()
RECIPES = ("vae_progressive", "vae_bravo", "seg_ddpm", "bravo_rflow", "dual_rflow")
VALUES = ("0", "-1", "nan", "inf", "-inf", "1e-300", "1e300", str(2**63 - 1), str(2**63), str(10**30), "true", '"x"')
VALUES += ("[]", "{}")


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def numeric_keys(table: dict[str, Any], above: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Keys that are numbers or lists of them, each with the list, if it is one."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from numeric_keys(value, f"{above}{name}.")
        elif is_number(value):
            yield f"{above}{name}", []
        elif isinstance(value, list) and value and all(map(is_number, value)):
            yield f"{above}{name}", value


def cases() -> Iterator[Any]:
    """Every key of every recipe; those that an earlier recipe has too are slow ones."""
    seen = set[str]()
    for recipe in RECIPES:
        for key, members in numeric_keys(tomli.loads(to_toml(load(recipe, registry=REGISTRY)))):
            marks = [pytest.mark.slow] if key in seen else []
            yield pytest.param(recipe, key, members, marks=marks, id=f"{recipe}-{key}")
            seen.add(key)


def values(members: list[Any]) -> Iterator[str]:
    """What a key is set to; of a list, also its first member."""
    yield from VALUES
    if members:
        yield from (f"[{', '.join([value, *map(str, members[1:])])}]" for value in VALUES)


def mistake(recipe: str, key: str, value: str) -> str | None:
    """The one line with which a recipe is refused, or None if all its checks accept it."""
    try:
        recipes(load(recipe, [f"{key}={value}"], registry=REGISTRY))
    except RecipeError as error:
        [line] = error.problems
        return line
    return None


@pytest.mark.parametrize(("recipe", "key", "members"), cases())
def test_a_number_is_accepted_or_refused_in_one_line_that_names_its_key(
    recipe: str, key: str, members: list[Any]
) -> None:
    for value in values(members):
        line = mistake(recipe, key, value)
        assert line is None or f"{key}" in line, value
    for value in ("true", '"x"', "nan"):
        assert mistake(recipe, key, value), f"{value} is no number"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (f"training.steps={10**30}", f"expected an integer of at most {2**63 - 1}."),
        (f"run.seed={2**70}", f"expected an integer of at most {2**63 - 1}."),
        (f"data.image_size={10**9}", "expected an integer from 8 to 4096."),
        (f"data.image_size={10**30}", "expected an integer from 8 to 4096."),
        (f"training.batch_size={10**9}", "expected an integer from 1 to 1000000."),
        (f"training.devices={10**9}", "expected an integer from 1 to 1024."),
        ("network.unet.num_res_blocks=1000000", "expected an integer from 1 to 100."),
    ],
)
def test_an_integer_that_is_too_large_is_told_the_bound(setting: str, told: str, medgen: Callable[..., Result]) -> None:
    ended = medgen("train", "bravo_rflow", setting)
    assert ended.code == 2
    [line] = ended.err.splitlines()
    assert line.startswith(f"medgen: command line: {setting.partition('=')[0]}: got ")
    assert line.endswith(told)
