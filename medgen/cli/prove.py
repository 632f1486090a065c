"""`medgen prove`: do pairs help to train a segmenter?"""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from medgen.cli.options import FOLDER, real_and_pairs, seed_option


@click.command()
@real_and_pairs
@click.option(
    "--output-dir",
    type=FOLDER,
    metavar="OUT",
    help="Results are kept here.  [default: PAIRS-prove]",
)
@click.option(
    "--persons",
    type=click.IntRange(2),
    help="Real persons that pairs are added to.  [default: all]",
)
@click.option(
    "--times",
    type=click.FloatRange(0, min_open=True),
    default=4,
    show_default=True,
    help="Most pairs per real slice or volume.",
)
@click.option(
    "--steps",
    type=click.IntRange(10),
    default=500,
    show_default=True,
    help="Optimizer steps of each segmenter.",
)
@click.option(
    "--seeds",
    "repeats",
    type=click.IntRange(3),
    default=3,
    show_default=True,
    help="Repeats of each arm.",
)
@seed_option("answer")
@click.option(
    "--test-share",
    type=click.FloatRange(0, 0.9),
    default=0,
    help="Test on this share of all persons, not on those for validation: for pairs whose generator saw none of them.",
)
@click.option(
    "--leave-one-out",
    is_flag=True,
    help="PAIRS holds a folder of pairs for each person, named after who is left out of it and tested on:"
    " for a handful of patients.",
)
@click.option(
    "--segmenter", default="small_unet", show_default=True, help="Plugin that finds lesions."
)
@click.option(
    "--processes",
    type=click.IntRange(0),
    default=0,
    help="Processes that train.  [default: one per core]",
)
@click.pass_context
def prove(
    context: click.Context, real: str, pairs: Path, overrides: tuple[str, ...], output_dir: Path | None,
    persons: int | None, times: float, steps: int, repeats: int, seed: int, test_share: float, leave_one_out: bool,
    segmenter: str, processes: int,
) -> None:  # fmt: skip
    """Say whether PAIRS help to train a segmenter of lesions, and how many patients they are worth.

    REAL is a recipe, a run's folder, a checkpoint, or a folder of patients; its patients for
    validation are tested on, as the pairs' generator has not seen them, or with --leave-one-out each
    person in turn. The same small segmenter is trained on real slices, or volumes, on pairs, on
    both, and on real ones with copy-pasted lesions. Goes on where it was stopped.
    """
    from medgen.cli import _prove

    if leave_one_out and test_share:
        raise click.UsageError(
            "--leave-one-out tests on each person, so --test-share has no effect."
        )
    command = shlex.join(["medgen", *context.find_root().obj])
    _prove.prove(
        real,
        pairs,
        overrides,
        output_dir or pairs.with_name(f"{pairs.name}-prove"),
        command,
        persons=persons,
        times=times,
        steps=steps,
        repeats=repeats,
        seed=seed,
        test_share=test_share,
        leave_one_out=leave_one_out,
        segmenter=segmenter,
        processes=processes,
    )
