"""`medgen insert`: new lesions in real scans."""

from __future__ import annotations

from pathlib import Path

import click

from medgen.cli.generate_options import MOST_PAIRS, Shard
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
@click.option(
    "--num-images", type=click.IntRange(1, MOST_PAIRS), help="Number of outputs; hosts take turns."
)
@click.option(
    "--only",
    type=click.IntRange(0, MOST_PAIRS - 1),
    multiple=True,
    metavar="INDEX",
    help="Make just this output.",
)
@click.option(
    "--output-dir",
    type=FOLDER,
    required=True,
    metavar="OUT",
    help="Folder for OUT/train/syn_00000/...",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same outputs.")
@click.option("--shard", type=Shard(), default="1/1", help="Make part I of N, as one of N jobs.")
@click.option(
    "--devices",
    type=click.IntRange(1, 1024),
    default=1,
    metavar="N",
    help="Number of processes to share the work.",
)
@overrides_argument
@click.pass_context
def insert(
    context: click.Context, hosts: Path, image_model: str, seg_model: Path | None, donors: Path | None,
    steps: int | None, num_images: int | None, only: tuple[int, ...], output_dir: Path, seed: int,
    shard: tuple[int, int], devices: int, overrides: tuple[str, ...],
) -> int:  # fmt: skip
    """Put new lesions into real scans; continues where it was stopped.

    Each output is a host at full resolution, the same bit for bit but around the new lesions, with
    a mask of all lesions and one of the new. It shows a real head: share it as you would the host.
    KEY=VALUE are of [data], for hosts and donors alike: data.files.flair="FLAIR_*".
    """
    from medgen.cli import _insert

    asked = _insert.Asked(
        hosts,
        image_model,
        seg_model,
        donors,
        steps,
        num_images,
        only,
        output_dir,
        seed,
        shard,
        devices,
    )
    return _insert.insert(asked, overrides, context.find_root().obj)
