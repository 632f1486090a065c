"""`medgen insert`: new lesions in real scans."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medgen.cli import options
from medgen.cli.generate import MOST_PAIRS, Shard
from medgen.cli.options import FOLDER, in_run, overrides_argument, say_result
from medgen.errors import IncompleteError, Problem, RecipeError
from medgen.system import streams

if TYPE_CHECKING:
    from medgen.generation.insertion.inserter import Inserter


@click.command()
@click.option("--hosts", type=FOLDER, required=True, metavar="SCANS", help="Folder of patients to put lesions into.")
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
@click.option("--steps", type=click.IntRange(1, 10**6), help="Sampling steps; default: those of the model's recipe.")
@click.option("--num-images", type=click.IntRange(1, MOST_PAIRS), help="Number of outputs; hosts take turns.")
@click.option(
    "--only", type=click.IntRange(0, MOST_PAIRS - 1), multiple=True, metavar="INDEX", help="Make just this output."
)
@click.option("--output-dir", type=FOLDER, required=True, metavar="OUT", help="Folder for OUT/train/syn_00000/...")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same outputs.")
@click.option("--shard", type=Shard(), default="1/1", help="Make part I of N, as one of N jobs.")
@click.option(
    "--devices", type=click.IntRange(1, 1024), default=1, metavar="N", help="Number of processes to share the work."
)
@overrides_argument
@click.pass_context
def insert(
    context: click.Context, hosts: Path, image_model: str, seg_model: Path | None, donors: Path | None,
    steps: int | None, num_images: int | None, only: tuple[int, ...], output_dir: Path, seed: int,
    shard: tuple[int, int], devices: int, overrides: tuple[str, ...],
) -> int:  # fmt: skip
    """Put new lesions into real scans; continues where it was stopped.

    Each output is a host at full resolution, the same bit for bit but around the new lesions, with a mask of all
    lesions and one of the new. It shows a real head: share it as you would the host. KEY=VALUE are of [data], for hosts
    and donors alike: data.files.flair="FLAIR_*".
    """
    from medgen.generation import workers
    from medgen.generation.blocks import Indices
    from medgen.generation.insertion import outputs
    from medgen.system.signals import asked_to_stop

    streams.only_log()
    shard, arguments = workers.share(*shard), context.find_root().obj
    indices = _indices(num_images, only, shard)
    command = shlex.join(["medgen", *arguments])
    processes = workers.processes(devices, indices) if isinstance(indices, Indices) else 1
    if processes > 1:
        if code := workers.supervise(arguments, processes, len(indices), output_dir, command):
            return code
    else:
        with workers.joined(), asked_to_stop(command) as stop:
            make = _inserter(hosts, image_model, seg_model, donors, overrides, steps, seed)
            with workers.progress(len(indices)) as advance:
                outputs.insert(make, indices, output_dir, stop, advance)
    if not workers.notes():
        _conclude(output_dir, indices)
    return 0


def _indices(num_images: int | None, only: tuple[int, ...], shard: tuple[int, int]) -> Sequence[int]:
    """The outputs to make: those named, or this part of all of them."""
    from medgen.generation import pairs

    if (num_images is None) != bool(only):
        what = "give one of them"
        raise RecipeError(
            Problem("--num-images, --only", what, "Say how many outputs there shall be, or which to make")
        )
    if only:
        return sorted({*only}) if shard[0] == 1 else []
    return pairs.shard(num_images or 0, 1, *shard)


def _inserter(
    hosts: Path, image_model: str, seg_model: Path | None, donors: Path | None, overrides: Sequence[str],
    steps: int | None, seed: int,
) -> Inserter:  # fmt: skip
    from medgen.generation.insertion import setup
    from medgen.generation.insertion.model_painter import open_painter
    from medgen.generation.insertion.paste import NAME

    scans = setup.Scans(hosts, donors, in_run("--seg-model", seg_model), overrides)
    if image_model == NAME:
        if steps:
            raise RecipeError(Problem("--steps", "is for a model, and --image-model is paste", "Leave it out"))
        return setup.with_paste(scans, seed)
    model = in_run("--image-model", Path(image_model)) or Path(image_model)
    return setup.with_model(scans, open_painter(model, steps, options.registry()), options.registry(), seed)


def _conclude(out: Path, indices: Sequence[int]) -> None:
    """Print the result's path. Raises IncompleteError if hosts were left out."""
    from medgen.generation import pairs

    found = pairs.outcome(out, indices)
    picture = out / "insertions.png"
    say_result(picture if picture.exists() else out)
    if found.failed:
        listed = ", ".join(map(str, found.first)) + (", ..." if found.failed > len(found.first) else "")
        what = f"{found.failed} of {len(indices)} outputs have no lesion (indices {listed}): "
        what += f"{found.rejected['no_place']} found no place, {found.rejected['too_large']} are larger than the "
        fix = "Give hosts and donors prepared alike, with their skull or without it, or train with a larger image_size"
        raise IncompleteError(Problem(out, what + "model's crops", fix))
