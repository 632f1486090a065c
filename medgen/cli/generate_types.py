"""Options of the commands that generate."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import click

from medgen.cli.options import FOLDER, Command, seed_option

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


def outputs_in_parts(noun: str) -> Callable[[Command], Command]:
    """Return a decorator that adds the options of writing any number of outputs, also in parts.
    noun: of one output.
    """
    most, index = click.IntRange(1, MOST_PAIRS), click.IntRange(0, MOST_PAIRS - 1)
    options = (
        click.option("--num-images", type=most, help=f"Number of {noun}s."),
        click.option(
            "--only", type=index, multiple=True, metavar="INDEX", help=f"Make just this {noun}."
        ),
        click.option(
            "--output-dir", type=FOLDER, required=True, metavar="OUT",
            help="Folder for OUT/train/syn_00000/... and a picture of the first.",
        ),
        seed_option(f"{noun}s"),
        click.option(
            "--shard", type=Shard(), default="1/1", help="Make part I of N, as one of N jobs."
        ),
        click.option(
            "--devices", type=click.IntRange(1, 1024), default=1, metavar="N",
            help="Number of devices to share the work, one process on each.",
        ),
    )  # fmt: skip
    return lambda command: reduce(lambda made, option: option(made), reversed(options), command)


class Asked(NamedTuple):
    """What `medgen generate` is asked for; see its options."""

    image_model: Path | None
    seg_model: Path | None
    anatomy: Path | None
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
    guidance: float | None
    like: Path | None
    audit: bool
    audit_against: str | None
    obedience: bool
    min_obedience: float
