"""`medgen generate`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medgen.errors import (
    IncompleteError,
    PrivacyError,
    Problem,
    RecipeError,
)
from medgen.system import streams

if TYPE_CHECKING:
    from medgen.generation.pairs import Outcome
from medgen.cli.options import FOLDER, say_result

MOST_PAIRS = 10**18
"""Most pairs whose blocks have a byte each to lock; see `manifest`."""


class Shard(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """`3/8`: the third of eight parts."""

    name = "I/N"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(value), re.ASCII)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            self.fail(f"{value!r} is not I/N with I from 1 to N, such as 3/8.", param, ctx)
        return int(match[1]), int(match[2])


class Steps(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """A number of steps, or `auto`."""

    name = "N|auto"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        number = click.IntRange(1, 10**6)
        return "auto" if value == "auto" else int(number(value, param, ctx))


@click.command()
@click.option("--image-model", type=FOLDER, metavar="CKPT", help="Checkpoint or run folder of the image model.")
@click.option(
    "--seg-model",
    type=FOLDER,
    metavar="CKPT|DIR",
    help="Checkpoint or run folder of the mask model, or a folder of mask files or patients.",
)
@click.option("--num-images", type=click.IntRange(1, MOST_PAIRS), help="Number of pairs.")
@click.option(
    "--only", type=click.IntRange(0, MOST_PAIRS - 1), multiple=True, metavar="INDEX", help="Make just this pair."
)
@click.option(
    "--output-dir", type=FOLDER, required=True, metavar="OUT", help="Folder for OUT/train/syn_00000/... and pairs.png."
)
@click.option(
    "--steps",
    type=Steps(),
    metavar="N|auto",
    help="Sampling steps; default: those of each model's recipe. auto: the fewest that measure no worse than more.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same pairs.")
@click.option(
    "--batch-size",
    type=click.IntRange(1, 10**6),
    default=16,
    show_default=True,
    help="Pairs per batch; changes the result in the last bits.",
)
@click.option("--shard", type=Shard(), default="1/1", help="Make part I of N, as one of N jobs.")
@click.option(
    "--devices", type=click.IntRange(1, 1024), default=1, metavar="N", help="Number of devices to share the work."
)
@click.option(
    "--max-area",
    type=click.FloatRange(0, 1),
    default=0.04,
    show_default=True,
    help="Share of the slice that a valid mask covers at most; the default suits metastases.",
)
@click.option(
    "--max-attempts",
    type=click.IntRange(1, 10**6),
    default=10,
    show_default=True,
    help="Draws of a mask before its pair is left out.",
)
@click.option(
    "--inside",
    type=click.Choice(["head", "off"]),
    default="head",
    show_default=True,
    help="Draw a pair again whose lesion lies outside its head by more than 2 % of its area.",
)
@click.option("--audit/--no-audit", default=True, show_default=True, help="Look for copies of training data.")
@click.option(
    "--obedience",
    is_flag=True,
    help="Note in each line of the manifest the Dice with which a segmenter taught on real slices finds the lesion;"
    " teaching takes minutes, however few pairs there are.",
)
@click.option(
    "--min-obedience",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Set pairs aside whose lesion it finds with a smaller Dice; implies --obedience.",
)
@click.option("--audit-against", metavar="DATA", help="Training scans; without it, those of the image model's run.")
@click.pass_context
def generate(
    context: click.Context, image_model: Path | None, seg_model: Path | None, num_images: int | None,
    only: tuple[int, ...], output_dir: Path, steps: int | str | None, seed: int, batch_size: int,
    shard: tuple[int, int], devices: int, max_area: float, max_attempts: int, inside: str, audit: bool,
    audit_against: str | None, obedience: bool, min_obedience: float,
) -> int:  # fmt: skip
    """Write image and mask pairs; continues where it was stopped.

    The folder OUT is a dataset that medgen and others can train on.
    """
    from medgen.cli import auto_steps, generators
    from medgen.generation import pairs as work
    from medgen.generation import workers
    from medgen.generation.blocks import Indices
    from medgen.system.signals import asked_to_stop

    least = min_obedience if obedience or min_obedience else None
    if least is not None and not audit:
        what = "needs the training scans, which --no-audit leaves out"
        raise RecipeError(Problem("--min-obedience" if least else "--obedience", what, "Leave one of them out"))
    streams.only_log()
    shard, arguments = workers.share(*shard), context.find_root().obj
    indices = _indices(num_images, only, batch_size, shard)
    if not indices:
        _say_nothing(num_images or 0, batch_size, shard)
        return 0
    command = shlex.join(["medgen", *arguments])
    devices = workers.processes(devices, indices) if isinstance(indices, Indices) else 1
    if devices > 1:
        if code := workers.supervise(arguments, devices, len(indices), output_dir, command):
            return code
        if isinstance(steps, str):
            auto_steps.show(output_dir)
    else:
        with workers.joined(), asked_to_stop(command) as stop:
            attempts = max_attempts if inside == "head" else 0
            make = generators.maker(image_model, seg_model, seed, batch_size, max_area, max_attempts, attempts)
            if isinstance(steps, str):
                steps = auto_steps.settle(make, output_dir, image_model, audit_against, seed, stop)
            with workers.progress(len(indices)) as advance:
                work.generate(make(steps), indices, output_dir, stop, advance)
    if not workers.notes():
        copies = _audit(output_dir, image_model, indices, audit_against, audit, least)
        _conclude(output_dir, indices, max_area, max_attempts, copies)
    return 0


def _indices(num_images: int | None, only: tuple[int, ...], batch_size: int, shard: tuple[int, int]) -> Sequence[int]:
    """The pairs to make: those named, or this part of all of them."""
    from medgen.generation import pairs as work

    if (num_images is None) != bool(only):
        raise RecipeError(
            Problem("--num-images, --only", "give one of them", "Say how many pairs there shall be, or which to make")
        )
    if only:
        return sorted({*only}) if shard[0] == 1 else []
    return work.shard(num_images or 0, batch_size, *shard)


def _audit(
    output_dir: Path,
    image_model: Path | None,
    indices: Sequence[int],
    against: str | None,
    asked: bool,
    obedience: float | None,
) -> Sequence[Problem]:
    """Look for copies; returns what is wrong with the pairs, if anything."""
    from medgen.cli._audit import after_generate
    from medgen.generation import pairs as work

    if work.outcome(output_dir, indices).empty:
        return []
    try:
        after_generate(output_dir, image_model, indices, against, asked, obedience)
    except PrivacyError as error:
        return error.problems
    return []


def _say_nothing(num_images: int, batch_size: int, shard: tuple[int, int]) -> None:
    from medgen.system.console import say

    blocks = -(-num_images // batch_size)
    counted = f"{blocks} blocks" if blocks > 1 else "one block"
    what = f"{num_images} pairs are {counted} of --batch-size {batch_size}"
    say(f"shard {shard[0]}/{shard[1]}: nothing of its own: {what}")


def _conclude(
    output_dir: Path, indices: Sequence[int], max_area: float, max_attempts: int, copies: Sequence[Problem]
) -> None:
    """Print the result's path. Raises IncompleteError if pairs were left out, PrivacyError for copies."""
    from medgen.generation import pairs as work

    outcome = work.outcome(output_dir, indices)
    picture = output_dir / "pairs.png"
    say_result(picture if picture.exists() else output_dir)
    if outcome.failed:
        what = f"{outcome.failed} of {len(indices)} masks were invalid {max_attempts} times"
        left_out = Problem(output_dir, f"{what} {_why_invalid(outcome, max_area)}")
        raise PrivacyError(*copies, left_out) if copies else IncompleteError(left_out)
    if copies:
        raise PrivacyError(*copies)


def _why_invalid(outcome: Outcome, max_area: float) -> str:
    """Describe the faults of the invalid masks, and what to change."""
    listed = "indices " + ", ".join(map(str, outcome.first)) + (", ..." if outcome.failed > 10 else "")
    empty, large, outside = (outcome.rejected[why] for why in ("empty", "too_large", "outside"))
    draws = f"draws: {empty} empty, {large} larger than {max_area:.3g} of the slice"
    draws += f", {outside} in part outside the image model's slices" if outside else ""
    away = outcome.rejected["outside_head"]
    draws += f", {away} outside the head that was drawn for it (--inside head)" if away else ""
    raised = "--max-area or --max-attempts" if large else "--max-attempts"
    where = "" if outcome.empty else ", in a new --output-dir"
    return f"({listed}; {draws}). Train the mask model longer, or raise {raised}{where}"
