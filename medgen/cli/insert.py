"""`medgen insert`: new lesions in real scans."""

from __future__ import annotations

from typing import Any

import click

from medgen.cli.generate_types import outputs_in_parts
from medgen.cli.options import FOLDER, overrides_argument


@click.command()
@click.option(
    "--hosts",
    type=FOLDER,
    required=True,
    metavar="SCANS",
    help="Folder of patients to put lesions into.",
)
@click.option(
    "--image-model",
    required=True,
    metavar="CKPT|paste",
    help="Checkpoint or run folder of a model of mode insert; paste: real lesions, blended in.",
)
@click.option(
    "--seg-model",
    type=FOLDER,
    metavar="CKPT|DIR",
    help="Masks from a model of slices, or from a folder.  [default: those of the donors, moved, turned and warped]",
)
@click.option(
    "--donors",
    type=FOLDER,
    metavar="DATASET",
    help="Patients with masks, whose lesions tell number, size and place.  [default: those of the hosts]",
)
@click.option(
    "--steps",
    type=click.IntRange(1, 10**6),
    help="Sampling steps; default: those of the model's recipe.",
)
@outputs_in_parts("output")
@overrides_argument
@click.pass_context
def insert(context: click.Context, /, overrides: tuple[str, ...], **asked: Any) -> int:
    """Put new lesions into real scans; continues where it was stopped.

    Each output is a host at full resolution, the same bit for bit but around the new lesions, with
    a mask of all lesions and one of the new; hosts take turns. It shows a real head: share it as
    you would the host.
    KEY=VALUE are of [data], for hosts and donors alike: data.files.flair="FLAIR_*".
    """
    from medgen.cli import _insert

    return _insert.insert(_insert.Asked(**asked), overrides, context.find_root().obj)
