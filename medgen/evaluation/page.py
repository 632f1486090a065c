"""A card as one page that needs nothing else: pictures and plots are inside."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import jinja2
import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure as Canvas
from PIL import Image

from medgen import pictures
from medgen.evaluation import card_tables
from medgen.evaluation.card import Card
from medgen.evaluation.comparison import Comparison
from medgen.evaluation.figures import Figure
from medgen.evaluation.samples import Samples

SHOWN, ACROSS = 12, 6
"""Tiles of each side, and how many in a row: a slice each, or a volume in three of its slices."""
INK, MADE, REAL = "#010203", "#040506", "#070809"
"""Stand for colours that the page's style sheet gives, light or dark."""
VARIABLES = {INK: "var(--faint)", MADE: "var(--made)", REAL: "var(--real)"}


def render(card: Card, comparison: Comparison) -> str:
    """Return the page as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(
        files("medgen.evaluation").joinpath("card.html").read_text(encoding="utf-8")
    )
    sections = card.by_section()
    return template.render(
        card=card,
        counts=[f"{len(each)}" for each in (comparison.made, comparison.real)],
        noun=comparison.real.noun,
        sections=sections,
        plots={name: _plot(figures) for name, figures in sections.items()},
        pictures={"real": _picture(comparison, "real"), "made": _picture(comparison, "made")},
        facts=_facts(card, comparison.real.noun),
        number=card_tables.number,
        span=card_tables.span,
        said=card_tables.said,
    )


def _facts(card: Card, noun: str) -> dict[str, Any]:
    facts = {f"selection: {name}": value for name, value in card.selection.items()}
    facts |= {f"extractor {name}": f"hash {value}" for name, value in card.extractors.items()}
    facts |= {
        f"real {noun}s": f"hash {card.real['fingerprint']}",
        "pairs": f"hash {card.made['fingerprint']}",
    }
    facts |= {"control without a mask": card.made["control"]} if card.made.get("control") else {}
    return facts | {"bootstrap": f"{card.draws} draws of patients"} | dict(card.versions)


def _picture(comparison: Comparison, side: str) -> str:
    """Return a PNG, as a data URI, of samples drawn at random, lesions outlined."""
    samples: Samples = getattr(comparison, side)
    count = SHOWN if samples.axes == 2 else SHOWN // 3
    rows = np.sort(comparison.rng(f"pictures/{side}").permutation(len(samples))[:count])
    tiles = [
        tile
        for row in rows
        for tile in pictures.tiles(samples.images[row, 0], [samples.masks[row]])
    ]
    lines = [tiles[start : start + ACROSS] for start in range(0, len(tiles), ACROSS)]
    buffer = io.BytesIO()
    Image.fromarray(pictures.grid(lines)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _plot(figures: Sequence[Figure]) -> Markup:
    """Return an SVG: of each figure both intervals, from the least to the largest of the four ends."""
    with matplotlib.rc_context({"svg.hashsalt": "medgen", "svg.fonttype": "none", "font.size": 9}):
        canvas = Canvas(figsize=(6.4, 0.42 * len(figures) + 0.15))
        axes = canvas.add_axes((0.3, 0.02, 0.68, 0.96))
        axes.set_axis_off()
        axes.set(xlim=(-0.03, 1.03), ylim=(len(figures) - 0.4, -0.6))
        for row, each in enumerate(figures):
            axes.text(-0.06, row, each.name, ha="right", va="center", color=INK)
            axes.plot([0, 1], [row, row], color=INK, linewidth=0.4)
            _interval(axes, row - 0.13, each, (each.low, each.value, each.high), MADE)
            values = (each.reference_low, each.reference, each.reference_high)
            _interval(axes, row + 0.13, each, values, REAL)
        buffer = io.StringIO()
        canvas.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.S)
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, variable)
    return Markup(text[text.index("<svg") :])  # matplotlib escapes what it writes


def _interval(
    axes: Any, y: float, figure: Figure, values: tuple[float, float, float], colour: str
) -> None:
    """Draw a line from low to high with a dot at the value, if they are known."""
    ends = (
        figure.low,
        figure.high,
        figure.reference_low,
        figure.reference_high,
        figure.value,
        figure.reference,
    )
    known = [each for each in ends if math.isfinite(each)]
    if not known or not math.isfinite(values[1]):
        return
    low, width = min(known), (max(known) - min(known)) or 1.0
    at = [(each - low) / width for each in values]
    if all(map(math.isfinite, at)):
        axes.plot([at[0], at[2]], [y, y], color=colour, linewidth=2.4, solid_capstyle="round")
    axes.plot([at[1]], [y], "o", color=colour, markersize=4.5)
