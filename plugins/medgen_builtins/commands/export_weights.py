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
def export_weights(checkpoint: Path, out: Path, any_image: bool) -> None:
    """Write the weights of CHECKPOINT to OUT, a .safetensors file, in fp16.

    With them goes the recipe that builds their network, without the places of data and of the run.
    space.latent.checkpoint and training.init_from take such a file.
    """
    from medgen.run import shared_weights

    shared_weights.write(checkpoint, out, any_image)
    click.echo(str(out))


@hookimpl
def medgen_commands() -> Sequence[click.Command]:
    return [export_weights]
