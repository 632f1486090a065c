"""Write the weights of a run to hand on, without its data and its optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from medgen import hookimpl

medgen_api = 1


@click.command("export-weights")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--any-image",
    is_flag=True,
    help="Say that an autoencoder of one channel is for images of any name.",
)
@click.option(
    "--bits",
    type=click.Choice([8, 16]),
    default=16,
    show_default=True,
    help="Of a weight: 16 for fp16; 8 for whole numbers and a scale of each output channel.",
)
def export_weights(checkpoint: Path, out: Path, any_image: bool, bits: int) -> None:
    """Write the weights of CHECKPOINT to OUT, a .safetensors file.

    With them goes the recipe that builds their network, without the places of data and of the run.
    space.latent.checkpoint and training.init_from take such a file.
    """
    from medgen.run import shared_weights

    shared_weights.write(checkpoint, out, any_image, bits)
    click.echo(str(out))


@hookimpl
def medgen_commands() -> Sequence[click.Command]:
    return [export_weights]
