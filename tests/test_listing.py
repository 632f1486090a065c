"""What `medgen plugins show` prints of a plugin can be pasted into a recipe.

Covers: medgen.cli.listing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import tomli
from conftest import Result

from medgen.api.settings import fields
from medgen.api.structure import structure
from medgen.config.entries import Entry
from medgen.config.recipe import load, to_toml
from medgen.config.registry import Registry
from medgen.errors import RecipeError

NO_TABLES = ("features", "segmenters", "weights")
"""Kinds of plugins that are no table of a recipe."""
BUILT_IN = [
    entry
    for entry in Registry.load().entries
    if entry.distribution == "medgen" and entry.kind != "weights"
]
RECIPES = {
    "strategy.vae": "vae_bravo",
    "mode.insert": "insert_rflow",
    "network.autoencoder": "vae_bravo",
    "network.dct_autoencoder": "vae_bravo",
    "losses.adversarial": "vae_bravo",
    "losses.kl": "vae_bravo",
    "losses.min_snr": "seg_ddpm",
    "space.latent": "bravo_rflow_latent",
    "callbacks.progressive_vae": "vae_progressive",
}
"""Recipes in which plugins fit that do not fit every other."""

REQUIRED = {"images": '["bravo"]', "checkpoint": "made-up"}
"""Values for keys that have no default."""


def key_of(entry: Entry) -> str:
    return entry.name if entry.kind == "tables" else f"{entry.kind}.{entry.name}"


def block_of(entry: Entry, medgen: Callable[..., Result]) -> str:
    """The block of a plugin, of several of one name."""
    blocks = re.split(
        rf"^(?=# \w+ {entry.name}, from )", medgen("plugins", "show", entry.name).out, flags=re.M
    )
    [block] = [each for each in blocks if each.startswith(f"# {entry.kind} ")]
    return block


@pytest.mark.parametrize("entry", BUILT_IN, ids=key_of)
def test_the_block_of_every_built_in_is_toml_of_one_line_a_key_that_loads(
    entry: Entry, medgen: Callable[..., Result], tmp_path: Path
) -> None:
    block, path = block_of(entry, medgen), tmp_path / "x.toml"
    table = tomli.loads(block)
    for name in key_of(entry).split("."):
        assert list(table) == [name]
        table = table[name]
    given = [
        each.name
        for each in fields(entry.settings_class)
        if each.default not in (None, attrs.NOTHING)
    ]
    assert sorted(table) == sorted(given)
    path.write_text(f'extends = "{RECIPES.get(key_of(entry), "dual_rflow")}"\n{block}')
    assert all(each.startswith(("[", "#")) or " = " in each for each in block.splitlines() if each)
    needs = [each.name for each in fields(entry.settings_class) if each.default is attrs.NOTHING]
    if entry.kind in NO_TABLES:
        assert not structure(
            table | {name: REQUIRED[name] for name in needs}, entry.settings_class
        )[1]
        return
    assert load(path, [f"{key_of(entry)}.{name}={REQUIRED[name]}" for name in needs])


def test_a_table_in_a_table_is_shown_with_what_each_of_its_keys_means(
    medgen: Callable[..., Result], tmp_path: Path
) -> None:
    block = medgen("plugins", "show", "vae").out
    assert "[strategy.vae.discriminator]" in block.splitlines()
    assert "betas = [0.5, 0.9] " in block
    (tmp_path / "x.toml").write_text(f'extends = "vae_bravo"\n{block}')
    shown = to_toml(load(tmp_path / "x.toml"))
    changed = to_toml(load(tmp_path / "x.toml", ["strategy.vae.discriminator.channels=32"]))
    assert (shown.count("channels = 64\n"), changed.count("channels = 32\n")) == (1, 1)


def test_a_block_with_a_wrong_value_is_refused(
    medgen: Callable[..., Result], tmp_path: Path
) -> None:
    block = medgen("plugins", "show", "vae").out.replace("betas = [0.5, 0.9]", "betas = [0.5, 1.9]")
    (tmp_path / "x.toml").write_text(f'extends = "vae_bravo"\n{block}')
    with pytest.raises(RecipeError, match=r"discriminator\.betas"):
        load(tmp_path / "x.toml")


def test_of_weights_the_settings_that_may_name_them_are_shown(
    medgen: Callable[..., Result],
) -> None:
    shown = medgen("plugins", "show", "brain").out
    assert 'space.latent.checkpoint = "brain"' in shown.splitlines()
