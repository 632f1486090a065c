"""`medgen export`: pairs in the arrangement of other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medgen.cli import options
from medgen.cli.options import FOLDER, overrides_argument

if TYPE_CHECKING:
    from medgen.evaluation.nnunet import Dataset, Fold


@click.command()
@click.argument("pairs", type=FOLDER, metavar="PAIRS")
@overrides_argument
@click.option("--nnunet", "out", type=FOLDER, required=True, metavar="OUT", help="Folder for OUT/Dataset###_NAME.")
@click.option("--real", metavar="DATA", help="Real slices beside the pairs: a recipe, a run, a folder of patients.")
@click.option(
    "--generator-saw",
    "saw",
    type=click.Choice(["train", "all", "none"]),
    default="train",
    show_default=True,
    help="Which persons of DATA the pairs' generator was trained on.",
)
@click.option(
    "--id", "number", type=click.IntRange(1, 999), default=500, show_default=True, help="The dataset's number."
)
@click.option("--name", default="Medgen", show_default=True, help="The dataset's name.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same folds.")
def export(
    pairs: Path, overrides: tuple[str, ...], out: Path, real: str | None, saw: str, number: int, name: str, seed: int
) -> None:
    """Write PAIRS as a raw dataset of nnU-Net v2, with or without real slices.

    KEY=VALUE are of DATA's recipe. In splits_final.json pairs are only ever trained on, and not where
    a person is validated whom their generator saw.
    """
    from medgen.evaluation import nnunet, samples, sources
    from medgen.system.console import progress

    made = samples.read_pairs(pairs)
    source = sources.real(real, overrides, options.registry()) if real else None
    both = [samples.read_real(source, split, like=made) if source else None for split in ("train", "val")]
    dataset = nnunet.Dataset(number, name, made, both[0], both[1], saw)  # type: ignore[arg-type]  # click checked it
    total = sum(len(each) for each in (made, *both) if each is not None)
    with progress("cases", total, unit="written") as bar:
        folds = nnunet.export(dataset, out, seed, bar.advance)
    _conclude(dataset, folds)
    options.say_result(out / dataset.folder)


def _conclude(dataset: Dataset, folds: Sequence[Fold]) -> None:
    """What the folds are, and where nnU-Net looks for them."""
    from medgen.system.console import say

    if not folds:
        say("no splits_final.json: pairs are no cases to validate on. Train with `-f all`, or give --real.")
        return
    mixed = [str(number) for number, fold in enumerate(folds) if fold.pairs]
    which = f"folds {', '.join(mixed)} of {len(folds)} train on pairs" if mixed else "no fold trains on pairs"
    say(f"{which}: the others validate persons whom the generator saw (--generator-saw {dataset.saw}).")
    say(f"Copy splits_final.json to nnUNet_preprocessed/{dataset.folder}/ after nnUNetv2_plan_and_preprocess.")
