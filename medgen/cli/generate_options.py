"""Options of the commands that generate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import click

MOST_PAIRS = 10**18
"""Most pairs whose blocks have a byte each to lock; see `manifest`."""


class Shard(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """`3/8`: the third of eight parts."""

    name = "I/N"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(value), re.ASCII)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            self.fail(f"{value!r} is not I/N with I from 1 to N, such as 3/8.", param, ctx)
        return int(match[1]), int(match[2])


class Steps(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """A number of steps, or `auto`."""

    name = "N|auto"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        number = click.IntRange(1, 10**6)
        return "auto" if value == "auto" else int(number(value, param, ctx))


class Positions(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """`0.3..0.6`: a range within 0..1."""

    name = "LOW..HIGH"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        number = r"(\d{1,9}(?:\.\d{1,9})?)"
        match = re.fullmatch(rf"{number}\.\.{number}", str(value), re.ASCII)
        if not match or not 0 <= float(match[1]) <= float(match[2]) <= 1:
            self.fail(f"{value!r} is no range within 0..1, such as 0.3..0.6.", param, ctx)
        return float(match[1]), float(match[2])


class Asked(NamedTuple):
    """What `medgen generate` is asked for; see its options."""

    image_model: Path | None
    seg_model: Path | None
    num_images: int | None
    only: tuple[int, ...]
    output_dir: Path
    steps: int | str | None
    seed: int
    batch_size: int
    shard: tuple[int, int]
    devices: int
    max_area: float
    max_attempts: int
    inside: str
    position: tuple[float, float]
    audit: bool
    audit_against: str | None
    obedience: bool
    min_obedience: float
