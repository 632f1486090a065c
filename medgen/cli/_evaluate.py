"""What `medgen evaluate` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from medgen.cli import options
from medgen.errors import Problem, RecipeError, StorageError
from medgen.evaluation import card, card_tables, page, sources
from medgen.evaluation import evaluate as work
from medgen.evaluation.card import Card
from medgen.evaluation.comparison import Comparison
from medgen.generation.control import checkpoint, without_mask
from medgen.generation.model import load_model
from medgen.system import files, streams
from medgen.system.console import out, progress, say


def judge(
    real: str, pairs: Path, overrides: Sequence[str], names: Sequence[str], output: Path | None, html: Path | None,
    *, split: str, seed: int, limit: int, image_model: Path | None, anatomy: Path | None, control: int,
) -> None:  # fmt: skip
    """Compare pairs with real scans by the extractors of these names, and show or write the card."""
    if output or html:
        streams.only_log()
    registry = options.registry()
    chosen = {name: sources.measure("features", name, overrides, registry) for name in names}
    sources.require_used(overrides, names)
    source = sources.real(real, overrides, registry)
    asked = work.Asked(features=chosen, seed=seed, limit=limit, split=split)
    made_by = _maker(pairs, image_model, real, control)
    comparison = _with_control(work.compare(source, pairs, asked), pairs, made_by, control, anatomy)
    made = work.measure(comparison, source, asked)
    _show(made)
    if output:
        _write(output, made.to_json() + "\n")
    if html:
        _write(html, page.render(made, comparison))
    for path in filter(None, (output, html)):
        options.say_result(path)


def _maker(pairs: Path, given: Path | None, real: str, count: int) -> Path | None:
    """The checkpoint that made the pairs, if it is at hand and a control is asked for."""
    return checkpoint(pairs, given, real) if count or given else None


def _with_control(
    comparison: Comparison,
    pairs: Path,
    made_by: Path | None,
    count: int,
    anatomy: Path | None = None,
) -> Comparison:
    """Add the images of some of the pairs without their masks, or why there are none."""
    if not count:
        return attrs.evolve(comparison, control="not asked for")
    if made_by is None:
        said = "not made, as the model that made the pairs is not at hand: give --image-model"
        return attrs.evolve(comparison, control=said)
    count = min(count, len(comparison.made))
    model = load_model(made_by, options.registry())
    if model.scans_given and anatomy is None:
        said = "not made, as the anatomy of the pairs is not at hand: give --anatomy"
        return attrs.evolve(comparison, control=said)
    if not model.masks_given:
        said = "not made, as the model that made the pairs is given no mask"
        return attrs.evolve(comparison, control=said)
    with progress("without a mask", count, "pairs") as bar:
        bare = without_mask(comparison.made, pairs, model, count, anatomy, bar.advance)
    return attrs.evolve(
        comparison, without_mask=bare, control=f"{len(bare)} pairs of the same noise"
    )


def _show(made: Card) -> None:
    out.print(card_tables.of_card(made), markup=True)
    say(f"control of obedience without a mask: {made.made['control']}")
    say(made.verdict.text)


def show_both(one: Path, two: Path, rest: Sequence[str]) -> None:
    if rest:
        raise RecipeError(
            Problem(
                "evaluate", f"--compare takes two cards, got {rest[0]!r} as well", "Leave it out"
            )
        )
    cards = [card.read(path) for path in (one, two)]
    names = [str(path) for path in (one, two)]
    card.require_comparable(*zip(names, cards, strict=True))
    out.print(card_tables.of_cards(names, cards), markup=True)
    for name, each in zip(names, cards, strict=True):
        say(f"{name}: {each.verdict.text}")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, text)
    except OSError as error:
        raise StorageError(
            Problem(path, f"cannot be written ({error.strerror})", "Name another file")
        ) from None
