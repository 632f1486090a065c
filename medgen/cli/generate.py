"""`medgen generate`."""

from __future__ import annotations

from typing import Any

import click

from medgen.cli.generate_types import Asked, Positions, Steps, outputs_in_parts
from medgen.cli.options import FOLDER


@click.command()
@click.option(
    "--image-model",
    type=FOLDER,
    metavar="CKPT",
    help="Checkpoint or run folder of the image model.",
)
@click.option(
    "--seg-model",
    type=FOLDER,
    metavar="CKPT|DIR",
    help="Checkpoint or run folder of the mask model, or a folder of mask files or patients;"
    " none for an image model that makes its own masks.",
)
@click.option(
    "--anatomy",
    type=FOLDER,
    metavar="DIR",
    help="Folder of patients with the images that the image model is given besides masks, such as"
    " tissue.nii.gz of `medgen data tissue`.",
)
@outputs_in_parts("pair")
@click.option(
    "--steps",
    type=Steps(),
    metavar="N|auto",
    help="Sampling steps; default: those of each model's recipe. auto: the fewest that measure no worse than more.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 10**6),
    default=16,
    show_default=True,
    help="Pairs per batch; changes the result in the last bits.",
)
@click.option(
    "--max-area",
    type=click.FloatRange(0, 1),
    default=0.04,
    show_default=True,
    help="Share of the slice, or volume, that a valid mask covers at most; the default suits metastases in slices.",
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
    help="Draw a pair again of which a lesion lies outside its head, or outside the anatomy that it is"
    " given, by more than 2 % of its area.",
)
@click.option(
    "--position",
    type=Positions(),
    default="0..1",
    help="Take slices between these places in the head, 0 its first slice and 1 its last, as they occur in training;"
    " for models that are given their position.",
)
@click.option(
    "--guidance",
    type=click.FloatRange(0, 100),
    metavar="W",
    help="Classifier-free guidance by the mask: above 0, lesions are drawn more clearly where masks are;"
    " default: that of the model's recipe.",
)
@click.option(
    "--like",
    type=FOLDER,
    metavar="SCAN",
    help="Write volumes with the voxels, orientation and place of this scan, around its head; default: as the model's.",
)
@click.option(
    "--audit/--no-audit", default=True, show_default=True, help="Look for copies of training data."
)
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
@click.option(
    "--audit-against",
    metavar="DATA",
    help="Training scans; without it, those of the image model's run.",
)
@click.pass_context
def generate(context: click.Context, /, **asked: Any) -> int:
    """Write image and mask pairs; continues where it was stopped.

    The folder OUT is a dataset that medgen and others can train on.
    """
    from medgen.cli import _generate

    return _generate.generate(Asked(**asked), context.find_root().obj)
