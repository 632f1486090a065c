"""Cards as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from medgen.evaluation.card import Card
from medgen.evaluation.figures import Figure


def number(value: float) -> str:
    """Return a value with three digits that count; - where it is not known."""
    if not math.isfinite(value):
        return "-"
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}" if value else "0"


def span(low: float, high: float) -> str:
    """Return an interval."""
    return f"{number(low)} to {number(high)}"


def said(figure: Figure) -> str:
    """Return in a word how a figure stands to real against real."""
    if math.isnan(figure.low) or math.isnan(figure.reference_low):
        return "not known"
    return "as real" if figure.as_good else "worse"


def of_card(card: Card) -> Table:
    """Return a row per figure."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "generated", "95 %", "real", "95 %", ""):
        rows.add_column(title, no_wrap=True, justify="left" if not title else "right")
    for section, figures in card.by_section().items():
        rows.add_row(f"[bold]{section}[/bold]")
        for each in figures:
            name = f"  {each.name}{f', {each.unit}' if each.unit else ''}"
            beside = (number(each.reference), span(each.reference_low, each.reference_high))
            rows.add_row(name, number(each.value), span(each.low, each.high), *beside, said(each))
    return rows


def of_cards(names: Sequence[str], cards: Sequence[Card]) -> Table:
    """Return a row per figure of both cards, and which is better if their intervals are apart."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", names[0], "95 %", names[1], "95 %", "better"):
        rows.add_column(title, no_wrap=True, justify="left" if not title else "right")
    other = {(each.section, each.name): each for each in cards[1].figures}
    for section, figures in cards[0].by_section().items():
        rows.add_row(f"[bold]{section}[/bold]")
        for each in (figure for figure in figures if (section, figure.name) in other):
            two = other[section, each.name]
            cells = [
                text for one in (each, two) for text in (number(one.value), span(one.low, one.high))
            ]
            rows.add_row(f"  {each.name}", *cells, better(names, each, two))
    return rows


def better(names: Sequence[str], one: Figure, two: Figure) -> str:
    """Return which of two is better, or that it cannot be told: their intervals overlap."""
    if any(map(math.isnan, (one.low, two.low))) or (one.low <= two.high and two.low <= one.high):
        return "cannot be told"
    if one.better == "near":
        closer = abs(one.value - one.reference) < abs(two.value - two.reference)
    else:
        closer = (one.value < two.value) == (one.better == "low")
    return names[0] if closer else names[1]
