"""What `medgen insert` does."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from medgen.cli import options
from medgen.cli.options import in_run, say_result
from medgen.errors import IncompleteError, Problem, RecipeError
from medgen.generation import pair_writer, workers
from medgen.generation.indices import Indices, wanted
from medgen.generation.insertion import outputs, setup
from medgen.generation.insertion.inserter import Inserter
from medgen.generation.insertion.model_painter import open_painter
from medgen.generation.insertion.paste import NAME
from medgen.system import streams
from medgen.system.signals import asked_to_stop


class Asked(NamedTuple):
    """What `medgen insert` is asked for; see its options."""

    hosts: Path
    image_model: str
    seg_model: Path | None
    donors: Path | None
    steps: int | None
    num_images: int | None
    only: tuple[int, ...]
    output_dir: Path
    seed: int
    shard: tuple[int, int]
    devices: int


def insert(asked: Asked, overrides: Sequence[str], arguments: list[str]) -> int:
    """Put lesions into hosts, in this process or several. Returns the exit code."""
    streams.only_log()
    shard = workers.share(*asked.shard)
    indices = wanted(asked.num_images, asked.only, 1, shard)
    command = shlex.join(["medgen", *arguments])
    processes = workers.processes(asked.devices, indices) if isinstance(indices, Indices) else 1
    if processes > 1:
        if code := workers.supervise(arguments, processes, len(indices), asked.output_dir, command):
            return code
    else:
        with workers.joined(), asked_to_stop(command) as stop:
            make = _inserter(asked, overrides)
            with workers.progress(len(indices)) as advance:
                outputs.insert(make, indices, asked.output_dir, stop, advance)
    if not workers.notes():
        _conclude(asked.output_dir, indices)
    return 0


def _inserter(asked: Asked, overrides: Sequence[str]) -> Inserter:
    masks = in_run("--seg-model", asked.seg_model)
    scans = setup.Scans(asked.hosts, asked.donors, masks, overrides)
    if asked.image_model == NAME:
        if asked.steps:
            raise RecipeError(
                Problem("--steps", "is for a model, and --image-model is paste", "Leave it out")
            )
        return setup.with_paste(scans, asked.seed)
    model = in_run("--image-model", Path(asked.image_model)) or Path(asked.image_model)
    painter = open_painter(model, asked.steps, options.registry())
    return setup.with_model(scans, painter, options.registry(), asked.seed)


def _conclude(out: Path, indices: Sequence[int]) -> None:
    """Print the result's path. Raises IncompleteError if hosts were left out."""
    found = pair_writer.outcome(out, indices)
    picture = out / "insertions.png"
    say_result(picture if picture.exists() else out)
    if found.failed:
        listed = ", ".join(map(str, found.first)) + (
            ", ..." if found.failed > len(found.first) else ""
        )
        what = f"{found.failed} of {len(indices)} outputs have no lesion (indices {listed}): "
        what += f"{found.rejected['no_place']} found no place, {found.rejected['too_large']} are larger than the "
        fix = "Give hosts and donors prepared alike, with their skull or without it, or train with a larger image_size"
        raise IncompleteError(Problem(out, what + "model's crops", fix))
