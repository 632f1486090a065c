"""Begin a run, or restore a run from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli

from medgen.api.interfaces import Callback
from medgen.api.messages import as_toml
from medgen.api.recipe import Recipe
from medgen.config import compatibility
from medgen.config.recipe import from_toml
from medgen.errors import DataError, Problem
from medgen.run import auto_settings, folder, more_inputs, named_weights, shared_weights
from medgen.run.assemble import Saved, assemble
from medgen.run.run import TrainingRun
from medgen.system.console import warn


def begin(
    recipe: Recipe, where: Path, callbacks: Mapping[str, Callback] | None = None
) -> TrainingRun:
    """Build a new run, with the weights of `training.init_from`, if given."""
    run = assemble(recipe, where, callbacks=callbacks)
    source = recipe.training.init_from
    if source not in (None, Path()):  # "" takes back what a recipe extends
        file = named_weights.find(
            source, recipe.names["mode"], "training.init_from", recipe.data.axes
        )
        given = shared_weights.load_any(file)
        compare_outputs(recipe, tomli.loads(given.recipe), source)
        weights = more_inputs.widened(given, run.network.state_dict(), run.mode)
        run.start_from(weights, source)
    return run


def restore(
    recipe: Recipe, where: Path, callbacks: Mapping[str, Callback] | None = None
) -> TrainingRun:
    """Restore a run from its newest undamaged checkpoint.

    Raises RecipeError or DataError if recipe or data differ.
    """
    state, source = folder.latest_state(where)
    old = from_toml(state["recipe"], source=str(source))
    recipe = auto_settings.fill(recipe, auto_settings.of(old))
    compatibility.check(old, recipe, where)
    run = assemble(recipe, where, saved=Saved(state, source), callbacks=callbacks)
    _check_data(run, state, source)
    run.load_state_dict(state, source)
    return run


def compare_outputs(recipe: Recipe, theirs: Mapping[str, Any], source: Path) -> None:
    """Warn of weights of the same strategy, or space, whose network puts out something else."""
    for table, settings in (("strategy", recipe.strategy), ("space", recipe.space)):
        name, key = recipe.names[table], type(settings).output
        was = theirs.get(table, {}).get(name, {}).get(key)
        if was in (None, now := getattr(settings, key, None)):
            continue
        where = f"{table}.{name}.{key}"
        before, here = (each if isinstance(each, str) else as_toml(each) for each in (was, now))
        what = f"was {before} for the weights of {source} and is {here} here, which they have to learn anew"
        warn(f"{where}: {what}. Set {where}={before} to go on from where they are.")


def _check_data(run: TrainingRun, state: dict[str, Any], source: Path) -> None:
    was, now, noun = state["data"], run.store.fingerprint, run.recipe.data.noun
    if was["fingerprint"] == now or run.recipe.data.accept_changes:
        return
    counts = [
        f"{was[name][split]} -> {count}"
        for name, split, count in (
            ("patients", "train", run.store.patients("train")),
            ("patients", "val", run.store.patients("val")),
            ("samples", "train", run.train.size),
            ("samples", "val", run.val.size),
        )
    ]
    raise DataError(
        Problem(
            "data",
            f"the {noun} are not those of {source} (patients to train on {counts[0]}, held out {counts[1]}; "
            f"{noun} to train on {counts[2]}, held out {counts[3]})",
            "Put the files back, or go on with data.accept_changes=true",
        )
    )
