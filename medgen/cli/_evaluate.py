"""What `medgen evaluate` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medgen.cli import options
from medgen.errors import Problem, RecipeError, StorageError
from medgen.evaluation import card, page, sources, tables
from medgen.evaluation import evaluate as work
from medgen.evaluation.card import Card
from medgen.system import files, streams
from medgen.system.console import out, say


def judge(
    real: str, pairs: Path, overrides: Sequence[str], names: Sequence[str], output: Path | None, html: Path | None,
    *, split: str, seed: int, limit: int,
) -> None:  # fmt: skip
    """Compare pairs with real scans by the extractors of these names, and show or write the card."""
    if output or html:
        streams.only_log()
    registry = options.registry()
    chosen = {name: sources.measure("features", name, overrides, registry) for name in names}
    sources.require_used(overrides, names)
    source = sources.real(real, overrides, registry)
    asked = work.Asked(features=chosen, seed=seed, limit=limit, split=split)
    comparison = work.compare(source, pairs, asked)
    made = work.measure(comparison, source, asked)
    _show(made)
    if output:
        _write(output, made.to_json() + "\n")
    if html:
        _write(html, page.render(made, comparison))
    for path in filter(None, (output, html)):
        options.say_result(path)


def _show(made: Card) -> None:
    out.print(tables.of_card(made), markup=True)
    say(made.verdict.text)


def show_both(one: Path, two: Path, rest: Sequence[str]) -> None:
    if rest:
        raise RecipeError(Problem("evaluate", f"--compare takes two cards, got {rest[0]!r} as well", "Leave it out"))
    cards = [card.read(path) for path in (one, two)]
    names = [str(path) for path in (one, two)]
    card.require_comparable(*zip(names, cards, strict=True))
    out.print(tables.of_cards(names, cards), markup=True)
    for name, each in zip(names, cards, strict=True):
        say(f"{name}: {each.verdict.text}")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, text)
    except OSError as error:
        raise StorageError(Problem(path, f"cannot be written ({error.strerror})", "Name another file")) from None
