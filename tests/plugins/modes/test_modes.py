"""What each mode generates, given what.

Covers: medgen.api.values, medgen_builtins.modes.bravo, medgen_builtins.modes.dual, medgen_builtins.modes.flair,
medgen_builtins.modes.images, medgen_builtins.modes.seg, medgen_builtins.modes.t1_gd, medgen_builtins.modes.t1_pre.
"""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest
from medgen_builtins.modes.bravo import Bravo
from medgen_builtins.modes.images import Images

from medgen.api.values import Mode

CHANNELS = [
    ("seg", ("seg",), ()),
    ("bravo", ("bravo",), ("seg",)),
    ("dual", ("t1_pre", "t1_gd"), ("seg",)),
    ("t1_pre", ("t1_pre",), ("seg",)),
    ("t1_gd", ("t1_gd",), ("seg",)),
    ("flair", ("flair",), ("seg",)),
]


@pytest.mark.parametrize(("name", "images", "condition"), CHANNELS)
def test_channels(name: str, images: tuple[str, ...], condition: tuple[str, ...]) -> None:
    """Each mode, registered under the name of its file, has the channels of the design's table."""
    module = importlib.import_module(f"medgen_builtins.modes.{name}")
    assert module.medgen_modes()[name]().build() == Mode(images, condition)


def test_condition_by_label() -> None:
    """A mode may be given several masks instead of one."""
    mode = Bravo(condition=("tumour", "core")).build()
    assert mode.names == ("bravo", "tumour", "core")


def test_any_images() -> None:
    """`images` takes any names, as channels of one sample or pooled as samples of one channel."""
    assert Images(images=("a", "b"), condition=("c",)).build() == Mode(("a", "b"), ("c",))
    assert Images(images=("a", "b"), pooled=True).build().channels == 1


@pytest.mark.parametrize(
    ("images", "condition", "key"),
    [((), (), "mode.images.images: "), (("a", "a"), (), "mode.images: "), (("a",), ("a",), "mode.images: ")],
)
def test_impossible_images(images: tuple[str, ...], condition: tuple[str, ...], key: str) -> None:
    """No image, or a name given twice, is a mistake of the recipe."""
    recipe: Any = SimpleNamespace()
    [message] = Images(images=images, condition=condition).check(recipe)
    assert str(message).startswith(key)
