"""Draw a learning-rate sweep: loss over the rate, with both axes and what was found."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medgen_builtins.callbacks._lr_finding import Finding, number

WIDTH, HEIGHT, DPI = 960, 600, 120
COLOURS = {"suggestion": "#7a3fa8", "steepest": "#1b8a3a", "bound": "#c23b22"}
WORDS = {"suggestion": "suggested", "steepest": "fastest fall", "bound": "safe up to"}
HEADROOM = 0.2
"""Share of the fall shown above the first loss and below the best; diverged losses leave the
picture.
"""


def plot(finding: Finding) -> np.ndarray[Any, np.dtype[Any]]:
    """Draw the sweep as uint8 `[height, width, 3]`."""
    canvas = FigureCanvasAgg(draw(finding))
    canvas.draw()
    return np.array(np.asarray(canvas.buffer_rgba())[..., :3])


def draw(finding: Finding) -> Figure:
    """Draw the losses as points, the smoothed loss as a line, and a vertical line per rate found."""
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    scores = [each if math.isfinite(each) else math.nan for each in finding.scores]
    axes.plot(finding.rates, scores, "o", color="#9db8d6", markersize=4)
    axes.plot(finding.rates[: len(finding.smoothed)], finding.smoothed, color="#1f5fa8")
    axes.set(
        xscale="log", xlim=_between(finding.rates), ylim=_shown(finding), xlabel="learning rate"
    )
    axes.set_ylabel("loss on the probe: each rate (points), smoothed (line)")
    axes.grid(color="#e4e4e4")
    found = {name: getattr(finding, name) for name in COLOURS if getattr(finding, name) is not None}
    for name, rate in found.items():
        axes.axvline(rate, color=COLOURS[name], label=f"{WORDS[name]} {number(rate)}")
    if found:
        axes.legend()
    else:
        axes.set_title(f"inconclusive: {finding.verdict}", fontsize=9, wrap=True)
    return figure


def _between(rates: list[float]) -> tuple[float, float]:
    """Return the ends of the axis; a single rate lies in the middle."""
    return rates[0] / 1.1, rates[-1] * 1.1


def _shown(finding: Finding) -> tuple[float, float]:
    """Return the range of losses to show, from the lowest to the first or, if higher, the median."""
    shown = [each for each in (*finding.scores[:1], *finding.smoothed) if math.isfinite(each)] or [
        1.0
    ]
    low, top = min(shown), max(shown[0], sorted(shown)[len(shown) // 2])
    room = HEADROOM * max(top - low, 0.25 * abs(top), 1e-9)
    return low - room, top + room
