"""Checks of the numbers that a mode is given."""

from __future__ import annotations

from collections.abc import Iterator

from medgen.api.messages import as_toml, did_you_mean
from medgen.api.numbers import (
    NUMBERS,
    OF_CROPS,
    OF_INSERTION,
    OF_LESIONS,
    OF_SCANS,
    OF_SLICES,
    PLACE,
)
from medgen.api.recipe import Recipe
from medgen.api.tables import DEFAULT_MASK
from medgen.api.values import Mode
from medgen.config.blame import mode_of
from medgen.errors import Problem


def check_numbers(recipe: Recipe) -> Iterator[Problem]:
    """Find names that are no numbers, and numbers that are not known of the samples."""
    if recipe.mode is None:
        return
    mode, key = mode_of(recipe), f"mode.{recipe.names['mode']}.numbers"
    if not isinstance(mode, Mode):  # that is told where it is to be used
        return
    wrong = [*_names(mode, key)]
    yield from wrong
    if mode.numbers and not wrong:
        yield from _use(recipe, mode, key)
        yield from _channels(mode, {*recipe.data.masks} or {DEFAULT_MASK}, key)


def _names(mode: Mode, key: str) -> Iterator[Problem]:
    known = [*NUMBERS, PLACE]
    for name in mode.numbers:
        if name not in known:
            what = f"got {as_toml(name)}, expected names among {', '.join(known)}"
            yield Problem(key, what, did_you_mean(name, known) or "Choose among these")
    for name in sorted({name for name in mode.numbers if mode.numbers.count(name) > 1}):
        yield Problem(key, f"got {as_toml(name)} more than once", "Name it once")


def _use(recipe: Recipe, mode: Mode, key: str) -> Iterator[Problem]:
    given = as_toml(list(mode.numbers))
    if recipe.strategy is not None and recipe.strategy.unconditional:
        what = f"got {given}, but strategy.{recipe.names['strategy']} is given no condition"
        yield Problem(key, what, "Leave the key out")
    yield from _crops(recipe, mode, key)
    for name in mode.numbers:
        if name in OF_SLICES and recipe.data.axes > 2:
            what = f"got {as_toml(name)}, which is known of slices alone, and data.dimensions is 3"
            yield Problem(key, what, "Leave it out")


def _crops(recipe: Recipe, mode: Mode, key: str) -> Iterator[Problem]:
    """Find numbers that are not known of crops, and a place that nothing but crops has."""
    data, around = recipe.data, bool(mode.margin) or recipe.data.crop != "none"
    known = OF_CROPS if not around else OF_INSERTION if mode.margin else ()
    wrong = [name for name in mode.numbers if name not in known]
    if wrong and (around or data.patch_size):
        what = f"got {as_toml(wrong)}, which are known of whole {data.noun} alone, not of crops"
        yield Problem(key, what, "Leave them out" if known else "Leave the key out")
    elif mode.has_place and not data.patch_size:
        what = f"got {as_toml(PLACE)}, but no crops are trained on"
        yield Problem(key, what, "Leave it out, or give data.patch_size")


def _channels(mode: Mode, masks: set[str], key: str) -> Iterator[Problem]:
    channels = f"the channels are {', '.join(mode.names)}"
    for name in mode.numbers:
        if name in OF_LESIONS and masks.isdisjoint(mode.names):
            what = f"got {as_toml(name)}, which needs a mask, and {channels}"
            yield Problem(key, what, "Leave it out, or use a mode with a mask")
        if name in OF_SCANS and (mode.pooled or masks.issuperset(mode.names)):
            what = f"got {as_toml(name)}, which is of one image that is no mask, and {channels}"
            pooled = " (pooled)" if mode.pooled else ""
            yield Problem(key, what + pooled, "Leave it out")
