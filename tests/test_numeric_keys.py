"""A number in a recipe may be set to anything: it is accepted, or refused in one line that names its key.

Covers: medgen.api.tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli
import torch
from conftest import Result
from faults.variants import AUTOENCODER, SMALL

from medgen.config.recipe import load, to_toml
from medgen.config.registry import Registry
from medgen.errors import OutOfMemoryError, RecipeError, exit_code_of
from medgen.training.phases import recipes

REGISTRY = Registry.load()
RECIPES = ("vae_progressive", "vae_bravo", "seg_ddpm", "bravo_rflow", "dual_rflow")
UNSET = {
    "vae_bravo": (
        "network.autoencoder.norm_groups",
        "strategy.vae.discriminator.layers",
    ),
    "bravo_rflow": ("network.unet.norm_groups", "network.unet.head_channels"),
}
"""Numbers that a resolved recipe lacks, as nothing is their default."""
VALUES = (
    "0",
    "-1",
    "nan",
    "inf",
    "-inf",
    "1e-300",
    "1e300",
    str(2**63 - 1),
    str(2**63),
    str(10**30),
    "true",
    '"x"',
)
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
        for key in UNSET.get(recipe, ()):
            yield pytest.param(recipe, key, [], id=f"{recipe}-{key}")


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
        [line] = error.lines
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


STEPS = {
    "vae_bravo": (
        "strategy.vae.discriminator.betas=[0, 0.9]",
        "strategy.vae.discriminator.learning_rate=1e30",
        "losses.kl.weight=1e30",
    ),
    "seg_ddpm": ("strategy.ddpm.beta_start=1e-300", "strategy.ddpm.beta_end=1e30"),
    "bravo_rflow": (
        "strategy.rflow.logit_std=1e-300",
        "strategy.rflow.logit_mean=-1e30",
        "strategy.rflow.shift=1e30",
        "network.unet.channels=[1000000, 8]",
        "training.learning_rate=1e30",
        "training.clip=1e-300",
        f"training.warmup_steps={2**63 - 1}",
        f"callbacks.ema.warmup={2**63 - 1}",
    ),
}
"""The largest and smallest numbers that are accepted and take part in a step."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "setting"), [(recipe, each) for recipe in STEPS for each in STEPS[recipe]]
)
def test_a_step_with_an_extreme_number_that_is_accepted_is_no_bug(
    recipe: str, setting: str, medgen: Callable[..., Result], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    small = (*SMALL, *AUTOENCODER) if recipe == "vae_bravo" else ()
    short = (
        "training.steps=1",
        "training.epoch_steps=1",
        "training.val_batches=1",
        f"run.dir={tmp_path}/run",
    )
    assert mistake(recipe, *setting.split("=")) is None
    ended = medgen("train", recipe, "--with", "fast_debug", *tiny, *small, *short, setting)
    assert ended.code in (0, 6, 7), ended.err
    assert "bug in medgen" not in ended.err


def test_an_accepted_number_may_be_too_large_for_memory_and_is_told_as_that() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, 2**4)
    assert exit_code_of(caught.value) == OutOfMemoryError.exit_code
    assert exit_code_of(RuntimeError("shapes do not match")) == 1


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
        ("network.unet.norm_groups=1000000", "expected an integer from 1 to 1024."),
    ],
)
def test_an_integer_that_is_too_large_is_told_the_bound(
    setting: str, told: str, medgen: Callable[..., Result]
) -> None:
    ended = medgen("train", "bravo_rflow", setting)
    assert ended.code == 2
    [line] = ended.err.splitlines()
    assert line.startswith(f"medgen: command line: {setting.partition('=')[0]}: got ")
    assert line.endswith(told)
