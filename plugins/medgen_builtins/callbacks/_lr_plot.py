"""The picture of a learning-rate sweep, drawn with Pillow: loss over the rate, with both axes and what was found."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medgen_builtins.callbacks._lr_finding import Finding, number

WIDTH, HEIGHT = 960, 600
LEFT, RIGHT, TOP, BOTTOM = 90, 930, 70, 530
SHARP = 2
"""Factor by which the picture is drawn larger and then reduced, for smooth lines."""
INK, GRID, POINT, LINE = "#222222", "#e4e4e4", "#9db8d6", "#1f5fa8"
GOOD, LIMIT, CHOICE = "#1b8a3a", "#c23b22", "#7a3fa8"
HEADROOM = 0.2
"""Share of the fall that is shown above the first loss and below the best; what diverges leaves the picture."""


def plot(finding: Finding) -> np.ndarray[Any, np.dtype[Any]]:
    """Draw the sweep as uint8 `[height, width, 3]`."""
    chart = Chart(finding)
    chart.axes()
    chart.curve(finding)
    if finding.steepest is not None and finding.bound is not None and finding.suggestion is not None:
        chart.mark(finding.suggestion, f"suggested {number(finding.suggestion)}", CHOICE, (LEFT + RIGHT) / 2, "mm")
        chart.mark(finding.steepest, f"fastest fall {number(finding.steepest)}", GOOD, LEFT, "lm")
        chart.mark(finding.bound, f"safe up to {number(finding.bound)}", LIMIT, RIGHT, "rm")
    else:
        chart.text((LEFT, TOP - 14), f"inconclusive: {finding.verdict}", 16, LIMIT, "lm")
    return np.array(chart.image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))


class Chart:
    """Rates in their logarithm to the right, losses upwards from the lowest."""

    def __init__(self, finding: Finding):
        shown = [each for each in (*finding.scores[:1], *finding.smoothed) if math.isfinite(each)] or [1.0]
        low, top = min(shown), max(shown[0], sorted(shown)[len(shown) // 2])
        room = HEADROOM * max(top - low, 0.25 * abs(top), 1e-9)
        self.low, self.high = low - room, top + room
        self.first, self.last = math.log10(finding.rates[0]), math.log10(finding.rates[-1])
        self.image = Image.new("RGB", (WIDTH * SHARP, HEIGHT * SHARP), "white")
        self.draw = ImageDraw.Draw(self.image)

    def x(self, rate: float) -> float:
        """Return pixels from the left."""
        return LEFT + (RIGHT - LEFT) * (math.log10(rate) - self.first) / (self.last - self.first or 1.0)

    def y(self, loss: float) -> float:
        """Return pixels from the top; values above the axis are clipped to its end."""
        return BOTTOM - (BOTTOM - TOP) * (min(loss, self.high) - self.low) / (self.high - self.low)

    def axes(self) -> None:
        """Draw frame, grid, numbers and names of both axes."""
        for exponent in range(math.ceil(self.first - 1e-9), math.floor(self.last + 1e-9) + 1):
            x = self.x(10.0**exponent)
            self.line([(x, TOP), (x, BOTTOM)], GRID, 1)
            self.text((x, BOTTOM + 20), f"1e{exponent}", 16, INK, "mm")
        for loss in ticks(self.low, self.high):
            self.line([(LEFT, self.y(loss)), (RIGHT, self.y(loss))], GRID, 1)
            self.text((LEFT - 10, self.y(loss)), f"{loss:.4g}", 16, INK, "rm")
        self.line([(LEFT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM), (RIGHT, TOP), (LEFT, TOP)], INK, 1)
        self.text(((LEFT + RIGHT) / 2, BOTTOM + 52), "learning rate", 18, INK, "mm")
        self.text((LEFT, 22), "loss on the probe: each rate (points), smoothed (line)", 18, INK, "lm")

    def curve(self, finding: Finding) -> None:
        """Draw the points and the smoothed line."""
        for rate, score in zip(finding.rates, finding.scores, strict=True):
            if math.isfinite(score):
                self.dot((self.x(rate), self.y(score)))
        # one that is not finite ends the sweep, and has no average
        self.line(
            [(self.x(rate), self.y(score)) for rate, score in zip(finding.rates, finding.smoothed, strict=False)],
            LINE,
            3,
        )

    def mark(self, rate: float, label: str, colour: str, place: float, anchor: str) -> None:
        """Draw a line at a rate, and its label in the same colour above the frame, as lines may be close."""
        x = self.x(rate)
        self.line([(x, TOP), (x, BOTTOM)], colour, 2)
        self.text((place, TOP - 14), label, 16, colour, anchor)

    def line(self, points: list[tuple[float, float]], colour: str, width: int) -> None:
        """Draw a line through points in pixels."""
        if points:
            large = [(x * SHARP, y * SHARP) for x, y in points]
            self.draw.line(large, fill=colour, width=width * SHARP, joint="curve")

    def dot(self, point: tuple[float, float]) -> None:
        """Draw a filled circle."""
        x, y = (each * SHARP for each in point)
        self.draw.ellipse((x - 3 * SHARP, y - 3 * SHARP, x + 3 * SHARP, y + 3 * SHARP), fill=POINT)

    def text(self, point: tuple[float, float], text: str, size: int, colour: str, anchor: str) -> None:
        """Draw text. anchor: Pillow's, such as `mm` for the middle."""
        place = (point[0] * SHARP, point[1] * SHARP)
        self.draw.text(place, text, fill=colour, font=ImageFont.load_default(size * SHARP), anchor=anchor)


def ticks(low: float, high: float) -> list[float]:
    """Return four to nine round numbers within an interval."""
    step = 10.0 ** math.floor(math.log10(high - low))
    step *= next(each for each in (0.1, 0.2, 0.5, 1.0) if (high - low) / (step * each) < 10)
    return [step * index for index in range(math.ceil(low / step), math.floor(high / step) + 1)]
